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
from vlpipe.models.layers.spoken_words import SPEECH, SPEECH_SPANS
from vlpipe.models.metrics.dense_captioning import (
    TIOUS,
    EventCaption,
    evaluate_detection,
    submission,
)
from vlpipe.models.metrics.reduced_meteor import EXACT_STEM
from vlpipe.models.metrics.soda import SodaVariant
from vlpipe.models.proposals import evaluation_proposals
from vlpipe.models.tasks.event_figures import caption_figures, soda_figures
from vlpipe.models.tasks.event_records import (
    event_record,
    lines_of,
    predictions_of,
    references_of,
)
from vlpipe.models.tasks.event_speech import EventSpeech
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Clip, Record, Shown, Task, TaskSettings, stack
from vlpipe.stores import Features
from vlpipe.stores.datasets import Dataset, DenseCaptions
from vlpipe.stores.errors import UsageError

TRAIN, TEST = "train", "test"
_FILES = {TRAIN: ("train",), TEST: ("val_1", "val_2")}
_EVENTS_AT_ONCE = 64
_MOST_LENGTHS = 256
SUBS = "subs"
_OF_EVENTS = ("caption", "events", SUBS)  # inputs that are not of the video


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
    speech_from: words with their seconds of a `store`, or a text for each event of the
        `annotations`, which proposals cannot have. least_speech_count: rarer words are unknown.
    meteor: `reduced` (without Java, a figure with its own name), or METEOR itself beside it.
    soda: a variant of SODA to report for proposals with sentences, with the same METEORs.
    """

    least_count: PositiveInt = 1
    longest: PositiveInt = 80
    max_words: PositiveInt = 30
    beams: PositiveInt = 1
    proposals: PositiveInt = 100
    suppress_from: float | None = Field(default=None, gt=0, le=1)
    speech_from: Literal["store", "annotations"] = "store"
    least_speech_count: PositiveInt = 1
    meteor: Literal["reduced", "java"] = "reduced"
    soda: SodaVariant | None = None


class EventTask(Task[DescribedVideo]):
    """What the three tasks have in common."""

    Settings: ClassVar[type[TaskSettings]] = EventSettings
    slots_to_fit: ClassVar[tuple[str, ...]] = (SPEECH,)
    has_proposals: ClassVar[bool] = False

    def __init__(
        self,
        settings: EventSettings,
        vocabulary: CaptionVocabulary,
        lengths_s: tuple[float, ...],
        speech: EventSpeech | None = None,
    ) -> None:
        self.settings = settings
        self.vocabulary = vocabulary
        self.lengths_s = lengths_s
        self.speech = speech

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
        speech = None
        if settings.speech_from == "annotations":
            if cls.has_proposals:
                raise UsageError(
                    f"the task {cls.name!r} finds events that no annotation has the speech of",
                    hint="--set task.speech_from=store",
                )
            speech = EventSpeech.of_annotations(told, least_count=settings.least_speech_count)
        return cls(settings, vocabulary, kept, speech)

    def fit_features(self, videos: Iterable[Mapping[str, Features]]) -> Self:
        if self.settings.speech_from == "annotations":
            return self
        spoken = (features[SPEECH] for features in videos if SPEECH in features)
        speech = EventSpeech.of_features(spoken, least_count=self.settings.least_speech_count)
        return type(self)(self.settings, self.vocabulary, self.lengths_s, speech)

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "words": list(self.vocabulary.words),
            "lengths_s": list(self.lengths_s),
            "speech": None if self.speech is None else list(self.speech.vocabulary.words),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        words, spoken = CaptionVocabulary(tuple(value["words"])), value.get("speech")
        speech = None if spoken is None else EventSpeech(CaptionVocabulary(tuple(spoken)))
        lengths_s = tuple(value["lengths_s"])
        return cls(EventSettings(**value["settings"]), words, lengths_s, speech)

    def model_settings(self) -> dict[str, Any]:
        lengths = {"event_lengths_s": list(self.lengths_s)} if self.has_proposals else {}
        speech: dict[str, Any] = {"has_speech": self.speech is not None}
        if self.speech is not None:
            speech["speech_vocabulary_size"] = len(self.speech.vocabulary)
        return {"vocabulary_size": len(self.vocabulary)} | speech | lengths

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
        place of the video in front, caption (N, L); what is said, of the videos or the events."""
        videos: dict[str, list[Tensor]] = {}
        events: list[Tensor] = []
        captions: list[Tensor] = []
        for place, (example, (video,)) in enumerate(items):
            inputs, _ = self.encode(example)
            for name, tensor in (*video.items(), ("duration_s", inputs["duration_s"])):
                if name not in (SPEECH, SPEECH_SPANS):
                    videos.setdefault(name, []).append(tensor)
            if "events" in inputs:
                events.append(_with_item(inputs["events"], place))
                captions += inputs["caption"].unbind()
        stacked = stack(videos) | self._spoken(items)
        if events:
            stacked["events"] = torch.cat(events)
            stacked["caption"] = pad_sequence(captions, batch_first=True, padding_value=PADDING)
        return Batch(tuple(example for example, _ in items), stacked)

    def _spoken(
        self, items: Sequence[tuple[DescribedVideo, Sequence[Mapping[str, Tensor]]]]
    ) -> dict[str, Tensor]:
        """What is said in the videos or, if the annotations tell it, in the first annotator's
        events; nothing for a model that does not listen."""
        if SPEECH not in items[0][1][0]:
            return {}
        if self.speech is None:
            raise UsageError(
                "the model listens to speech, and none was there when the task was fitted",
                hint="extract whisper or given_subtitles, or --set model.has_speech=false",
            )
        if self.settings.speech_from == "store":
            return self.speech.of_videos([video for _, (video,) in items])
        first = [example.annotations[0] for example, _ in items if example.annotations]
        return {SUBS: self.speech.of_events(first)} if first else {}

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

    def write(
        self,
        model: nn.Module,
        inputs: Mapping[str, Tensor],
        events: Tensor,
        subs: Tensor | None = None,
    ) -> list[str]:
        """The sentences of events (N, 3) of the videos of `inputs`. subs: int (N, W), what is said
        in them, where the inputs do not tell that of the videos."""
        if not len(events):
            return []
        network: Any = getattr(model, "module", model)  # out of what several devices need
        of_videos = {name: x for name, x in inputs.items() if name not in _OF_EVENTS}
        sentences = []
        for place in range(0, len(events), _EVENTS_AT_ONCE):
            part = slice(place, place + _EVENTS_AT_ONCE)
            spoken = {} if subs is None else {SUBS: subs[part]}
            ids = network.write_captions(
                **of_videos, **spoken, events=events[part], max_words=self.settings.max_words,
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
        return event_record(
            example.id, example.duration_s, example.annotations, predictions, confidences
        )

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
            given=lines_of(told[0] if told else []),
            right=lines_of(annotated[0] if annotated else []),
            is_right=told[:1] == annotated[:1],
        )

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The challenge's form; of the first annotator's events where both were described."""
        path = folder / f"predictions-{split}.json"
        path.write_text(
            json.dumps(submission(predictions_of(records, 0)), ensure_ascii=False), encoding="utf-8"
        )
        return path

    def figures_of_captions(
        self, records: Sequence[Record], place: int, annotators: Sequence[int],
        tious: Sequence[float],
    ) -> dict[str, float]:  # fmt: skip
        """Of the lists of predictions at that place against those annotators."""
        most = self.settings.proposals if self.has_proposals else None
        return caption_figures(
            records, place, annotators, tious, most=most, with_java=self.settings.meteor == "java"
        )


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
            subs = None
            if SUBS in batch.inputs and self.speech is not None:
                told = [annotation for e in batch.examples for annotation in e.annotations]
                subs = self.speech.of_events(told).to(device)
            events = torch.cat(spans).to(device)
            written = iter(self.write(model, batch.inputs, events, subs))
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
        references = [found for n in (0, 1) if (found := references_of(records, n))]
        predictions = predictions_of(records, 0)
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
        figures = super().metrics(records) | self.figures_of_captions(records, 0, (0, 1), TIOUS)
        if self.settings.soda is not None:
            figures |= soda_figures(
                records, self.settings.soda, most=self.settings.proposals,
                with_java=self.settings.meteor == "java",
            )  # fmt: skip
        return figures


def _with_item(spans: Tensor, item: int) -> Tensor:
    """(n, 2) -> (n, 3), the place of the video in front"""
    return torch.cat([spans.new_full((len(spans), 1), item), spans], dim=1)
