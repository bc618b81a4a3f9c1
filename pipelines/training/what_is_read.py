"""What a training reads, in a few digests, and in words what differs between two of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from vlpipe.pipelines.training.material import Survey

# Settings that change how long a training takes and not what it is.
_WITHOUT_EFFECT = {"device", "devices", "workers", "cache_mb", "checkpoint_every_s"}

Json = dict[str, Any]


def what_is_read(survey: Survey) -> Json:
    """The job without its folder, the examples of each split, and of each feature the generation
    and the rows of the videos that these examples are about. Other videos of the store and rows
    that only lie elsewhere in it change nothing here."""
    job = survey.job.model_dump(mode="json", include={"model", "task", "dataset", "root", "store"})
    settings = survey.job.settings.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    videos = {
        clip.video_id: None
        for part in survey.examples.values()
        for example in part.examples
        for clip in example.clips
    }
    return {
        "job": job | {"settings": settings},
        "examples": {
            split: {"count": len(part.examples), "digest": _digest(part.examples)}
            for split, part in survey.examples.items()
        },
        "features": {
            feature: {
                "generation": survey.store[feature].info.generation,
                "videos": len(videos),
                "digest": survey.store.digest(feature, videos),
            }
            for feature in dict.fromkeys(survey.slots.values())
        },
    }


def changes_between(before: Json, now: Json) -> tuple[str, ...]:
    """What differs, one sentence a thing; empty when nothing does."""
    return tuple(_changes(before, now))


def _changes(before: Json, now: Json) -> Iterator[str]:
    for key in sorted({*before["job"], *now["job"]} - {"settings"}):
        if before["job"].get(key) != now["job"].get(key):
            yield f"{key}: {before['job'].get(key)} became {now['job'].get(key)}"
    old, new = before["job"]["settings"], now["job"]["settings"]
    for key in sorted({*old, *new}):
        if old.get(key) != new.get(key):
            yield f"setting {key}: {json.dumps(old.get(key))} became {json.dumps(new.get(key))}"
    for split in sorted({*before["examples"], *now["examples"]}):
        was, is_ = before["examples"].get(split), now["examples"].get(split)
        if was != is_:
            counts = [0 if part is None else part["count"] for part in (was, is_)]
            other = " (others)" if counts[0] == counts[1] else ""
            yield f"{split}: {counts[0]} examples became {counts[1]}{other}"
    for feature in sorted({*before["features"], *now["features"]}):
        was, is_ = before["features"].get(feature), now["features"].get(feature)
        if was is None or is_ is None:
            yield f"feature {feature}: {'new' if was is None else 'no longer read'}"
        elif was["generation"] != is_["generation"]:
            yield (f"feature {feature}: generation {was['generation']} became {is_['generation']}")
        elif was != is_:
            counts_of = f"{was['videos']} videos became {is_['videos']}"
            same = f"rows of the {is_['videos']} videos differ"
            yield f"feature {feature}: {same if was['videos'] == is_['videos'] else counts_of}"


def _digest(examples: Sequence[Any]) -> str:
    """SHA-256 (hex) over the examples in order, as JSON of their fields."""
    result = hashlib.sha256()
    for example in examples:
        text = json.dumps(asdict(example), sort_keys=True, default=_plain, ensure_ascii=False)
        result.update(text.encode("utf-8", "surrogatepass") + b"\n")
    return result.hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        # The text of a long array leaves out what lies in its middle.
        content = hashlib.sha256(value.tobytes()).hexdigest()
        return [str(value.dtype), list(value.shape), content]
    return str(value)
