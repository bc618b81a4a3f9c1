"""The same features in several layouts: this store, and what people use otherwise.

Each layout writes all videos of a collection into a folder, and opens it for reading by number.
"""

import copy
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.exchange.importing import BATCH_VIDEOS  # a commit of an import

FEATURE = "rgb"


class Collection:
    """Made videos: drawn lengths, rows [T, D] float32 cut out of a pool of random numbers, so that
    none compresses and none needs to be kept."""

    def __init__(self, num_videos: int, lengths: tuple[int, int], dimension: int) -> None:
        rng = np.random.default_rng(5)
        self.num_rows = rng.integers(lengths[0], lengths[1] + 1, num_videos)
        self.dimension = dimension
        pool_rows = max(2 * lengths[1], (32 << 20) // (4 * dimension))
        self._pool = rng.random((pool_rows, dimension), np.float32)
        self._starts = rng.integers(0, pool_rows - lengths[1], num_videos)
        self.starts = np.cumsum(self.num_rows) - self.num_rows  # in the concatenation of all

    def first(self, number: int) -> "Collection":
        """The first videos alone."""
        part = copy.copy(self)
        part.num_rows, part.starts = self.num_rows[:number], self.starts[:number]
        return part

    def __len__(self) -> int:
        return len(self.num_rows)

    def __getitem__(self, n: int) -> np.ndarray:
        return self._pool[self._starts[n] : self._starts[n] + self.num_rows[n]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[n] for n in range(len(self)))

    @property
    def num_bytes(self) -> int:
        return int(self.num_rows.sum()) * self.dimension * 4

    def video_id(self, n: int) -> str:
        return f"video{n:07}"


class Reader(Protocol):
    def read(self, n: int) -> np.ndarray: ...
    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray: ...
    def close(self) -> None: ...


class Layout(Protocol):
    name: str

    def write(self, folder: Path, videos: Collection) -> None: ...
    def open(self, folder: Path, videos: Collection) -> Any: ...  # noqa: ANN401 - a Reader


class _Reader:
    """Rows of a video by reading all of it, for layouts that have nothing better."""

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return self.read(n)[numbers]

    def close(self) -> None:
        pass


class Memmap:
    name = "raw memory map (ceiling)"

    def write(self, folder: Path, videos: Collection) -> None:
        with (folder / "rows.bin").open("wb") as stream:
            for rows in videos:
                stream.write(rows)

    def open(self, folder: Path, videos: Collection) -> "_MemmapReader":
        return _MemmapReader(folder, videos)


class _MemmapReader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        mapped = np.memmap(folder / "rows.bin", np.float32, "r")
        # A plain array over the map: the subclass costs more than the reading of a short clip.
        self._rows = np.asarray(mapped).reshape(-1, videos.dimension)
        self._starts, self._sizes = videos.starts.tolist(), videos.num_rows.tolist()

    def read(self, n: int) -> np.ndarray:
        start = self._starts[n]
        return self._rows[start : start + self._sizes[n]].copy()

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return self._rows[self._starts[n] + np.asarray(numbers)]


class Store:
    name = "this store"

    def write(self, folder: Path, videos: Collection) -> None:
        definition = FeatureDefinition(FEATURE, "float32", (videos.dimension,), ("channel",))
        store = FeatureStore.create(folder / "store", durability="process")
        starts = np.arange(videos.num_rows.max(), dtype=np.float64)
        spans = np.stack([starts, starts + 1], axis=1)  # which no other layout keeps
        batch = min(BATCH_VIDEOS, -(-len(videos) // 4))  # a few parts also of a small collection
        for first in range(0, len(videos), batch):
            with store.writer([definition]) as writer:
                for n in range(first, min(first + batch, len(videos))):
                    rows = videos[n]
                    features = Features(rows, spans[: len(rows)])
                    writer.add(videos.video_id(n), {FEATURE: features})

    def open(self, folder: Path, videos: Collection) -> "_StoreReader":
        return _StoreReader(folder, videos)


class _StoreReader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        self.store = FeatureStore.open(folder / "store", durability="process")
        self._reader = self.store[FEATURE]
        self._ids = [videos.video_id(n) for n in range(len(videos))]

    def read(self, n: int) -> np.ndarray:
        return self._reader[self._ids[n]]

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return self._reader.read(self._ids[n], rows=numbers, verify="never")

    def close(self) -> None:
        self.store.close()


class StoreViews:
    """The folder that `Store` wrote, read as its memory map is: without a system call."""

    name = "this store, copied from views"

    def open(self, folder: Path, videos: Collection) -> "_StoreViewReader":
        return _StoreViewReader(folder.parent / Store.__name__, videos)


class _StoreViewReader(_StoreReader):
    def read(self, n: int) -> np.ndarray:
        return self._reader.read(self._ids[n], copy=False).copy()


class Npy:
    name = "npy per video"

    def write(self, folder: Path, videos: Collection) -> None:
        for n, rows in enumerate(videos):
            np.save(folder / f"{videos.video_id(n)}.npy", rows)

    def open(self, folder: Path, videos: Collection) -> "_NpyReader":
        return _NpyReader(folder, videos)


class _NpyReader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        self._paths = [str(folder / f"{videos.video_id(n)}.npy") for n in range(len(videos))]

    def read(self, n: int) -> np.ndarray:
        return np.load(self._paths[n])

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return np.asarray(np.load(self._paths[n], mmap_mode="r")[numbers])


class Hdf5:
    name = "HDF5, dataset per video"

    def write(self, folder: Path, videos: Collection) -> None:
        h5py: Any = importlib.import_module("h5py")
        with h5py.File(folder / "features.hdf5", "w") as file:
            for n, rows in enumerate(videos):
                file.create_dataset(videos.video_id(n), data=rows)

    def open(self, folder: Path, videos: Collection) -> "_Hdf5Reader":
        return _Hdf5Reader(folder, videos)


class _Hdf5Reader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        h5py: Any = importlib.import_module("h5py")
        self._file = h5py.File(folder / "features.hdf5", "r")
        self._ids = [videos.video_id(n) for n in range(len(videos))]

    def read(self, n: int) -> np.ndarray:
        return self._file[self._ids[n]][()]

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return self._file[self._ids[n]][sorted(numbers)]

    def close(self) -> None:
        self._file.close()


class Hdf5Padded:
    name = "HDF5, one padded array"

    def write(self, folder: Path, videos: Collection) -> None:
        h5py: Any = importlib.import_module("h5py")
        longest = int(videos.num_rows.max())
        shape = (len(videos), longest, videos.dimension)
        with h5py.File(folder / "features.hdf5", "w") as file:
            array = file.create_dataset("features", shape, "f4", chunks=(1, *shape[1:]))
            padded = np.zeros(shape[1:], np.float32)
            for n, rows in enumerate(videos):
                padded[: len(rows)], padded[len(rows) :] = rows, 0
                array[n] = padded

    def open(self, folder: Path, videos: Collection) -> "_Hdf5PaddedReader":
        return _Hdf5PaddedReader(folder, videos)


class _Hdf5PaddedReader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        h5py: Any = importlib.import_module("h5py")
        self._file = h5py.File(folder / "features.hdf5", "r")
        self._array = self._file["features"]
        self._sizes = videos.num_rows.tolist()

    def read(self, n: int) -> np.ndarray:
        return self._array[n, : self._sizes[n]]

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return self._array[n, sorted(numbers)]

    def close(self) -> None:
        self._file.close()


class Lmdb:
    name = "LMDB"

    def write(self, folder: Path, videos: Collection) -> None:
        lmdb: Any = importlib.import_module("lmdb")
        size = 2 * videos.num_bytes + (64 << 20)
        with lmdb.open(str(folder), map_size=size, sync=False) as environment:
            for first in range(0, len(videos), BATCH_VIDEOS):
                with environment.begin(write=True) as transaction:
                    for n in range(first, min(first + BATCH_VIDEOS, len(videos))):
                        transaction.put(videos.video_id(n).encode(), videos[n].tobytes())
            environment.sync()

    def open(self, folder: Path, videos: Collection) -> "_LmdbReader":
        return _LmdbReader(folder, videos)


class _LmdbReader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        lmdb: Any = importlib.import_module("lmdb")
        self._environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        self._transaction = self._environment.begin(buffers=True)
        self._ids = [videos.video_id(n).encode() for n in range(len(videos))]
        self._dimension = videos.dimension

    def _view(self, n: int) -> np.ndarray:
        value = self._transaction.get(self._ids[n])
        return np.frombuffer(value, np.float32).reshape(-1, self._dimension)

    def read(self, n: int) -> np.ndarray:
        return self._view(n).copy()

    def rows(self, n: int, numbers: Sequence[int]) -> np.ndarray:
        return self._view(n)[numbers]

    def close(self) -> None:
        self._transaction.abort()
        self._environment.close()


class ZarrPerVideo:
    name = "Zarr, array per video"

    def write(self, folder: Path, videos: Collection) -> None:
        import zarr

        group = zarr.create_group(folder / "zarr")
        for n, rows in enumerate(videos):
            array = group.create_array(
                videos.video_id(n),
                shape=rows.shape,
                dtype="f4",
                chunks=rows.shape,
                compressors=None,
            )
            array[:] = rows

    def open(self, folder: Path, videos: Collection) -> "_ZarrReader":
        return _ZarrReader(folder, videos)


class _ZarrReader(_Reader):
    def __init__(self, folder: Path, videos: Collection) -> None:
        import zarr

        self._group = zarr.open_group(folder / "zarr", mode="r")
        self._ids = [videos.video_id(n) for n in range(len(videos))]

    def read(self, n: int) -> np.ndarray:
        return np.asarray(self._group[self._ids[n]][:])


LAYOUTS: tuple[Layout, ...] = (
    Memmap(),
    Store(),
    Npy(),
    Hdf5(),
    Hdf5Padded(),
    Lmdb(),
    ZarrPerVideo(),
)


def drop_pages(folder: Path) -> None:
    """Asks the kernel to forget the pages of all files below a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
