"""Records of events: what was predicted of a video and what is annotated, as JSON, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from vlpipe.models.metrics.dense_captioning import EventCaption
from vlpipe.models.tasks.task import Record
from vlpipe.stores.datasets import DenseCaptions


def event_record(
    video_id: str,
    duration_s: float,
    annotations: Sequence[DenseCaptions],
    predictions: Sequence[Sequence[EventCaption]],
    confidences: Sequence[Sequence[float]] = (),
) -> Record:
    """predictions: one list, or one for each annotator whose events were described."""
    lists: list[list[dict[str, Any]]] = [
        [{"start_s": e.start_s, "end_s": e.end_s, "sentence": e.sentence} for e in events]
        for events in predictions
    ]
    for events, values in zip(lists, confidences, strict=False):
        for event, confidence in zip(events, values, strict=True):
            event["confidence"] = confidence
    return {
        "id": video_id,
        "video_id": video_id,
        "duration_s": duration_s,
        "prediction": lists,
        "answer": [
            [
                {"start_s": start, "end_s": end, "sentence": sentence}
                for (start, end), sentence in zip(told.spans, told.sentences, strict=True)
            ]
            for told in annotations
        ],
    }


def predictions_of(records: Sequence[Record], place: int) -> dict[str, list[EventCaption]]:
    """The lists at that place by video."""
    return {
        r["id"]: [
            EventCaption(e["start_s"], e["end_s"], e["sentence"]) for e in r["prediction"][place]
        ]
        for r in records
        if place < len(r["prediction"])
    }


def references_of(records: Sequence[Record], annotator: int) -> dict[str, DenseCaptions]:
    """What that annotator says, by video."""
    return {
        r["id"]: DenseCaptions(
            r["id"],
            r["duration_s"],
            tuple((e["start_s"], e["end_s"]) for e in r["answer"][annotator]),
            tuple(e["sentence"] for e in r["answer"][annotator]),
        )
        for r in records
        if annotator < len(r["answer"])
    }


def lines_of(events: Sequence[Mapping[str, Any]]) -> str:
    """The events of a record in the order of time, one a line."""
    ordered = sorted(events, key=lambda event: (event["start_s"], event["end_s"]))
    return "\n".join(f"{e['start_s']:.1f} to {e['end_s']:.1f} s: {e['sentence']}" for e in ordered)
