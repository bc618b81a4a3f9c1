"""Retrieval: which of many videos a sentence tells about (MSR-VTT 1k-A, LSMDC)."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from vlpipe.models.layers.ranking_losses import MARGIN, retrieval_loss
from vlpipe.models.metrics.retrieval import DEPTHS, median_rank, ranks, recall_at
from vlpipe.models.pair_scores import Encoded, ScoresPairs, joined, score_all_pairs
from vlpipe.models.tasks.question_text import Vocabulary, clean
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.sentence_task import SentenceExample, SentenceTask
from vlpipe.models.tasks.task import Batch, Record, TaskSettings
from vlpipe.stores.datasets import Dataset
from vlpipe.stores.errors import UsageError

_SHOWN = 10


@runtime_checkable
class RanksVideos(ScoresPairs, Protocol):
    """A network that encodes videos and sentences apart; see `models/pair_scores.py`."""

    def encode_video(self, video: Tensor, video_len: Tensor | None = None) -> Encoded: ...
    def encode_words(self, words: Tensor, word_len: Tensor | None = None) -> Encoded: ...


class RetrievalSettings(TaskSettings):
    """max_words: sentences are cut there. least_count: rarer words of the training sentences are
    left out, there and in queries (4 for LSMDC). margin: of the loss, in scores."""

    max_words: PositiveInt = 40
    least_count: PositiveInt = 1
    margin: PositiveFloat = MARGIN


@register_task("retrieval")
class RetrievalTask(SentenceTask):
    """Every sentence of a split ranks all videos of the split.

    Ranks start at 1, and of equal scores each counts for half. In training the other sentences of
    a batch are wrong for a video, unless they tell about the same one.
    """

    description: ClassVar[str] = (
        "the video that a sentence tells about: R@1, R@5, R@10, median rank"
    )
    figure: ClassVar[str] = "R@1"
    is_shardable: ClassVar[bool] = False
    Settings: ClassVar[type[TaskSettings]] = RetrievalSettings

    def __init__(self, settings: RetrievalSettings, vocabulary: Vocabulary) -> None:
        self.settings: RetrievalSettings = settings
        self.vocabulary = vocabulary

    @classmethod
    def fit(
        cls, settings: TaskSettings, examples: Sequence[SentenceExample], dataset: Dataset
    ) -> Self:
        del dataset
        assert isinstance(settings, RetrievalSettings)
        texts = (example.sentence for example in examples)
        return cls(settings, Vocabulary.of(texts, least_count=settings.least_count))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        settings = RetrievalSettings(**value["settings"])
        return cls(settings, Vocabulary(tuple(value["words"])))

    def model_settings(self) -> dict[str, Any]:
        return {"vocabulary_size": len(self.vocabulary), "max_words": self.settings.max_words}

    def words(self) -> Sequence[str]:
        return self.vocabulary.words

    def encode(self, example: SentenceExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`words`, int64 (max_words,) and `word_len`, int64 (); a sentence of unknown words alone
        is the one word UNK."""
        words, word_len = self.vocabulary.encode(
            example.sentence, self.settings.max_words, keeps_unknown=False
        )
        return {"words": words, "word_len": word_len}, {"sentence": words}

    def sentences_of(self, examples: Iterable[SentenceExample]) -> Iterator[Sequence[str]]:
        return (clean(example.sentence).split() for example in examples)

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[SentenceExample]) -> Tensor:
        scores = outputs["score"]
        videos = [example.video_id for example in batch.examples]
        is_other = [[own != other for other in videos] for own in videos]
        return retrieval_loss(
            scores,
            is_other=torch.tensor(is_other, device=scores.device),
            margin=self.settings.margin,
        )

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[SentenceExample]) -> list[Record]:
        """The batch's sentences rank the batch's own videos."""
        videos = [example.video_id for example in batch.examples]
        kept = [videos.index(video) for video in dict.fromkeys(videos)]
        scores = outputs["score"].float().cpu().numpy()[kept]
        return self._records(batch.examples, list(dict.fromkeys(videos)), scores)

    def predict(self, model: nn.Module, batches: Iterable[Batch[SentenceExample]]) -> list[Record]:
        """Records of all sentences over all videos, each of which is encoded once."""
        network = getattr(model, "module", model)  # what a training library wraps around it
        if not isinstance(network, RanksVideos):
            raise UsageError(
                "retrieval needs a model with encode_video, encode_words and score_pairs; "
                f"{type(network).__name__} has not all of them"
            )
        examples: list[SentenceExample] = []
        videos: dict[str, Encoded] = {}
        sentences: list[Encoded] = []
        for batch in batches:
            sentences.append(network.encode_words(batch.inputs["words"], batch.inputs["word_len"]))
            new = {
                example.video_id: place
                for place, example in enumerate(batch.examples)
                if example.video_id not in videos
            }
            if new:
                places = torch.tensor(list(new.values()), device=batch.inputs["video"].device)
                encoded = network.encode_video(
                    batch.inputs["video"][places], batch.inputs["video_len"][places]
                )
                for number, video in enumerate(new):
                    videos[video] = encoded.at(slice(number, number + 1))
            examples += batch.examples
        if not examples:
            return []
        scores = score_all_pairs(network, joined(videos.values()), joined(sentences))
        return self._records(examples, list(videos), scores.numpy())

    def _records(
        self,
        examples: Sequence[SentenceExample],
        videos: Sequence[str],
        scores: npt.NDArray[np.float32],
    ) -> list[Record]:
        """scores: [V, S]. `rank` of the right video for the sentence, `sentence_rank` of the
        sentence for its video."""
        places = {video: place for place, video in enumerate(videos)}
        right = np.array([places[example.video_id] for example in examples])
        of_videos = ranks(scores.T, right)
        of_sentences = ranks(scores[right], np.arange(len(examples)))
        best = np.argsort(-scores.T, axis=1, kind="stable")[:, :_SHOWN]  # [S, 10]
        return [
            {
                "id": example.id,
                "video_id": example.video_id,
                "question": example.sentence,
                "prediction": videos[best[n, 0]],
                "answer": example.video_id,
                "rank": float(of_videos[n]),
                "sentence_rank": float(of_sentences[n]),
                "num_videos": len(videos),
                "best": {videos[place]: float(scores[place, n]) for place in best[n]},
            }
            for n, example in enumerate(examples)
        ]

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """R@K in percent and MedR for sentences; `.../video_to_text` the other way, where each
        sentence is looked for among all."""
        found: dict[str, float] = {}
        for field, part in (("rank", ""), ("sentence_rank", "/video_to_text")):
            own = [record[field] for record in records]
            found |= {f"R@{depth}{part}": recall_at(own, depth) for depth in DEPTHS}
            found[f"MedR{part}"] = median_rank(own)
        return found

    def baseline(
        self, train: Sequence[SentenceExample], examples: Sequence[SentenceExample]
    ) -> list[Record]:
        """All videos alike: everything in the middle."""
        del train
        videos = list(dict.fromkeys(example.video_id for example in examples))
        return self._records(examples, videos, np.zeros((len(videos), len(examples)), np.float32))

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """There is no server and no form: a table with the key, the rank and the best videos."""
        path = folder / f"predictions-{split}.tsv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(("key", "sentence", "video_id", "rank", "best_videos"))
            for record in records:
                names = [record[name] for name in ("id", "question", "video_id", "rank")]
                writer.writerow([*names, " ".join(record["best"])])
        return path
