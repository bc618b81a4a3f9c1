"""A torch Dataset over features of a store, and the batches that it makes."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler
from torch.utils.data import get_worker_info as worker_info

from vlpipe.stores.batch_rows import Pad
from vlpipe.stores.errors import UsageError, VideoMissing, VlpipeError
from vlpipe.stores.reader import FeatureReader
from vlpipe.stores.row_choice import Sampling, rows_at_times, sampled_rows
from vlpipe.stores.shared_pages import provide_pages
from vlpipe.stores.snapshot import Snapshot
from vlpipe.stores.stored_dtypes import BFLOAT16

Item = dict[str, Any]


class StoreDataset(Dataset[Item]):
    """Map-style: item i is {"id": str, feature: Tensor [T, *row_shape], ...}.

    With spans also "spans": {feature: Tensor [T, 2] float64 seconds}. `batch` and `loader` give
    padded batches. Works in DataLoader workers that are forked or spawned. Every video has every
    feature: that is checked when it is made.
    """

    def __init__(
        self,
        store: Snapshot,
        features: Sequence[str],
        ids: Iterable[Any] | None = None,
        *,
        with_spans: bool = False,
        pad: Pad = "right",
        num_rows: int | None = None,
        sampling: Sampling = "even",
        join: str | None = None,
    ) -> None:
        if isinstance(features, str):  # which is a sequence of names of one letter
            raise TypeError(f"features is the text {features!r}, expected a list of names")
        if not features:
            raise ValueError("a dataset needs at least one feature")
        taken = sorted({"id", "lengths", "mask", "spans"} & set(features))
        if taken:
            raise UsageError(
                f"a dataset cannot have the feature {', '.join(map(repr, taken))}: items have "
                "something else of that name",
                hint="NAME@GENERATION as the name of the feature tells them apart",
            )
        if pad not in ("right", "left"):
            raise ValueError(f"pad {pad!r} is unknown, expected 'right' or 'left'")
        if sampling not in ("even", "random", "first"):
            raise ValueError(f"sampling {sampling!r} is unknown: 'even', 'random' or 'first'")
        if num_rows is not None and num_rows < 1:
            raise ValueError(f"num_rows is {num_rows}, expected at least 1")
        if join is not None and join not in features:
            raise ValueError(f"join {join!r} is not one of the features {list(features)}")
        self.features = tuple(features)
        self.with_spans = with_spans
        self.pad: Pad = pad
        self.num_rows = num_rows
        self.sampling: Sampling = sampling
        self.join = join
        # Readers stay at their version, also when the store moves on.
        self._readers = {name: store[name] for name in self.features}
        readers = list(self._readers.values())
        if ids is None:
            common = set(readers[0].ids()).intersection(*(reader.ids() for reader in readers[1:]))
            ids = sorted(common)
        else:
            if isinstance(ids, pa.Array | pa.ChunkedArray):  # a column of `store.videos()`
                ids = ids.to_pylist()
            ids = list(ids)  # of any iterable, and once
            for reader in readers:
                reader.check(ids)  # VideoMissing now rather than in an epoch's middle
        # One buffer: a list of many strings would be copied page by page into each forked worker.
        self._ids = pa.array(ids, pa.string())

    @property
    def ids(self) -> list[str]:
        """The ids in the order of the items."""
        ids: Any = self._ids.to_pylist()
        return list(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Item:
        video_id: str = self._ids[index].as_py()
        item: Item = {"id": video_id}
        spans = {}
        chosen = self._chosen_rows(video_id)
        for name, reader in self._readers.items():
            rows = chosen.get(name)
            if self.with_spans:
                values, row_spans = reader.read(video_id, with_spans=True, rows=rows)
                spans[name] = torch.from_numpy(row_spans)
            else:
                values = reader[video_id] if rows is None else reader.read(video_id, rows=rows)
            item[name] = _tensor(reader, values)
        if self.with_spans:
            item["spans"] = spans
        return item

    def batch(self, indices: Sequence[int]) -> Item:
        """Several items as one: "id" list[str], feature Tensor [B, T, *row_shape] filled up with
        zeros, "lengths" {feature: Tensor [B] int64}, "mask" {feature: Tensor [B, T] bool, True
        for rows}, and with spans "spans" {feature: Tensor [B, T, 2]}.

        Without sampling and joining, rows are read from the files straight into the batch, which
        lies in shared memory when a worker makes it.
        """
        return self._padded_batch(indices).item()

    def _padded_batch(self, indices: Sequence[int]) -> "_PaddedBatch":
        if self.num_rows is not None or self.join is not None:
            return self._collated([self[index] for index in indices])
        ids: Any = self._ids.take(pa.array(indices, pa.int64())).to_pylist()
        result = _PaddedBatch(ids, self.pad, {}, {}, {} if self.with_spans else None)
        for name, reader in self._readers.items():
            made: list[torch.Tensor] = []
            dtype = _torch_dtype(reader)

            def new_array(
                shape: tuple[int, ...],
                made: list[torch.Tensor] = made,
                dtype: torch.dtype = dtype,
            ) -> npt.NDArray[Any]:
                made.append(_new_tensor(shape, dtype))
                return _array_of(made[0])

            batch = reader.read_batch(ids, pad=self.pad, with_spans=self.with_spans, out=new_array)
            (result.rows[name],) = made
            result.lengths[name] = batch.lengths.tolist()
            if batch.spans is not None and result.spans is not None:
                result.spans[name] = torch.from_numpy(batch.spans)
        return result

    def collate(self, items: Sequence[Item]) -> Item:
        """The batch of these items, as `batch` makes it: for a DataLoader of one's own."""
        return self._collated(items).item()

    def _collated(self, items: Sequence[Item]) -> "_PaddedBatch":
        spans = None
        if self.with_spans:
            spans = {
                name: _padded([item["spans"][name] for item in items], self.pad)
                for name in self.features
            }
        columns = {name: [item[name] for item in items] for name in self.features}
        return _PaddedBatch(
            ids=[item["id"] for item in items],
            pad=self.pad,
            rows={name: _padded(tensors, self.pad) for name, tensors in columns.items()},
            lengths={name: [len(t) for t in tensors] for name, tensors in columns.items()},
            spans=spans,
        )

    def loader(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        generator: torch.Generator | None = None,
        **options: Any,  # noqa: ANN401 - of torch's DataLoader
    ) -> "DataLoader[Item]":
        """A DataLoader of padded batches; `options` are its own (num_workers, pin_memory,
        multiprocessing_context, persistent_workers ...)."""
        sampler = RandomSampler(self, generator=generator) if shuffle else SequentialSampler(self)
        batches = BatchSampler(sampler, batch_size, drop_last)
        return _BatchLoader(
            _Batches(self),
            sampler=batches,
            batch_size=None,
            collate_fn=_as_it_is,
            generator=generator,
            **options,
        )

    # below

    def _chosen_rows(self, video_id: str) -> dict[str, npt.NDArray[np.int64] | None]:
        """Row numbers of each feature, None for all."""
        if self.join is None:
            return {
                name: self._sampled(reader.locate(video_id)[2])
                for name, reader in self._readers.items()
            }
        spans = self._readers[self.join].read_spans(video_id)
        own = self._sampled(len(spans))
        wanted = spans if own is None else spans[own]
        chosen: dict[str, npt.NDArray[np.int64] | None] = {self.join: own}
        for name, reader in self._readers.items():
            if name == self.join:
                continue
            others = reader.read_spans(video_id)
            if not len(others) and len(wanted):
                raise VideoMissing(
                    f"video {video_id!r} has no rows of {name} to join with {self.join}",
                    hint="leave such videos out of ids",
                )
            chosen[name] = rows_at_times(others, wanted) if len(wanted) else np.arange(0)
        return chosen

    def _sampled(self, size: int) -> npt.NDArray[np.int64] | None:
        if self.num_rows is None:
            return None
        draw = None
        if self.sampling == "random" and size > self.num_rows:
            # torch seeds its generator apart in each worker and epoch.
            draw = torch.rand(self.num_rows, dtype=torch.float64).numpy()
        return sampled_rows(size, self.num_rows, self.sampling, draw)


@dataclass(frozen=True)
class _PaddedBatch:
    """What a batch is made of. It goes from a worker to the trainer as little more than one tensor
    a feature, because each tensor costs a file descriptor and a connection; there it becomes an
    item."""

    ids: list[str]
    pad: Pad
    rows: dict[str, torch.Tensor]  # [B, T, *row_shape]
    lengths: dict[str, list[int]]
    spans: dict[str, torch.Tensor] | None  # [B, T, 2]

    def item(self) -> Item:
        """As `StoreDataset.batch` describes it."""
        item: Item = {"id": self.ids, **self.rows, "lengths": {}, "mask": {}}
        for name, rows in self.rows.items():
            lengths = torch.tensor(self.lengths[name], dtype=torch.int64)
            mask = torch.arange(rows.shape[1]) < lengths[:, None]
            item["lengths"][name] = lengths
            item["mask"][name] = mask.flip(1) if self.pad == "left" else mask
        if self.spans is not None:
            item["spans"] = self.spans
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return _item_of, (self.ids, self.pad, self.rows, self.lengths, self.spans)


def _item_of(*parts: Any) -> Item:  # noqa: ANN401 - of `_PaddedBatch`
    return _PaddedBatch(*parts).item()


@dataclass(frozen=True)
class _Batches(Dataset[Item]):
    """Item: the batch of a list of indices."""

    dataset: StoreDataset

    def __getitem__(self, indices: Any) -> Any:  # noqa: ANN401 - a list, where Dataset says int
        if worker_info() is None:
            return self.dataset._padded_batch(indices).item()
        try:
            return self.dataset._padded_batch(indices)
        except VlpipeError as error:  # torch would make one long text of it
            return error

    def __iter__(self) -> Iterator[Item]:
        raise TypeError("indexed by lists of item numbers")


class _BatchLoader(DataLoader[Item]):
    """A DataLoader whose workers' errors are raised as they are."""

    def __iter__(self) -> Any:  # noqa: ANN401 - an iterator; torch says a class of its own
        return map(_raised, super().__iter__())


def _raised(batch: Any) -> Item:  # noqa: ANN401 - what a worker sent
    if isinstance(batch, VlpipeError):
        raise batch
    item: Item = batch
    return item


def _as_it_is(batch: Any) -> Item:  # noqa: ANN401 - what `_Batches` gave, where torch says list
    item: Item = batch
    return item


def _torch_dtype(reader: FeatureReader) -> torch.dtype:
    name = reader.definition.dtype
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def _tensor(reader: FeatureReader, values: npt.NDArray[Any]) -> torch.Tensor:
    tensor = torch.from_numpy(values)
    return tensor.to(torch.bfloat16) if reader.definition.dtype == BFLOAT16 else tensor  # exact


def _array_of(tensor: torch.Tensor) -> npt.NDArray[Any]:
    """The memory of a tensor as an array of the stored dtype."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy()
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def _new_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of undefined values; in shared memory when a worker asks, as torch's own collation
    does it, so that the batch is not copied once more on its way to the trainer."""
    if worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    num_bytes = math.prod(shape) * dtype.itemsize
    new_shared: Any = torch.UntypedStorage._new_shared  # has no types
    storage = new_shared(num_bytes)
    provide_pages(storage.data_ptr(), num_bytes)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def _padded(tensors: Sequence[torch.Tensor], pad: Pad) -> torch.Tensor:
    longest = max((len(tensor) for tensor in tensors), default=0)
    result = _new_tensor((len(tensors), longest, *tensors[0].shape[1:]), tensors[0].dtype)
    for row, tensor in zip(result, tensors, strict=True):
        if pad == "right":
            row[: len(tensor)], row[len(tensor) :] = tensor, 0
        else:
            begin = longest - len(tensor)
            row[begin:], row[:begin] = tensor, 0
    return result
