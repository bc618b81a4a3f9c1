"""Who is who in clips that stand in no annotation, by a run that learnt the task `reid`."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vlpipe.models.character_ids import track_characters
from vlpipe.models.story_text import MENTION
from vlpipe.models.tasks import Record
from vlpipe.models.tasks.reid import ReidTask
from vlpipe.pipelines.extraction.planning import source_digest
from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.media_features import features_like
from vlpipe.pipelines.story_pictures import ShownStory, frame_rate, show_story
from vlpipe.pipelines.training.data import ExampleDataset, PreparedVideos, batch_loader
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.material import Material, open_material
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import UsageError


@dataclass(frozen=True)
class Characters:
    """Who is who in some clips. record: all that the task says. characters: of its tracks."""

    run: Path
    clips: tuple[str, ...]
    record: Record
    characters: tuple[int, ...]
    story: ShownStory

    def to_json(self) -> dict[str, Any]:
        ids = iter(zip(self.record["prediction"], self.record["mention_tracks"], strict=True))
        rows = [track["row"] for track in self.record["tracks"]]
        told = []
        for place, (clip, asked) in enumerate(zip(self.record["clips"], self.clips, strict=True)):
            mentions = [next(ids) for _ in range(clip["mentions"])]
            tracks = [
                {"track": track["row"], "character": number}
                for track, number in zip(self.record["tracks"], self.characters, strict=True)
                if track["clip"] == place
            ]
            told.append(
                {
                    "clip": asked,
                    "video_id": clip["video_id"],
                    "sentence": clip["sentence"],
                    "told": "".join(part.text for part in self.story.clips[place].parts),
                    "mentions": [
                        {"character": number, "track": rows[track] if track >= 0 else None}
                        for number, track in mentions
                    ],
                    "tracks": tracks,
                }
            )
        return {"run": str(self.run), "clips": told}


def read_sentences(path: Path, count: int) -> list[str]:
    """A sentence for each of so many clips: the lines of a text file, which may be empty.

    Raises UsageError for a file that cannot be read, has another number of lines, or mentions
    nobody.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the sentences {path} cannot be read: {error}") from error
    while len(lines) > count and not lines[-1].strip():
        lines.pop()
    if len(lines) != count:
        raise UsageError(
            f"{path} has {len(lines)} lines for {count} clips; expected a sentence a line, in the "
            "order of the clips",
            hint="a clip of which nothing is said has an empty line",
        )
    if not any(MENTION in line for line in lines):
        raise UsageError(f"{path} mentions nobody; people are written {MENTION}")
    return [line.strip() for line in lines]


def identify_characters(
    path: Path, clips: Sequence[str], sentences: Sequence[str], *, device: str = "auto"
) -> Characters:
    """Ids for everybody in the clips and in the sentences, of which each clip has one.

    path: of the run. clips: media files, or ids of videos in its store, in the order of the story.
    Features of files that are not in the store are made as those of the run were.
    Raises UsageError where the run learnt something else, or a clip is neither.
    """
    run = RunFolder(path)
    material = open_material(run)
    model, task = load_model(run.best)
    if not isinstance(task, ReidTask):
        raise UsageError(
            f"run {path} learnt {task.name}, which knows no characters",
            hint="vlpipe train cisin --task reid",
        )
    with tempfile.TemporaryDirectory() as folder:
        found = _find_clips(material, clips, Path(folder) / "store", device)
        videos = _Videos(material, found)
        example = task.tell([clip.video_id for clip in found], sentences)
        (batch,) = batch_loader(ExampleDataset([example], videos), task, [[0]], workers=0)
        chosen = choose_device(device)
        with torch.no_grad():
            outputs = model.to(chosen)(**batch.to(chosen).inputs)
        (record,) = task.decode(outputs, batch.to(chosen))
        paths = {clip.video_id: clip.path for clip in found}
        story = show_story(record, videos, paths, fps=frame_rate(material))
    whose = track_characters(record["prediction"], record["mention_tracks"], record["same_tracks"])
    return Characters(path, tuple(clips), record, tuple(whose), story)


def write_characters_page(found: Characters, path: Path) -> Path:
    """One HTML file that needs nothing else: each clip's frames, boxes and sentence."""
    return render("characters.html.j2", path, title="Who is who", story=found.story, run=found.run)


@dataclass(frozen=True)
class _Clip:
    video_id: str
    path: Path | None
    store: FeatureStore


class _Videos(PreparedVideos):
    """Clips of several stores."""

    def __init__(self, material: Material, clips: Sequence[_Clip]) -> None:
        super().__init__(material.store, material.slots, material.model, material.config, 0)
        self._of_store = {
            clip.video_id: PreparedVideos(
                clip.store, material.slots, material.model, material.config, 0
            )
            for clip in clips
            if clip.store is not material.store
        }

    def features(self, video_id: str) -> Any:  # noqa: ANN401 - as in the base
        other = self._of_store.get(video_id)
        return super().features(video_id) if other is None else other.features(video_id)


def _find_clips(material: Material, clips: Sequence[str], folder: Path, device: str) -> list[_Clip]:
    if len(set(clips)) != len(clips):
        raise UsageError("a clip is named twice; a story has each once")
    dataset = open_dataset(material.job.dataset, material.job.root)
    known = {video.id: video.path for video in dataset.videos()}
    sources = _stored_sources(material)
    found: dict[str, _Clip] = {}
    new: list[Path] = []
    for clip in clips:
        path = Path(clip)
        if clip in sources:
            found[clip] = _Clip(clip, known.get(clip), material.store)
        elif path.is_file():
            if sources.get(path.stem) == source_digest(path):
                found[clip] = _Clip(path.stem, path, material.store)
            else:
                new.append(path)
        else:
            raise UsageError(
                f"{clip!r} is neither a video of {material.store.url} with all features of the "
                "run, nor a media file",
                hint="vlpipe store ls STORE --videos lists what there is",
            )
    if new:
        made = features_like(material, new, folder, device=device)
        for path, reason in made.failed.items():
            raise UsageError(f"{path}: {reason}")
        for path in new:
            found[str(path)] = _Clip(made.ids[path], path, made.store)
    return [found[clip] if clip in found else found[str(Path(clip))] for clip in clips]


def _stored_sources(material: Material) -> dict[str, str]:
    """Id of each video that has all features of the run -> digest of the file that it was."""
    wanted = set(material.slots.values())
    table = material.store.videos().select(["video_id", "feature", "is_active", "source"])
    features: dict[str, set[str]] = {}
    sources: dict[str, str] = {}
    for row in table.to_pylist():
        if row["is_active"] and row["feature"] in wanted:
            features.setdefault(row["video_id"], set()).add(row["feature"])
            sources[row["video_id"]] = row["source"]
    return {video_id: sources[video_id] for video_id, own in features.items() if own == wanted}
