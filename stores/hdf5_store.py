"""Features in one HDF5 file, for those who want one: read like a store, never changed.

    /                       format, format_version, store (version and id of the store it came from)
    /failed                 JSON of the quarantine
    /FEATURE/GENERATION/    definition (JSON with the provenance), is_active, index_crc32c
        rows (N, ...)       all rows, video after video; contiguous, so that a video is one range
        spans (N, 2)        float64 seconds
        video_id (V,)       text; row_start, row_size (V,) int64; crc32c, spans_crc32c (V,) uint32
        source, note (V,)   text; seconds, source_size, source_mtime_ns (V,)

`vlpipe store export --layout vlpipe-hdf5` makes one. h5py alone reads it by name.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from vlpipe.stores.errors import (
    FeatureMissing,
    StoreDamaged,
    StoreNotFound,
    StoreTooNew,
    UsageError,
)
from vlpipe.stores.foreign_hdf5 import open_foreign_hdf5
from vlpipe.stores.hdf5_index import (
    FORMAT,
    FORMAT_VERSION,
    FeatureIndex,
    feature_info,
    read_index,
)
from vlpipe.stores.hdf5_reader import Hdf5FeatureReader, RangeFile
from vlpipe.stores.information import FeatureInfo

if TYPE_CHECKING:
    import pyarrow as pa


# What h5py raises where the structure of a file is damaged.
_DAMAGE = (KeyError, ValueError, OSError, RuntimeError, TypeError, AttributeError, UnicodeError)


class Hdf5Store:
    """A file of features. It reads like a `FeatureStore` at a fixed version.

    Handles pickle to their path, and work after a fork: h5py is used while opening only.
    """

    def __init__(
        self, path: Path, indexes: Mapping[tuple[str, str], FeatureIndex], facts: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._indexes = indexes
        self._facts = facts
        self._file = RangeFile(path)
        self._readers: dict[tuple[str, str], Hdf5FeatureReader] = {}

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The file at a path.

        Raises StoreNotFound, UsageError for other HDF5 files, StoreTooNew for a later format and
        StoreDamaged where its small arrays do not match their checksum.
        """
        path = Path(path).absolute()
        if not path.is_file():
            raise StoreNotFound(f"there is no file {path}")
        with open_foreign_hdf5(path) as file:
            try:
                return cls(path, *_read_contents(path, file))
            except _DAMAGE as error:
                raise StoreDamaged(f"{path}: {error}") from error

    @property
    def url(self) -> str:
        """The path."""
        return str(self._path)

    @property
    def version(self) -> int:
        """Version of the store that it was exported from."""
        return int(self._facts["version"])

    @property
    def features(self) -> Mapping[str, FeatureInfo]:
        """The active generation of each feature, by name."""
        return {
            name: feature_info(index, self._facts)
            for (name, _), index in self._indexes.items()
            if index.is_active
        }

    @property
    def feature_names(self) -> list[str]:
        """The names of all features, sorted."""
        return sorted({name for name, _ in self._indexes})

    def generations(self, name: str) -> list[FeatureInfo]:
        """All generations of a feature, the active one first."""
        found = [feature_info(i, self._facts) for (n, _), i in self._indexes.items() if n == name]
        if not found:
            raise self._feature_missing(name)
        return sorted(found, key=lambda info: not info.is_active)

    def __getitem__(self, name: str) -> "Hdf5FeatureReader":
        """The reader of `feature` (its active generation) or of `feature@generation`."""
        feature, at, generation = name.partition("@")
        for key, index in self._indexes.items():
            if key[0] == feature and (key[1] == generation if at else index.is_active):
                if key not in self._readers:
                    self._readers[key] = Hdf5FeatureReader(self.url, index, self._file, self._facts)
                return self._readers[key]
        raise self._feature_missing(name)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self[name] is not None
        except FeatureMissing:
            return False

    def videos(self) -> "pa.Table":
        """One row per video and feature: video_id, feature, generation, is_active, rows, seconds,
        source, note."""
        import pyarrow as pa

        rows = [
            {
                "video_id": index.video_ids[n],
                "feature": key[0],
                "generation": key[1],
                "is_active": index.is_active,
                "rows": int(index.row_size[n]),
                "seconds": None if np.isnan(index.seconds[n]) else float(index.seconds[n]),
                "source": index.sources[n] or None,
                "note": index.notes[n] or None,
            }
            for key, index in self._indexes.items()
            for n in range(len(index.video_ids))
        ]
        return pa.Table.from_pylist(rows, schema=_videos_schema(pa))

    def failed(self) -> list[dict[str, Any]]:
        """The quarantine of the store at the time of the export."""
        return list(self._facts["failed"])

    def digest(self, feature: str) -> str:
        """SHA-256 (hex) of what a feature holds; equal to that of a store that holds the same."""
        index = self[feature].index
        result = hashlib.sha256()
        order = sorted((video.encode(), n) for n, video in enumerate(index.video_ids))
        for video, n in order:
            result.update(struct.pack("<I", len(video)) + video)
            numbers = (int(a[n]) for a in (index.row_size, index.crc32c, index.spans_crc32c))
            result.update(struct.pack("<QII", *numbers))
        return result.hexdigest()

    def verify(self) -> list[str]:
        """What is wrong with the bytes of any video; empty when all match their checksums."""
        problems = []
        for feature, generation in self._indexes:
            reader = self[f"{feature}@{generation}"]
            for video_id in reader.ids():
                try:
                    reader.read(video_id, with_spans=True, verify="always")
                except StoreDamaged as error:
                    problems.append(error.message)
        return problems

    def close(self) -> None:
        """Closes the file. Reading again opens it again."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self._path,)

    def __repr__(self) -> str:
        return f"<Hdf5Store {self.url}, version {self.version}>"

    def _feature_missing(self, name: str) -> FeatureMissing:
        return FeatureMissing(
            f"{self.url} has no feature {name!r}", hint=f"it has {', '.join(self.feature_names)}"
        )


def _read_contents(
    path: Path,
    file: Any,  # noqa: ANN401 - h5py.File
) -> tuple[dict[tuple[str, str], FeatureIndex], dict[str, Any]]:
    if file.attrs.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not a file of this layout",
            hint="other HDF5 files: vlpipe store import STORE --layout ... --from FILE",
        )
    version = int(file.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise StoreTooNew(f"{path} has format {version}, this vlpipe reads up to {FORMAT_VERSION}")
    indexes = {
        (feature, generation): read_index(file, f"/{feature}/{generation}")
        for feature in sorted(set(file) - {"failed"})
        for generation in sorted(file[feature])
    }
    facts = json.loads(file.attrs["store"])
    return indexes, facts | {"failed": json.loads(file["failed"][()])}


def _videos_schema(pa: Any) -> Any:  # noqa: ANN401
    text = pa.string()
    return pa.schema(
        {
            "video_id": text, "feature": text, "generation": text, "is_active": pa.bool_(),
            "rows": pa.int64(), "seconds": pa.float32(), "source": text, "note": text,
        }
    )  # fmt: skip
