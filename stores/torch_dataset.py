"""A torch Dataset over features of a store."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import torch
from torch.utils.data import Dataset

from vlpipe.stores.snapshot import Snapshot


class StoreDataset(Dataset[dict[str, Any]]):
    """Map-style: item i is {"id": str, feature: Tensor [T, *row_shape], ...}.

    With spans also "spans": {feature: Tensor [T, 2] float64 seconds}. Works in DataLoader workers
    that are forked or spawned. Every video has every feature: that is checked when it is made.
    """

    def __init__(
        self,
        store: Snapshot,
        features: Sequence[str],
        ids: Sequence[str] | None = None,
        *,
        with_spans: bool = False,
    ) -> None:
        if not features:
            raise ValueError("a dataset needs at least one feature")
        self.features = tuple(features)
        self.with_spans = with_spans
        # Readers stay at their version, also when the store moves on.
        self._readers = {name: store[name] for name in self.features}
        readers = list(self._readers.values())
        if ids is None:
            common = set(readers[0].ids()).intersection(*(reader.ids() for reader in readers[1:]))
            ids = sorted(common)
        else:
            for reader in readers:
                for video_id in ids:
                    reader.locate(video_id)  # VideoMissing now rather than in an epoch's middle
        # One buffer: a list of many strings would be copied page by page into each forked worker.
        self._ids = pa.array(ids, pa.string())

    @property
    def ids(self) -> list[str]:
        """The ids in the order of the items."""
        ids: Any = self._ids.to_pylist()
        return list(ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video_id: str = self._ids[index].as_py()
        item: dict[str, Any] = {"id": video_id}
        spans = {}
        for name in self.features:
            if self.with_spans:
                rows, row_spans = self._readers[name].read(video_id, with_spans=True)
                spans[name] = torch.from_numpy(row_spans)
            else:
                rows = self._readers[name].read(video_id)
            item[name] = torch.from_numpy(rows)
        if self.with_spans:
            item["spans"] = spans
        return item
