"""Examples with their features, in batches, in an order that a resumed run finds again."""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vlpipe.models import Model, ModelConfig
from vlpipe.models.tasks import Batch, Clip, Task
from vlpipe.stores import Features, FeatureStore
from vlpipe.stores.errors import UsageError

Item = tuple[Any, list[dict[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Available:
    """Examples whose videos have every feature, and the ids of the others."""

    examples: tuple[Any, ...]
    left_out: tuple[str, ...]


def available_examples(
    examples: Sequence[Any], store: FeatureStore, slots: Mapping[str, str], model: type[Model]
) -> Available:
    """Parts the examples by whether the store has all features of all their clips.

    An optional slot may have no rows, as sound has none in a silent video; but a video that was
    never extracted is left out, since nobody knows whether it is silent.
    """
    present: dict[str, bool] = {}
    required = {
        feature
        for slot, feature in slots.items()
        if not model.slots[slot].is_optional and not model.rows_may_be_none
    }
    readers = [(store[feature], feature in required) for feature in dict.fromkeys(slots.values())]
    kept, left_out = [], []
    for example in examples:
        for clip in example.clips:
            if clip.video_id not in present:
                present[clip.video_id] = all(
                    clip.video_id in reader
                    and (not is_required or reader.num_rows(clip.video_id) > 0)
                    for reader, is_required in readers
                )
        if all(present[clip.video_id] for clip in example.clips):
            kept.append(example)
        else:
            left_out.append(example.id)
    return Available(tuple(kept), tuple(left_out))


def require_examples(found: Available, what: str, store: FeatureStore) -> tuple[Any, ...]:
    """The examples; UsageError if not one of them has features."""
    if not found.examples:
        raise UsageError(
            f"none of the {len(found.left_out)} {what} examples has its features in {store.url}",
            hint="vlpipe extract makes them; vlpipe store ls STORE --videos lists what is there",
        )
    return found.examples


class PreparedVideos:
    """What a model makes of the features of a clip, the last ones used kept in memory.

    Pickles to worker processes without its memory; each worker fills its own.
    """

    def __init__(
        self,
        store: FeatureStore,
        slots: Mapping[str, str],
        model: type[Model],
        config: ModelConfig,
        cache_bytes: int,
    ) -> None:
        self._readers = {slot: store[feature] for slot, feature in slots.items()}
        self._model, self._config, self._limit = model, config, cache_bytes
        self._kept: OrderedDict[Clip, dict[str, Tensor]] = OrderedDict()
        self._kept_bytes = 0

    def __getitem__(self, clip: Clip) -> dict[str, Tensor]:
        found = self._kept.get(clip)
        if found is not None:
            self._kept.move_to_end(clip)
            return found
        prepared = self._prepare(clip)
        size = sum(tensor.nbytes for tensor in prepared.values())
        if size <= self._limit:
            self._kept[clip] = prepared
            self._kept_bytes += size
        while self._kept_bytes > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= sum(tensor.nbytes for tensor in oldest.values())
        return prepared

    def features(self, video_id: str) -> dict[str, Features]:
        """Rows and spans by slot; an optional slot of which the video has no rows is not in it,
        unless the model's rows may be none."""
        features: dict[str, Features] = {}
        read: dict[str, Features] = {}
        for slot, reader in self._readers.items():
            if reader.name not in read:  # two slots may be filled by one feature
                read[reader.name] = Features(*reader.read(video_id, with_spans=True))
            if len(read[reader.name].rows) or self._model.rows_may_be_none:
                features[slot] = read[reader.name]
            elif not self._model.slots[slot].is_optional:
                raise UsageError(
                    f"video {video_id!r} has no rows of {reader.name}",
                    hint=f"model {self._model.name!r} cannot do without its slot {slot!r}",
                )
        return features

    def _prepare(self, clip: Clip) -> dict[str, Tensor]:
        features = self.features(clip.video_id)
        return self._model.prepare(self._config, features, clip.window_s)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict(), "_kept_bytes": 0}


class ExampleDataset(Dataset[Item]):
    """Map-style: (example, what the model prepared of each of its clips)."""

    def __init__(self, examples: Sequence[Any], videos: PreparedVideos) -> None:
        self.examples = tuple(examples)
        self._videos = videos

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Item:
        example = self.examples[index]
        return example, [self._videos[clip] for clip in example.clips]


class EpochBatches(Sampler[list[int]]):
    """The batches of an epoch on one of several devices, from a given one on.

    The order is drawn from (seed, epoch) alone, so that it is the same on every device and after
    every restart. Every device gets as many batches; the last ones are filled up from the front.
    """

    def __init__(
        self, num_examples: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self._num_examples, self._batch_size, self._seed = num_examples, batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._epoch = self._first = 0
        self.num_batches = math.ceil(math.ceil(num_examples / world_size) / batch_size)

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """The next iteration gives the batches of that epoch, from that one on."""
        self._epoch, self._first = epoch, first_batch

    def __len__(self) -> int:
        return self.num_batches - self._first

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(self._num_examples, generator=generator).tolist()
        order += order[: -len(order) % self._world_size]
        own, size = order[self._rank :: self._world_size], self._batch_size
        for number in range(self._first, self.num_batches):
            yield own[number * size : (number + 1) * size]


def batch_loader(
    dataset: ExampleDataset,
    task: Task[Any],
    batches: Sequence[Sequence[int]] | EpochBatches,
    *,
    workers: int,
    pin_memory: bool = False,
) -> DataLoader[Batch[Any]]:
    """Loads these batches in order. With workers, in processes of their own."""
    collate: Callable[[list[Item]], Batch[Any]] = task.collate
    examples: Dataset[Any] = dataset
    return DataLoader(
        examples,
        batch_sampler=batches,  # type: ignore[arg-type]  # any iterable of lists will do
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        # Forked workers inherit locks of the threads of torch, of the store, and of Prefect.
        multiprocessing_context="spawn" if workers else None,
        # Its own generator: a loader must not draw from the one that dropout draws from.
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
    )


def in_order(num_examples: int, batch_size: int, rank: int = 0, world_size: int = 1) -> list[Any]:
    """Lists of indices for evaluation: each once, in order, every world_size-th from rank on."""
    own = list(range(rank, num_examples, world_size))
    return [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
