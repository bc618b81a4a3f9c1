"""Videos ranked for a sentence by a trained run, with what speaks for each of the best."""

import heapq
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vlpipe.models import Model
from vlpipe.models.pair_scores import score_all_pairs
from vlpipe.models.tasks import Clip
from vlpipe.models.tasks.question_text import clean
from vlpipe.models.tasks.retrieval import RanksVideos, RetrievalTask
from vlpipe.models.tasks.sentence_task import SentenceExample
from vlpipe.pipelines.encoded_videos import Chunk, EncodedVideos, encode_videos
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.media_features import features_like
from vlpipe.pipelines.training.data import PreparedVideos, available_examples
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.material import Material, open_material
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets import FolderDataset, open_dataset
from vlpipe.stores.errors import UsageError

_CACHE_BYTES = 64 << 20


@dataclass(frozen=True)
class Hit:
    """One of the best videos. path: its media, if they are there. score: as the network gives it.

    spans_s: [F, 2], the frames that the network read. alpha: [F, M], 0 to 1, how much each frame
    and each word count together; None where the network has no such map.
    """

    rank: int
    video_id: str
    path: Path | None
    score: float
    spans_s: npt.NDArray[np.float64]
    alpha: npt.NDArray[np.float32] | None

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """[F] how much each frame counts: the mean of alpha over the words; zeros without it."""
        if self.alpha is None:
            return np.zeros(len(self.spans_s))
        shares: npt.NDArray[np.float64] = self.alpha.mean(axis=1, dtype=np.float64)
        return shares

    def best_frames(self, most: int) -> list[int]:
        """The frames that count most, at most so many, in the order of time."""
        return sorted(np.argsort(-self.shares, kind="stable")[:most].tolist())

    def to_json(self) -> dict[str, Any]:
        return {
            "rank": self.rank,
            "video": self.video_id,
            "path": None if self.path is None else str(self.path),
            "score": round(self.score, 6),
            "spans_s": np.round(self.spans_s, 4).tolist(),
            "best_frames": self.best_frames(4),
            "alpha": None if self.alpha is None else np.round(self.alpha, 4).tolist(),
        }


@dataclass(frozen=True)
class SearchResult:
    """words: those that the network read, the axis of `alpha`. unknown: those that training had not
    and that are left out. failed: file -> why it could not be searched."""

    sentence: str
    run: Path
    words: tuple[str, ...]
    unknown: tuple[str, ...]
    num_videos: int
    hits: tuple[Hit, ...]
    failed: dict[Path, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "sentence": self.sentence,
            "run": str(self.run),
            "words": list(self.words),
            "unknown_words": list(self.unknown),
            "num_videos": self.num_videos,
            "hits": [hit.to_json() for hit in self.hits],
            "failed": {str(path): reason for path, reason in self.failed.items()},
        }


def search_videos(
    path: Path,
    sentence: str,
    *,
    videos: Sequence[Path] = (),
    store: str | None = None,
    top: int = 10,
    device: str = "auto",
    observer: Observer | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> SearchResult:
    """The best videos for a sentence, by the best model of the run at `path`.

    videos: media files and folders to rank, whose features are made as those of the run were;
        without them all videos of the run's snapshot of its store are ranked.
    store: another store to rank, or the run's own one as it is now, with features of the same
        generation.
    on_progress: called with how many videos are ranked, and how many there are.
    Videos are encoded a few at a time; of a store's the encodings are kept in RUN/encoded-videos.
    Raises UsageError when the run does not rank videos, no word is known, or there is no video.
    """
    if top < 1:
        raise UsageError(f"the {top} best videos were asked for; expected 1 or more")
    if videos and store is not None:
        raise UsageError("media files and a store were given; one of them is enough")
    search = _Search.begin(RunFolder(path), sentence, device)
    if not videos:
        opened = search.material.store if store is None else _other_store(search.material, store)
        return search.of_store(opened, top, on_progress)
    with tempfile.TemporaryDirectory() as folder:
        return search.of_files(videos, Path(folder) / "store", top, observer, on_progress)


@dataclass(frozen=True)
class _Search:
    run: RunFolder
    material: Material
    network: Model
    sentence: str
    ids: torch.Tensor
    words: tuple[str, ...]
    unknown: tuple[str, ...]
    device: torch.device

    @classmethod
    def begin(cls, run: RunFolder, sentence: str, device: str) -> "_Search":
        material = open_material(run)
        network, task = load_model(run.best)
        if not isinstance(task, RetrievalTask) or not isinstance(network, RanksVideos):
            raise UsageError(
                f"run {run.path} learnt {task.name}, which ranks no videos for a sentence",
                hint="vlpipe train jsfusion --task retrieval makes one that does",
            )
        tokens = clean(sentence).split()
        known = [token for token in tokens if token in task.vocabulary.ids]
        if not known:
            raise UsageError(
                f"training had none of the words of {sentence!r}"
                if tokens
                else "the sentence is empty"
            )
        inputs, _ = task.encode(SentenceExample("searched", "", sentence))
        num_words = int(inputs["word_len"])
        chosen = choose_device(device)
        return cls(
            run,
            material,
            network.to(chosen),
            sentence,
            inputs["words"][None, :num_words].to(chosen),
            tuple(known[:num_words]),
            tuple(dict.fromkeys(token for token in tokens if token not in task.vocabulary.ids)),
            chosen,
        )

    def of_store(
        self, store: FeatureStore, top: int, on_progress: Callable[[int, int], None] | None
    ) -> SearchResult:
        material = self.material
        features = list(dict.fromkeys(material.slots.values()))
        examples = [SentenceExample(v, v, "") for v in store[features[0]].ids()]
        found = available_examples(examples, store, material.slots, material.model)
        ids = [example.video_id for example in found.examples]
        if not ids:
            raise UsageError(
                f"no video of {store.url} has the features of the run: {', '.join(features)}",
                hint="vlpipe store ls STORE --videos lists what is there",
            )
        prepared = self._prepared(store)
        chunks = EncodedVideos(self.run, store, features)(
            ids, lambda: self._encoded(prepared, ids), self.device
        )
        dataset = open_dataset(material.job.dataset, material.job.root)
        paths = {video.id: video.path for video in dataset.videos()}
        best = self._ranked(chunks, len(ids), top, on_progress)
        return self._result(best, prepared, paths, len(ids), {})

    def of_files(
        self,
        files: Sequence[Path],
        folder: Path,
        top: int,
        observer: Observer | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> SearchResult:
        named = [video.path for video in FolderDataset.from_paths(files).videos()]
        paths = [path for path in named if path is not None]
        made = features_like(
            self.material, paths, folder, device=self.device.type, observer=observer
        )
        if not made.ids:
            raise UsageError(
                "none of the files can be searched: "
                + "; ".join(f"{path}: {reason}" for path, reason in made.failed.items())
            )
        prepared = self._prepared(made.store)
        ids = list(made.ids.values())
        chunks = self._encoded(prepared, ids)
        best = self._ranked(chunks, len(ids), top, on_progress)
        places = {video_id: path for path, video_id in made.ids.items()}
        return self._result(best, prepared, places, len(ids), made.failed)

    def _prepared(self, store: FeatureStore) -> PreparedVideos:
        material = self.material
        return PreparedVideos(store, material.slots, material.model, material.config, _CACHE_BYTES)

    def _encoded(self, prepared: PreparedVideos, ids: Sequence[str]) -> Iterator[Chunk]:
        assert isinstance(self.network, RanksVideos)
        return encode_videos(self.network, prepared, ids, self.device)

    def _ranked(
        self,
        chunks: Iterator[Chunk],
        total: int,
        top: int,
        on_progress: Callable[[int, int], None] | None,
    ) -> list[tuple[float, str]]:
        """(score, id) of the best ones, the best first; of equal scores the first one."""
        assert isinstance(self.network, RanksVideos)
        with torch.inference_mode():
            sentence = self.network.encode_words(self.ids)
        best: list[tuple[float, int, str]] = []
        done = 0
        for ids, encoded in chunks:
            scores = score_all_pairs(self.network, encoded, sentence)[:, 0].tolist()
            rows = zip(scores, range(-done, -done - len(ids), -1), ids, strict=True)
            best = heapq.nlargest(top, [*best, *rows])
            done += len(ids)
            if on_progress is not None:
                on_progress(done, total)
        return [(score, video_id) for score, _, video_id in best]

    def _result(
        self,
        best: Sequence[tuple[float, str]],
        prepared: PreparedVideos,
        paths: dict[str, Path | None] | dict[str, Path],
        num_videos: int,
        failed: dict[Path, str],
    ) -> SearchResult:
        hits = tuple(
            self._hit(rank, video_id, score, prepared, paths.get(video_id))
            for rank, (score, video_id) in enumerate(best, start=1)
        )
        return SearchResult(
            self.sentence, self.run.path, self.words, self.unknown, num_videos, hits, failed
        )

    def _hit(
        self, rank: int, video_id: str, score: float, prepared: PreparedVideos, path: Path | None
    ) -> Hit:
        material, video = self.material, prepared[Clip(video_id)]
        inputs = {name: tensor[None].to(self.device) for name, tensor in video.items()}
        with torch.inference_mode():
            outputs = self.network(**inputs, words=self.ids)
        spans = material.model.row_spans(material.config, prepared.features(video_id))
        assert spans is not None
        is_real = spans[:, 1] > 0
        alpha = outputs.get("alpha")
        found = None if alpha is None else alpha[0, 0].float().cpu().numpy()
        if found is not None:
            found = found[is_real, : len(self.words)]
        present = path if path is not None and path.is_file() else None
        return Hit(rank, video_id, present, score, spans[is_real], found)


def _other_store(material: Material, url: str) -> FeatureStore:
    store = FeatureStore.open(url)
    for name in dict.fromkeys(material.slots.values()):
        trained, found = material.store[name].info, store[name].info
        if trained.generation != found.generation:
            raise UsageError(
                f"{name} of {url} is of another generation, {found.generation}, than the run was "
                f"trained on, {trained.generation}",
                hint="extract with the settings and weights of the run's features",
            )
    return store
