"""Questions about subtitled video: five candidates, and when the answer can be seen (TVQA).

A network reads each candidate behind its question, at every frame the two lines of subtitles that
start nearest to it and the dense captions whose window holds it, and the regions of the frame.
Texts are words (or BERT's pieces) of the annotations; or, where a model reads token features of a
store, these.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from vlpipe.models.layers.frame_losses import frame_selection_losses
from vlpipe.models.metrics.question_answering import accuracy
from vlpipe.models.tasks.frame_texts import (
    frames_within,
    nearest_lines,
    padded_regions,
    padded_texts,
    windows_around,
)
from vlpipe.models.tasks.multiple_choice import MultipleChoiceTask
from vlpipe.models.tasks.question_answering import QuestionExample, QuestionSettings
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.subtitled_text import SubtitledVocabulary, spoken
from vlpipe.models.tasks.task import Batch, Record, TaskSettings
from vlpipe.models.token_features import (
    CAPTION_TOKENS,
    QUESTION_TOKENS,
    SUBTITLE_TOKENS,
    question_tokens,
    timed_tokens,
)
from vlpipe.stores.caption_files import EventText, read_event_texts
from vlpipe.stores.datasets import Dataset, SubtitledQuestion, SubtitleLine
from vlpipe.stores.errors import UsageError

UNKNOWN_SPAN_S = (10.0, 30.0)
"""Stands for an annotated span that is not a number, as in TVQA's own code."""


@runtime_checkable
class HasSubtitles(Protocol):
    """A dataset with subtitles; None for a video if the copy has none of any."""

    def subtitles(self, video_id: str) -> tuple[SubtitleLine, ...] | None: ...


@dataclass(frozen=True, slots=True)
class SubtitledExample(QuestionExample):
    """A question with what is said in its video.

    span_s: when the answer can be seen; None: not known. lines: subtitles in the order of their
    starts; None: nobody knows what is said.
    """

    span_s: tuple[float, float] | None = None
    lines: tuple[SubtitleLine, ...] | None = None


class SubtitledSettings(QuestionSettings):
    """max_words, max_subtitle_words, max_caption_words: question and candidate, and the texts of a
    frame, are cut there. least_count: rarer words of training texts are unknown ones.

    vocabulary: BERT's vocab.txt, to read word pieces in the place of words.
    captions: dense captions with their seconds, a file or folder as `stores/caption_files.py`
        says; None: no captions.
    """

    max_words: PositiveInt = 40
    max_subtitle_words: PositiveInt = 50
    max_caption_words: PositiveInt = 100
    least_count: PositiveInt = 2
    vocabulary: Path | None = Field(default=None)
    captions: Path | None = Field(default=None)


@register_task("subtitled_qa")
class SubtitledQaTask(MultipleChoiceTask):
    """Five candidates about a video with subtitles; frames that matter are learnt along."""

    description: ClassVar[str] = "what happens in a subtitled clip, of five candidates: accuracy"
    question_task: ClassVar[str] = "subtitled_qa"
    Settings: ClassVar[type[TaskSettings]] = SubtitledSettings

    def __init__(
        self,
        settings: SubtitledSettings,
        vocabulary: SubtitledVocabulary,
        captions: Mapping[str, Sequence[EventText]],
    ) -> None:
        self.settings: SubtitledSettings = settings
        self.pieces = vocabulary
        self.captions = captions

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[QuestionExample]:
        examples: list[QuestionExample] = []
        for example in super().read_examples(dataset, split):
            lines = dataset.subtitles(example.video_id) if isinstance(dataset, HasSubtitles) else ()
            examples.append(replace(cast(SubtitledExample, example), lines=lines))
        return examples

    @classmethod
    def example_of(cls, row: Any) -> SubtitledExample:  # noqa: ANN401 - a row of the dataset
        question = cast(SubtitledQuestion, row)
        return SubtitledExample(
            str(question.qid),
            question.video_id,
            question.question,
            question.answer,
            question.choices,
            question.show,
            span_s=question.span_s,
        )

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[QuestionExample], dataset: Dataset
    ) -> Self:
        """The vocabulary of questions, candidates and subtitles of training, and of captions."""
        del dataset
        assert isinstance(settings, SubtitledSettings)
        captions = {} if settings.captions is None else read_event_texts(settings.captions)
        if settings.vocabulary is not None:
            return cls(settings, SubtitledVocabulary.read(settings.vocabulary), captions)
        texts = _texts(cast(Sequence[SubtitledExample], examples), captions)
        vocabulary = SubtitledVocabulary.of(texts, least_count=settings.least_count)
        return cls(settings, vocabulary, captions)

    def to_json(self) -> dict[str, Any]:
        return {
            "settings": self.settings.model_dump(mode="json"),
            "words": list(self.pieces.words),
            "is_subword": self.pieces.is_subword,
            "captions": {
                video: [[e.start_s, e.end_s, e.sentence] for e in events]
                for video, events in self.captions.items()
            },
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        captions = {
            video: tuple(EventText(*event) for event in events)
            for video, events in value["captions"].items()
        }
        vocabulary = SubtitledVocabulary(tuple(value["words"]), value["is_subword"])
        return cls(SubtitledSettings(**value["settings"]), vocabulary, captions)

    def model_settings(self) -> dict[str, Any]:
        return {"vocabulary_size": len(self.pieces)}

    def words(self) -> Sequence[str]:
        return self.pieces.words

    def collate(
        self, items: Sequence[tuple[QuestionExample, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[QuestionExample]:
        """qas_bert, sub_bert and dense_bert, ids or features, with their masks qas_mask, sub_mask
        and dense_cap_mask; vid, vid_mask and what else the model prepared of frames. Targets:
        answer int64 (B,), relevant bool (B, F), the frames within the annotated span."""
        asked, said, told, relevant = [], [], [], []
        videos = [video for _, (video,) in items]
        for example, (video,) in items:
            assert isinstance(example, SubtitledExample)
            asked.append(self._asked(example, video))
            said.append(self._said(example, video))
            told.append(self._told(example, video))
            relevant.append(frames_within(video["frame_s"], example.span_s or UNKNOWN_SPAN_S))
        inputs: dict[str, Tensor] = {}
        for name, mask, texts in (
            ("qas_bert", "qas_mask", asked),
            ("sub_bert", "sub_mask", said),
            ("dense_bert", "dense_cap_mask", told),
        ):
            inputs[name], inputs[mask] = padded_texts(texts)
        for name in ("vid", "vid_mask", "commonsense"):
            if name in videos[0]:
                inputs[name] = padded_regions([video[name] for video in videos])
        targets = {
            "answer": torch.tensor([int(example.answer or 0) for example, _ in items]),
            "relevant": torch.nn.utils.rnn.pad_sequence(relevant, batch_first=True),
        }
        return Batch(tuple(example for example, _ in items), inputs, targets)

    def encode(self, example: QuestionExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """qas_bert and qas_mask (K, L), the ids of the question with each candidate; answer ()."""
        ids, mask = padded_texts([self._candidates(example)])
        answer = torch.tensor(int(example.answer or 0))
        return {"qas_bert": ids[0], "qas_mask": mask[0]}, {"answer": answer}

    def _candidates(self, example: QuestionExample) -> list[Tensor]:
        texts = (f"{example.question} {candidate}" for candidate in example.candidates)
        return [self._ids(text, self.settings.max_words) for text in texts]

    def _asked(self, example: SubtitledExample, video: Mapping[str, Tensor]) -> list[Tensor]:
        if QUESTION_TOKENS not in video:
            return self._candidates(example)
        if not example.id.isdecimal():
            raise UsageError(
                "the run reads token features of questions from its store, and a new question has "
                "none",
                hint="a run with --set model.text=words or base answers questions in any words",
            )
        found = []
        for place in range(len(example.candidates)):
            tokens = question_tokens(video, int(example.id), place)
            if not len(tokens):
                raise UsageError(
                    f"video {example.video_id!r} has no token features of question {example.id}, "
                    f"candidate {place}",
                    hint="docs/models.md says how the features question_tokens and question_place "
                    "are stored",
                )
            found.append(tokens[: self.settings.max_words])
        return found

    def _said(self, example: SubtitledExample, video: Mapping[str, Tensor]) -> list[Tensor]:
        most, frames_s = self.settings.max_subtitle_words, video["frame_s"].tolist()
        if QUESTION_TOKENS in video:  # subtitles are tokens too, or nothing is said
            lines = sorted(timed_tokens(video, SUBTITLE_TOKENS), key=lambda line: line.start_s)
            chosen = nearest_lines([line.start_s for line in lines], frames_s)
            return _joined([line.tokens for line in lines], chosen, video[QUESTION_TOKENS], most)
        if example.lines is None:
            raise UsageError(
                "the dataset's copy has no subtitles, and the network reads them",
                hint="vlpipe datasets check says which files are looked for",
            )
        chosen = nearest_lines([line.start_s for line in example.lines], frames_s)
        texts = [spoken(line.text) for line in example.lines]
        return [self._ids(" ".join(texts[n] for n in of_frame), most) for of_frame in chosen]

    def _told(self, example: SubtitledExample, video: Mapping[str, Tensor]) -> list[Tensor]:
        most, frames_s = self.settings.max_caption_words, video["frame_s"].tolist()
        if QUESTION_TOKENS in video:  # captions are tokens too, or there are none
            texts = timed_tokens(video, CAPTION_TOKENS)
            chosen = windows_around([(text.start_s, text.end_s) for text in texts], frames_s)
            return _joined([text.tokens for text in texts], chosen, video[QUESTION_TOKENS], most)
        events = self.captions.get(example.video_id, ())
        chosen = windows_around([(event.start_s, event.end_s) for event in events], frames_s)
        return [
            self._ids(" ".join(events[n].sentence for n in of_frame), most) for of_frame in chosen
        ]

    def _ids(self, text: str, most: int) -> Tensor:
        return torch.tensor(self.pieces.encode(text, most), dtype=torch.int64)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[QuestionExample]) -> Tensor:
        """The mean over the batch of cross entropy and, of networks with gates of frames, of
        balanced cross entropy and of the margin between frames in and out of the span."""
        targets = batch.targets
        relevant = targets["relevant"] if "frame_logits" in outputs else None
        losses = frame_selection_losses(outputs, targets["answer"], relevant)
        return losses["loss"] / len(batch.examples)

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """accuracy, and `accuracy/SHOW` of each series; none where the answers are hidden."""
        known = [record for record in records if record["answer"] is not None]
        if not known:
            return {}
        parts = defaultdict(list)
        for record in known:
            parts[record.get("part", "")].append(record)
        figures = {f"accuracy/{part}": _accuracy(parts[part]) for part in sorted(parts) if part}
        return {"accuracy": _accuracy(known)} | figures

    def ask(self, video_id: str, question: str, candidates: Sequence[str] = ()) -> QuestionExample:
        plain = super().ask(video_id, question, candidates)
        return SubtitledExample(plain.id, video_id, question, candidates=plain.candidates)

    def beside(self, asked: QuestionExample, known: Iterable[QuestionExample]) -> QuestionExample:
        """The asked example with the subtitles of its video, as the annotations have them."""
        for example in known:
            if isinstance(example, SubtitledExample) and example.video_id == asked.video_id:
                return replace(cast(SubtitledExample, asked), lines=example.lines)
        raise UsageError(
            f"what is said in {asked.video_id!r} is not known: no question of the run's dataset is "
            "about it",
            hint="questions are answered about videos of the dataset",
        )

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The form of TVQA's server: a JSON object, qid to the place of the chosen candidate."""
        path = folder / f"predictions-{split}.json"
        answers = {record["id"]: int(record["prediction"]) for record in records}
        path.write_text(json.dumps(answers), encoding="utf-8")
        return path


def _joined(
    texts: Sequence[Tensor], chosen: Sequence[Sequence[int]], like: Tensor, most: int
) -> list[Tensor]:
    """The chosen texts of each frame one behind the other, (L, W) with L at most `most`."""
    empty = like.new_zeros(0, like.shape[1])
    return [torch.cat([empty, *(texts[n] for n in of_frame)])[:most] for of_frame in chosen]


def _texts(
    examples: Iterable[SubtitledExample], captions: Mapping[str, Sequence[EventText]]
) -> Iterable[str]:
    """Questions and candidates, and once a video what is said and told in it."""
    seen: set[str] = set()
    for example in examples:
        yield from (example.question, *example.candidates)
        if example.video_id not in seen:
            seen.add(example.video_id)
            yield from (spoken(line.text) for line in example.lines or ())
            yield from (event.sentence for event in captions.get(example.video_id, ()))


def _accuracy(records: Sequence[Record]) -> float:
    return accuracy([r["prediction"] for r in records], [r["answer"] for r in records])
