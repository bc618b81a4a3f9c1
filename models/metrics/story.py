"""The figures of a story's characters, from the records of the task `reid`; all in percent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlpipe.models.metrics.identity import fill_in_figures, pair_accuracy

Record = Mapping[str, Any]


def story_figures(records: Sequence[Record]) -> dict[str, float]:
    """Figures of the mentions and tracks whose characters are known; empty if there are none.

    `accuracy`: pairs of mentions that have the same or different ids rightly (LSMDC 2019), its
    parts `/same`, `/different` and `/class`, their harmonic mean; `/all_same` and
    `/all_different`: of answers that look at nothing. `text`: the same by the pairs themselves,
    which may contradict each other; `/published` counts sets with fewer than two mentions as right.
    `video`: pairs of tracks, with the same parts. `grounding`: mentions whose track is right.
    `gender`: of mentions.
    """
    known = [[name is not None for name in record["characters"]] for record in records]
    true = [
        _picked(record["characters"], kept) for record, kept in zip(records, known, strict=True)
    ]
    if not any(true):
        return {}
    told = [
        _picked(record["prediction"], kept) for record, kept in zip(records, known, strict=True)
    ]
    figures = _parts("accuracy", told, true)
    if all("same_mentions" in record for record in records):
        tables = [_square(r["same_mentions"], k) for r, k in zip(records, known, strict=True)]
        figures["text"] = pair_accuracy(tables, true, threshold=0.5)
        figures["text/published"] = pair_accuracy(tables, true, threshold=0.5, empty_sets="right")
    return figures | _video(records) | _grounding(records) | _gender(records)


def trivial_record(record: Record, *, is_same: bool) -> dict[str, Any]:
    """The record with all mentions the same character, or all different."""
    count = len(record["characters"])
    return dict(record) | {"prediction": [0] * count if is_same else list(range(count))}


def _parts(name: str, told: Sequence[Any], true: Sequence[Any]) -> dict[str, float]:
    found = fill_in_figures(told, true)
    return {
        name: found["accuracy"],
        f"{name}/same": found["same"],
        f"{name}/different": found["different"],
        f"{name}/class": found["class_accuracy"],
        f"{name}/all_same": fill_in_figures([[0] * len(t) for t in true], true)["accuracy"],
        f"{name}/all_different": fill_in_figures([range(len(t)) for t in true], true)["accuracy"],
    }


def _video(records: Sequence[Record]) -> dict[str, float]:
    """Of pairs of labelled tracks: V > 0 says that they are one person."""
    tables, true = [], []
    for record in records:
        names = [track["character"] for track in record.get("tracks", ())]
        kept = [name is not None for name in names]
        tables.append(_square(record.get("same_tracks", []), kept) > 0)
        true.append(_picked(names, kept))
    if not any(len(names) > 1 for names in true):
        return {}
    found = {"video": pair_accuracy(tables, true, threshold=0.5)}
    for part, is_same in (("same", True), ("different", False)):
        shares = [
            np.mean([table[i, j] == is_same for i, j in pairs])
            for table, names in zip(tables, true, strict=True)
            if (pairs := _pairs(names, is_same=is_same))
        ]
        found[f"video/{part}"] = 100 * float(np.mean(shares)) if shares else 0.0
    ones = [np.ones((len(names), len(names))) for names in true]
    found["video/all_same"] = pair_accuracy(ones, true, threshold=0.5)
    found["video/all_different"] = pair_accuracy([1 - one for one in ones], true, threshold=0.5)
    return found


def _pairs(names: Sequence[str], *, is_same: bool) -> list[tuple[int, int]]:
    size = len(names)
    return [
        (i, j) for i in range(size) for j in range(i + 1, size) if (names[i] == names[j]) == is_same
    ]


def _grounding(records: Sequence[Record]) -> dict[str, float]:
    """Of mentions whose character is known, where any track is labelled at all."""
    hits = [
        place >= 0 and record["tracks"][place]["character"] == name
        for record in records
        if any(track["character"] is not None for track in record.get("tracks", ()))
        for name, place in zip(record["characters"], record["mention_tracks"], strict=True)
        if name is not None
    ]
    return {"grounding": 100 * float(np.mean(hits))} if hits else {}


def _gender(records: Sequence[Record]) -> dict[str, float]:
    hits = [
        (share >= 0.5) == (gender == "F")
        for record in records
        if "female_share" in record
        for gender, share in zip(record["genders"], record["female_share"], strict=True)
        if gender is not None
    ]
    return {"gender": 100 * float(np.mean(hits))} if hits else {}


def _picked(values: Sequence[Any], kept: Sequence[bool]) -> list[Any]:
    return [value for value, is_kept in zip(values, kept, strict=True) if is_kept]


def _square(table: Sequence[Sequence[float]], kept: Sequence[bool]) -> Any:  # noqa: ANN401 - an array
    places = np.flatnonzero(kept)
    return np.asarray(table, np.float64).reshape(len(kept), len(kept))[np.ix_(places, places)]
