"""Description: a sentence for a whole clip (LSMDC 2016, MSR-VTT)."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vlpipe.models.caption_vocabulary import PADDING, CaptionVocabulary, tokens
from vlpipe.models.decoding import cut_captions
from vlpipe.models.metrics.captioning import BLEU_NAMES, CIDER, ROUGE_L, caption_scores, tokenised
from vlpipe.models.metrics.java_scoring import Meteor
from vlpipe.models.metrics.reduced_meteor import EXACT_STEM, ReducedMeteor
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.sentence_task import SentenceExample, SentenceTask
from vlpipe.models.tasks.task import Batch, Record, Shown, TaskSettings
from vlpipe.stores.datasets import Dataset, SentencePair
from vlpipe.stores.errors import UsageError

CAPTION = "caption"


@runtime_checkable
class HasDescriptions(Protocol):
    """A dataset with sentences to describe clips by, in the splits of its other sentences."""

    def descriptions(self, split: str) -> list[SentencePair]: ...


@runtime_checkable
class WritesSentences(Protocol):
    """A network that writes a sentence for each video of a batch."""

    def write_captions(
        self, *, video: Tensor, video_len: Tensor, max_words: int, beams: int
    ) -> Tensor:
        """int64 (V, L) ids: the start, words, the end; see `models/decoding.py`."""
        ...


class DescriptionSettings(TaskSettings):
    """least_count: rarer words of the training sentences are unknown ones (4 for LSMDC).

    max_words: of training sentences, which are cut there, and of written ones. beams: kept while
        writing; 1 is greedy.
    meteor: `reduced` (without Java, a figure with its own name), or METEOR itself beside it.
    """

    least_count: PositiveInt = 1
    max_words: PositiveInt = 40
    beams: PositiveInt = 1
    meteor: Literal["reduced", "java"] = "reduced"


@register_task("description")
class DescriptionTask(SentenceTask):
    """In training each sentence is an example. A video is described once, and compared with all
    the sentences that its split has about it."""

    description: ClassVar[str] = "a sentence for a clip: CIDEr, METEOR, ROUGE-L, BLEU"
    figure: ClassVar[str] = CIDER
    is_shardable: ClassVar[bool] = False
    Settings: ClassVar[type[TaskSettings]] = DescriptionSettings

    def __init__(self, settings: DescriptionSettings, vocabulary: CaptionVocabulary) -> None:
        self.settings: DescriptionSettings = settings
        self.vocabulary = vocabulary

    @classmethod
    def pairs_of(cls, dataset: Dataset, split: str) -> Sequence[SentencePair]:
        """Where retrieval is tested with fewer sentences than description, all of these."""
        if isinstance(dataset, HasDescriptions):
            return dataset.descriptions(split)
        return super().pairs_of(dataset, split)

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[SentenceExample], dataset: Dataset
    ) -> Self:
        del dataset
        assert isinstance(settings, DescriptionSettings)
        texts = (example.sentence for example in examples)
        return cls(settings, CaptionVocabulary.of(texts, least_count=settings.least_count))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        settings = DescriptionSettings(**value["settings"])
        return cls(settings, CaptionVocabulary(tuple(value["words"])))

    def model_settings(self) -> dict[str, Any]:
        return {"vocabulary_size": len(self.vocabulary), "max_words": self.settings.max_words}

    def words(self) -> Sequence[str]:
        return self.vocabulary.words

    def sentences_of(self, examples: Iterable[SentenceExample]) -> Iterator[Sequence[str]]:
        return (tokens(example.sentence) for example in examples)

    def encode(self, example: SentenceExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`caption`, int64 (L,), between its start and its end; and target `sentence`, the same."""
        ids = torch.tensor(self.vocabulary.encode(example.sentence, self.settings.max_words))
        return {CAPTION: ids}, {"sentence": ids}

    def collate(
        self, items: Sequence[tuple[SentenceExample, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[SentenceExample]:
        """Captions are padded with the vocabulary's own padding."""
        encoded = [self.encode(example)[0][CAPTION] for example, _ in items]
        captions = pad_sequence(encoded, batch_first=True, padding_value=PADDING)
        of_videos = [video for _, (video,) in items]
        inputs = {name: torch.stack([video[name] for video in of_videos]) for name in of_videos[0]}
        examples = tuple(example for example, _ in items)
        return Batch(examples, inputs | {CAPTION: captions}, {"sentence": captions})

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[SentenceExample]) -> Tensor:
        """The sum over the words of -log p, its mean over sentences."""
        logits, following = outputs["logits"].float(), batch.inputs[CAPTION][:, 1:]
        total = F.cross_entropy(
            logits.flatten(0, 1), following.flatten(), ignore_index=PADDING, reduction="sum"
        )
        return total / len(following)

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[SentenceExample]) -> list[Record]:
        """What stands at each place after the right words before it; `predict` writes freely."""
        ids = outputs["logits"].argmax(dim=-1)
        ids = torch.cat([batch.inputs[CAPTION][:, :1], ids], dim=1)
        told = [self.vocabulary.sentence(words) for words in cut_captions(ids)]
        return [self._record(e, text) for e, text in zip(batch.examples, told, strict=True)]

    def predict(self, model: nn.Module, batches: Iterable[Batch[SentenceExample]]) -> list[Record]:
        network = getattr(model, "module", model)  # what a training library wraps around it
        if not isinstance(network, WritesSentences):
            raise UsageError(
                f"description needs a model with write_captions; {type(network).__name__} has none"
            )
        told: dict[str, str] = {}
        examples: list[SentenceExample] = []
        for batch in batches:
            examples += batch.examples
            new = {
                example.video_id: place
                for place, example in enumerate(batch.examples)
                if example.video_id not in told
            }
            if not new:
                continue
            places = torch.tensor(list(new.values()), device=batch.inputs[CAPTION].device)
            of_videos = {n: x[places] for n, x in batch.inputs.items() if n != CAPTION}
            ids = network.write_captions(
                **of_videos, max_words=self.settings.max_words, beams=self.settings.beams
            )
            written = [self.vocabulary.sentence(words) for words in cut_captions(ids)]
            told |= dict(zip(new, written, strict=True))
        return [self._record(example, told[example.video_id]) for example in examples]

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """Times 100, over videos; METEOR under the name of its kind."""
        references: dict[str, list[str]] = {}
        for record in records:
            references.setdefault(record["video_id"], []).append(record["answer"])
        given = {record["video_id"]: record["prediction"] for record in records}
        said = tokenised([given[video] for video in references])
        told = [tokenised(texts) for texts in references.values()]
        found: dict[str, float] = {}
        with_java = self.settings.meteor == "java"
        found |= _figures(said, told, ReducedMeteor(EXACT_STEM))
        if with_java:
            with Meteor() as meteor:
                found |= _figures(said, told, meteor)
        return found

    def shown(self, record: Record) -> Shown:
        return Shown(
            asked="",
            given=record["prediction"],
            right=record["answer"],
            is_right=tokens(record["prediction"]) == tokens(record["answer"]),
        )

    def baseline(
        self, train: Sequence[SentenceExample], examples: Sequence[SentenceExample]
    ) -> list[Record]:
        """The most frequent training sentence for every clip."""
        counts = Counter(" ".join(tokens(example.sentence)) for example in train)
        sentence = counts.most_common(1)[0][0].capitalize()
        return [self._record(example, sentence) for example in examples]

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """The form of the challenges: a list of objects with the clip and its sentence."""
        path = folder / f"predictions-{split}.json"
        told = {record["video_id"]: record["prediction"] for record in records}
        rows = [{"video_id": video, "caption": text} for video, text in told.items()]
        path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
        return path

    def _record(self, example: SentenceExample, prediction: str) -> Record:
        return {
            "id": example.id,
            "video_id": example.video_id,
            "prediction": prediction,
            "answer": example.sentence,
        }


def _figures(
    said: Sequence[str], told: Sequence[Sequence[str]], meteor: ReducedMeteor | Meteor
) -> dict[str, float]:
    whole = caption_scores(said, told, meteor=meteor).whole
    names = (CIDER, ROUGE_L, *BLEU_NAMES, meteor.name)
    return {name: 100 * whole[name] for name in names}
