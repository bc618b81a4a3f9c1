"""Dense captioning: the events of a video and a sentence for each (ActivityNet Captions).

    captioning        a sentence for each annotated event; the first stage of two
    proposals         events without sentences; the second stage
    dense_captioning  both: proposals, and a sentence for each

An example is a video with its events, so that one batch feeds all three. The challenge keeps its
test annotations; papers report the validation videos, which two annotators described. They are
the split `test` here, and validation examples are drawn from the training videos.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, cast, runtime_checkable

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vlpipe.models.caption_vocabulary import PADDING, CaptionVocabulary, tokens
from vlpipe.models.decoding import cut_captions
from vlpipe.models.metrics.dense_captioning import (
    TIOUS,
    EventCaption,
    evaluate_captions,
    evaluate_detection,
    submission,
)
from vlpipe.models.metrics.java_scoring import Meteor
from vlpipe.models.metrics.reduced_meteor import EXACT_STEM, ReducedMeteor
from vlpipe.models.proposals import evaluation_proposals
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Clip, Record, Shown, Task, TaskSettings, stack
from vlpipe.stores.datasets import Dataset, DenseCaptions
from vlpipe.stores.errors import UsageError

TRAIN, TEST = "train", "test"
_FILES = {TRAIN: ("train",), TEST: ("val_1", "val_2")}
_EVENTS_AT_ONCE = 64
_MOST_LENGTHS = 256
_OF_EVENTS = ("caption", "events")  # inputs that are not of the video


@runtime_checkable
class DescribesEvents(Protocol):
    """A dataset with sentences for events: files "train", "val_1" and "val_2"."""

    def captions(self, split: str) -> list[DenseCaptions]: ...


@dataclass(frozen=True, slots=True)
class DescribedVideo:
    """A video with its events. annotations: of each annotator; none for a video that is asked
    about."""

    id: str
    duration_s: float
    annotations: tuple[DenseCaptions, ...] = ()

    @property
    def clips(self) -> tuple[Clip, ...]:
        return (Clip(self.id),)


class EventSettings(TaskSettings):
    """least_count: rarer words of the training sentences are unknown ones.

    longest: training sentences are cut to so many words. max_words: of a written one. beams: kept
        while writing; 1 is greedy.
    proposals: events that count of a video. suppress_from: tIoU with a better proposal from which
        on one is dropped; None, as in published figures: none is.
    meteor: `reduced` (without Java, a figure with its own name), or METEOR itself beside it.
    """

    least_count: PositiveInt = 1
    longest: PositiveInt = 80
    max_words: PositiveInt = 30
    beams: PositiveInt = 1
    proposals: PositiveInt = 100
    suppress_from: float | None = Field(default=None, gt=0, le=1)
    meteor: Literal["reduced", "java"] = "reduced"


class EventTask(Task[DescribedVideo]):
    """What the three tasks have in common."""

    Settings: ClassVar[type[TaskSettings]] = EventSettings
    has_proposals: ClassVar[bool] = False

    def __init__(
        self, settings: EventSettings, vocabulary: CaptionVocabulary, lengths_s: tuple[float, ...]
    ) -> None:
        self.settings = settings
        self.vocabulary = vocabulary
        self.lengths_s = lengths_s

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        if not isinstance(dataset, DescribesEvents):
            raise UsageError(
                f"dataset {dataset.name!r} has no sentences for events",
                hint="docs/training.md lists the tasks of each dataset",
            )
        return (TRAIN, TEST)

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[DescribedVideo]:
        if split not in cls.splits(dataset):
            raise UsageError(
                f"the events of dataset {dataset.name!r} have no split {split!r}; they have: "
                f"{TRAIN}, {TEST}"
            )
        told: dict[str, list[DenseCaptions]] = {}
        for file in _FILES[split]:
            for video in cast(DescribesEvents, dataset).captions(file):
                if video.spans:
                    told.setdefault(video.video_id, []).append(video)
        return [DescribedVideo(name, of[0].duration_s, tuple(of)) for name, of in told.items()]

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[DescribedVideo], dataset: Dataset
    ) -> Self:
        del dataset
        assert isinstance(settings, EventSettings)
        told = [annotation for e in examples for annotation in e.annotations]
        texts = (text for of in told for text in of.sentences)
        vocabulary = CaptionVocabulary.of(texts, least_count=settings.least_count)
        lengths = [end - start for of in told for start, end in of.spans if end > start]
        if not lengths:
            raise UsageError("no training event has a length above 0")
        shares = np.linspace(0, 1, min(_MOST_LENGTHS, len(lengths)))
        kept = tuple(float(length) for length in np.quantile(lengths, shares).round(3) if length)
        return cls(settings, vocabulary, kept)

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "words": list(self.vocabulary.words),
            "lengths_s": list(self.lengths_s),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        words = CaptionVocabulary(tuple(value["words"]))
        return cls(EventSettings(**value["settings"]), words, tuple(value["lengths_s"]))

    def model_settings(self) -> dict[str, Any]:
        lengths = {"event_lengths_s": list(self.lengths_s)} if self.has_proposals else {}
        return {"vocabulary_size": len(self.vocabulary)} | lengths

    def words(self) -> Sequence[str]:
        return self.vocabulary.words

    def encode(self, example: DescribedVideo) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """events, float64 (n, 2), start and end in seconds, of the first annotator; caption, int64
        (n, L), padded; duration_s, float64 ()."""
        inputs = {"duration_s": torch.tensor(example.duration_s, dtype=torch.float64)}
        if example.annotations:
            told = example.annotations[0]
            ids = [
                torch.tensor(self.vocabulary.encode(text, self.settings.longest))
                for text in told.sentences
            ]
            inputs["events"] = torch.tensor(told.spans, dtype=torch.float64)
            inputs["caption"] = pad_sequence(ids, batch_first=True, padding_value=PADDING)
        return inputs, {}

    def collate(
        self, items: Sequence[tuple[DescribedVideo, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[DescribedVideo]:
        """The videos stacked, and the events of all of them in a row: events (N, 3) with the
        place of the video in front, caption (N, L)."""
        videos: dict[str, list[Tensor]] = {}
        events: list[Tensor] = []
        captions: list[Tensor] = []
        for place, (example, (video,)) in enumerate(items):
            inputs, _ = self.encode(example)
            for name, tensor in (*video.items(), ("duration_s", inputs["duration_s"])):
                videos.setdefault(name, []).append(tensor)
            if "events" in inputs:
                events.append(_with_item(inputs["events"], place))
                captions += inputs["caption"].unbind()
        stacked = stack(videos)
        if events:
            stacked["events"] = torch.cat(events)
            stacked["caption"] = pad_sequence(captions, batch_first=True, padding_value=PADDING)
        return Batch(tuple(example for example, _ in items), stacked)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[DescribedVideo]) -> Tensor:
        del batch
        return outputs["loss"]

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[DescribedVideo]) -> list[Record]:
        """Records of proposals without sentences, if the outputs hold `predictions`."""
        return [
            self.record(
                example, [[EventCaption(*row[:2]) for row in rows.tolist()]], [rows[:, 2].tolist()]
            )
            for example, rows in zip(batch.examples, self._proposals(outputs, batch), strict=True)
        ]

    def _proposals(
        self, outputs: Mapping[str, Tensor], batch: Batch[DescribedVideo]
    ) -> list[Tensor]:
        """(n, 3) start, end and confidence, of each video, the most confident first."""
        return [
            evaluation_proposals(
                rows, example.duration_s, most=self.settings.proposals,
                suppress_from=self.settings.suppress_from,
            )
            for rows, example in zip(outputs["predictions"].float(), batch.examples, strict=True)
        ]  # fmt: skip

    def write(self, model: nn.Module, inputs: Mapping[str, Tensor], events: Tensor) -> list[str]:
        """The sentences of events (N, 3) of the videos of `inputs`."""
        if not len(events):
            return []
        network: Any = getattr(model, "module", model)  # out of what several devices need
        of_videos = {name: x for name, x in inputs.items() if name not in _OF_EVENTS}
        sentences = []
        for part in torch.split(events, _EVENTS_AT_ONCE):
            ids = network.write_captions(
                **of_videos, events=part, max_words=self.settings.max_words,
                beams=self.settings.beams,
            )  # fmt: skip
            sentences += [self.vocabulary.sentence(words) for words in cut_captions(ids)]
        return sentences

    def record(
        self,
        example: DescribedVideo,
        predictions: Sequence[Sequence[EventCaption]],
        confidences: Sequence[Sequence[float]] = (),
    ) -> Record:
        """predictions: one list, or one for each annotator whose events were described."""
        lists = [
            [{"start_s": e.start_s, "end_s": e.end_s, "sentence": e.sentence} for e in events]
            for events in predictions
        ]
        for events, values in zip(lists, confidences, strict=False):
            for event, confidence in zip(events, values, strict=True):
                event["confidence"] = confidence
        return {
            "id": example.id,
            "video_id": example.id,
            "duration_s": example.duration_s,
            "prediction": lists,
            "answer": [
                [
                    {"start_s": start, "end_s": end, "sentence": sentence}
                    for (start, end), sentence in zip(told.spans, told.sentences, strict=True)
                ]
                for told in example.annotations
            ],
        }

    def most_frequent_sentence(self, train: Sequence[DescribedVideo]) -> str:
        counts = Counter(
            " ".join(tokens(text)) for e in train for of in e.annotations for text in of.sentences
        )
        return counts.most_common(1)[0][0].capitalize()

    def shown(self, record: Record) -> Shown:
        """The events in the order of time; right are all the annotated ones."""
        told, annotated = record["prediction"], record["answer"]
        return Shown(
            asked="",
            given=_lines(told[0] if told else []),
            right=_lines(annotated[0] if annotated else []),
            is_right=told[:1] == annotated[:1],
        )

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The challenge's form; of the first annotator's events where both were described."""
        path = folder / f"predictions-{split}.json"
        path.write_text(
            json.dumps(submission(_predictions(records, 0)), ensure_ascii=False), encoding="utf-8"
        )
        return path

    def figures_of_captions(
        self, records: Sequence[Record], place: int, annotators: Sequence[int],
        tious: Sequence[float],
    ) -> dict[str, float]:  # fmt: skip
        """Of the lists of predictions at that place against those annotators."""
        predictions = _predictions(records, place)
        references = [_references(records, annotator) for annotator in annotators]
        references = [annotator for annotator in references if annotator]
        most = self.settings.proposals if self.has_proposals else None
        figures = evaluate_captions(
            predictions, references, tious=tious, most=most, meteor=ReducedMeteor(EXACT_STEM)
        )
        if self.settings.meteor == "java":
            with Meteor() as meteor:
                figures |= evaluate_captions(
                    predictions, references, tious=tious, most=most, meteor=meteor
                )
        return figures


@register_task("captioning")
class EventCaptioning(EventTask):
    """Sentences for annotated events, those of each annotator by themselves."""

    description: ClassVar[str] = "a sentence for each annotated event: METEOR, BLEU, CIDEr"
    figure: ClassVar[str] = EXACT_STEM

    def predict(self, model: nn.Module, batches: Iterable[Batch[DescribedVideo]]) -> list[Record]:
        records = []
        for batch in batches:
            device = batch.inputs["rgb"].device
            spans = [
                _with_item(torch.tensor(told.spans, dtype=torch.float64), place)
                for place, example in enumerate(batch.examples)
                for told in example.annotations
            ]
            written = iter(self.write(model, batch.inputs, torch.cat(spans).to(device)))
            records += [
                self.record(
                    example,
                    [
                        [EventCaption(*span, next(written)) for span in told.spans]
                        for told in example.annotations
                    ],
                )
                for example in batch.examples
            ]
        return records

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """The mean over the annotators, at tIoU 0.5, as is the custom for given events."""
        count = max(len(record["answer"]) for record in records)
        of_each = [self.figures_of_captions(records, n, [n], (0.5,)) for n in range(count)]
        return {
            name: float(np.mean([figures[name] for figures in of_each]))
            for name in of_each[0]
            if "/" not in name
        }

    def baseline(
        self, train: Sequence[DescribedVideo], examples: Sequence[DescribedVideo]
    ) -> list[Record]:
        """The most frequent training sentence for every event."""
        sentence = self.most_frequent_sentence(train)
        return [
            self.record(
                e, [[EventCaption(*span, sentence) for span in of.spans] for of in e.annotations]
            )
            for e in examples
        ]


class ProposalTask(EventTask):
    """Events that the network finds itself."""

    has_proposals: ClassVar[bool] = True

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        references = [found for n in (0, 1) if (found := _references(records, n))]
        predictions = _predictions(records, 0)
        return evaluate_detection(predictions, references, most=self.settings.proposals)

    def baseline(
        self, train: Sequence[DescribedVideo], examples: Sequence[DescribedVideo]
    ) -> list[Record]:
        """The whole video as one event, with the most frequent training sentence."""
        sentence = self.most_frequent_sentence(train)
        return [
            self.record(e, [[EventCaption(0.0, e.duration_s, sentence)]], [[1.0]]) for e in examples
        ]


@register_task("proposals")
class EventProposals(ProposalTask):
    """Events without sentences."""

    description: ClassVar[str] = "where events are: precision and recall over four tIoUs"
    figure: ClassVar[str] = "f1"

    def predict(self, model: nn.Module, batches: Iterable[Batch[DescribedVideo]]) -> list[Record]:
        records = []
        for batch in batches:
            inputs = {n: x for n, x in batch.inputs.items() if n not in _OF_EVENTS}
            records += self.decode(model(**inputs), batch)
        return records


@register_task("dense_captioning")
class DenseCaptioning(ProposalTask):
    """Events and a sentence for each."""

    description: ClassVar[str] = "events and a sentence for each: METEOR, BLEU, CIDEr, F1"
    figure: ClassVar[str] = EXACT_STEM

    def predict(self, model: nn.Module, batches: Iterable[Batch[DescribedVideo]]) -> list[Record]:
        records = []
        for batch in batches:
            inputs = {n: x for n, x in batch.inputs.items() if n not in _OF_EVENTS}
            found = self._proposals(model(**inputs), batch)
            spans = [_with_item(rows[:, :2].double(), n) for n, rows in enumerate(found)]
            written = iter(self.write(model, inputs, torch.cat(spans)))
            for example, rows in zip(batch.examples, found, strict=True):
                events = [EventCaption(row[0], row[1], next(written)) for row in rows.tolist()]
                records.append(self.record(example, [events], [rows[:, 2].tolist()]))
        return records

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """Those of the proposals, and of the sentences over both annotators and four tIoUs."""
        return super().metrics(records) | self.figures_of_captions(records, 0, (0, 1), TIOUS)


def _with_item(spans: Tensor, item: int) -> Tensor:
    """(n, 2) -> (n, 3), the place of the video in front"""
    return torch.cat([spans.new_full((len(spans), 1), item), spans], dim=1)


def _lines(events: Sequence[Mapping[str, Any]]) -> str:
    ordered = sorted(events, key=lambda event: (event["start_s"], event["end_s"]))
    return "\n".join(f"{e['start_s']:.1f} to {e['end_s']:.1f} s: {e['sentence']}" for e in ordered)


def _predictions(records: Sequence[Record], place: int) -> dict[str, list[EventCaption]]:
    """The lists at that place by video."""
    return {
        r["id"]: [
            EventCaption(e["start_s"], e["end_s"], e["sentence"]) for e in r["prediction"][place]
        ]
        for r in records
        if place < len(r["prediction"])
    }


def _references(records: Sequence[Record], annotator: int) -> dict[str, DenseCaptions]:
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
