"""What an HDF5 file of features says about one of them: which videos, and where their rows are."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.checksum import crc32c
from vlpipe.stores.errors import StoreDamaged
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.foreign_arrays import ForeignArrayError
from vlpipe.stores.foreign_hdf5 import find_dataset, read_dataset, read_names

FORMAT, FORMAT_VERSION = "vlpipe-hdf5", 1


@dataclass(frozen=True)
class FeatureIndex:
    """Where the videos of one feature generation are, and what is known of them: arrays (V,).

    rows_offset, spans_offset: of the first row in the file; None without rows.
    """

    definition: FeatureDefinition
    is_active: bool
    video_ids: tuple[str, ...]
    row_start: npt.NDArray[np.int64]
    row_size: npt.NDArray[np.int64]
    crc32c: npt.NDArray[np.uint32]
    spans_crc32c: npt.NDArray[np.uint32]
    sources: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: npt.NDArray[np.float32]
    source_size: npt.NDArray[np.int64]
    source_mtime_ns: npt.NDArray[np.int64]
    rows_offset: int | None = None
    spans_offset: int | None = None

    def checksum(self) -> int:
        """CRC-32C of all of it but the offsets."""
        texts = json.dumps([self.video_ids, self.sources, self.notes]).encode()
        arrays = (self.row_start, self.row_size, self.crc32c, self.spans_crc32c, self.seconds)
        more = (self.source_size, self.source_mtime_ns)
        return crc32c(texts + b"".join(array.tobytes() for array in (*arrays, *more)))


def read_index(file: Any, path: str) -> FeatureIndex:  # noqa: ANN401 - h5py.File
    group = file[path]
    try:
        arrays = {
            name: np.ascontiguousarray(read_dataset(file, f"{path}/{name}"), dtype)
            for name, dtype in (
                ("row_start", "<i8"), ("row_size", "<i8"), ("crc32c", "<u4"),
                ("spans_crc32c", "<u4"), ("seconds", "<f4"), ("source_size", "<i8"),
                ("source_mtime_ns", "<i8"),
            )
        }  # fmt: skip
        rows, spans = find_dataset(file, f"{path}/rows"), find_dataset(file, f"{path}/spans")
        texts = {n: tuple(read_names(file, f"{path}/{n}")) for n in ("video_id", "source", "note")}
    except ForeignArrayError as error:
        raise StoreDamaged(str(error)) from None
    definition = FeatureDefinition.from_json(json.loads(group.attrs["definition"]))
    index = FeatureIndex(
        definition=definition,
        is_active=bool(group.attrs["is_active"]),
        video_ids=texts["video_id"],
        sources=texts["source"],
        notes=texts["note"],
        rows_offset=rows.id.get_offset(),
        spans_offset=spans.id.get_offset(),
        **arrays,
    )
    if index.checksum() != int(group.attrs["index_crc32c"]):
        raise StoreDamaged(f"{file.filename}:{path}: the list of videos is damaged")
    num_rows = int(index.row_size.sum())
    ends = np.cumsum(index.row_size)
    if (index.row_size < 0).any() or not np.array_equal(index.row_start, ends - index.row_size):
        raise StoreDamaged(f"{file.filename}:{path}: the ranges of videos do not follow each other")
    if (rows.shape, rows.dtype, spans.shape) != (
        (num_rows, *definition.row_shape),
        np.dtype(definition.dtype),
        (num_rows, 2),
    ):
        raise StoreDamaged(
            f"{file.filename}:{path}: rows are {rows.shape} {rows.dtype} and spans {spans.shape}, "
            f"expected {num_rows} rows {definition.row_shape} {definition.dtype}"
        )
    return index
