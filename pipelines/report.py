"""The report of an extraction: one HTML file that needs nothing else, to look at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlpipe.pipelines.extraction.receipts import STAGES, ExtractionSummary
from vlpipe.pipelines.html_pages import render
from vlpipe.pipelines.pictures import (
    data_address,
    rows_over_time,
    similarity_matrix,
    strip,
)
from vlpipe.stores import FeatureStore

_FRAMES_PER_STRIP = 8


@dataclass(frozen=True, slots=True)
class Example:
    """A video to show: where its media lies, and lines of text about it (questions, captions)."""

    id: str
    path: Path
    captions: tuple[str, ...] = ()


def write_report(
    path: Path,
    *,
    title: str,
    store: FeatureStore,
    summaries: Sequence[ExtractionSummary],
    examples: Sequence[Example],
    machine: str,
    runs: Sequence[Mapping[str, Any]] = (),
    untrained: Sequence[tuple[str, str]] = (),
    pages: Sequence[tuple[str, str, str]] = (),
    figures: Sequence[tuple[str, str, str]] = (),
) -> Path:
    """Writes the report of these extractions and returns its path.

    runs: sections of `training_report.run_section`. untrained: tasks without a run, and why.
    pages: title, a sentence, and path from the report, of pages beside it. figures: name, value,
    and the value of the best answer that sees no video.
    examples: videos of the store that are shown with frames and feature pictures. Rows are read
    back from the store, so that the pictures show what a reader gets.
    """
    return render(
        "report.html.j2",
        path,
        title=title,
        machine=machine,
        store={"url": store.url, "version": store.version},
        summaries=[_summary(s, store) for s in summaries],
        features=[
            {
                "name": name,
                "generation": info.generation,
                "videos": info.num_videos,
                "rows": info.num_rows,
                "shape": " x ".join(map(str, info.row_shape)),
                "dtype": info.dtype,
                "megabytes": info.num_bytes / 1e6,
                "weights": info.definition.weights,
            }
            for name, info in store.features.items()
        ],
        examples=_examples(examples, store),
        runs=runs,
        untrained=untrained,
        pages=pages,
        figures=figures,
    )


def _summary(summary: ExtractionSummary, store: FeatureStore) -> dict[str, Any]:
    quarantine = {row["video_id"]: row for row in store.failed().to_pylist()}
    failed = {f.id: {"id": f.id, "kind": f.kind, "message": f.message} for f in summary.failed}
    for video_id in summary.failed_before:
        row = quarantine[video_id]
        failed[video_id] = {"id": video_id, "kind": row["kind"], "message": row["message"]}
    rows = sum(f["rows"] for f in summary.features.values())
    busiest = max(summary.stage_s.values(), default=0.0) or 1.0
    return summary.model_dump(mode="json") | {
        "rows": rows,
        "videos_per_s": summary.extracted / max(summary.wall_s, 1e-9),
        "media_per_s": summary.media_s / max(summary.wall_s, 1e-9),
        "rows_per_s": rows / max(summary.wall_s, 1e-9),
        "stages": [
            {
                "name": stage,
                "seconds": summary.stage_s[stage],
                "share": 100 * summary.stage_s[stage] / busiest,
                "media_per_s": summary.media_s / max(summary.stage_s[stage], 1e-9),
            }
            for stage in STAGES
        ],
        "failed": list(failed.values()),
    }


def _examples(examples: Sequence[Example], store: FeatureStore) -> list[dict[str, Any]]:
    from vlpipe.extractors.media import DecodePool, FrameBlock, FrameRequest

    shown: list[dict[str, Any]] = []
    request = FrameRequest(max_frames=_FRAMES_PER_STRIP)
    with DecodePool(workers=1, tolerance="lenient") as pool:
        for example in examples:
            with pool.open(example.path, [request]) as stream:
                frames = [f for b in stream if isinstance(b, FrameBlock) for f in b.frames]
                duration_s = stream.info.duration_s
            shown.append(
                {
                    "id": example.id,
                    "captions": example.captions,
                    "duration_s": duration_s,
                    "strip": data_address(strip(frames), jpeg=True),
                    "features": _feature_pictures(example.id, store),
                }
            )
    return shown


def _feature_pictures(video_id: str, store: FeatureStore) -> list[dict[str, Any]]:
    pictures: list[dict[str, Any]] = []
    for name in store.features:
        if video_id not in store[name]:
            continue
        rows, spans = store[name].read(video_id, with_spans=True)
        note = store.status(store[name].info.definition, [video_id])[video_id].note
        facts: dict[str, Any] = {"name": name, "rows": len(rows), "note": note, "over_time": None}
        if len(rows) > 1:
            values = np.asarray(rows, np.float32)
            facts |= {
                "over_time": data_address(rows_over_time(values)),
                "similarity": data_address(similarity_matrix(values)),
                "first_s": float(spans[0, 0]),
                "last_s": float(spans[-1, 1]),
            }
        pictures.append(facts)
    return pictures
