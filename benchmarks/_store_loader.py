"""Padded batches of 32 from two workers: the store's own loader, and a plain one over others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks._store_layouts import FEATURE, Collection, Layout, Store
from vlpipe.stores import FeatureStore

BATCH, WORKERS = 32, 2


class _Videos(Dataset[torch.Tensor]):
    """Opens its layout in the worker."""

    def __init__(self, layout: Layout, folder: Path, videos: Collection, count: int) -> None:
        self._layout, self._folder, self._videos, self._count = layout, folder, videos, count
        self._reader: Any = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, n: int) -> torch.Tensor:
        if self._reader is None:
            self._reader = self._layout.open(self._folder, self._videos)
        return torch.from_numpy(self._reader.read(n))


def _padded(rows: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # [B, T, D]


def loader_of(
    layout: Layout, folder: Path, videos: Collection, count: int
) -> Iterator[torch.Tensor]:
    """Batches of rows [B, T, D] of the first videos, in random order."""
    if isinstance(layout, Store):
        store = FeatureStore.open(folder / "store", durability="process")
        ids = [videos.video_id(n) for n in range(count)]
        dataset = store.torch_dataset([FEATURE], ids)
        for batch in dataset.loader(BATCH, shuffle=True, num_workers=WORKERS):
            yield batch[FEATURE]
        store.close()
        return
    plain = _Videos(layout, folder, videos, count)
    yield from DataLoader(plain, BATCH, shuffle=True, num_workers=WORKERS, collate_fn=_padded)
