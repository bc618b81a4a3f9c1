"""Features in one HDF5 file, for those who want one: read like a store, never changed.

    /                       format, format_version, store (version of the store it came from)
    /failed                 JSON of the quarantine
    /FEATURE/GENERATION/    definition (JSON with the provenance), is_active, index_crc32c
        rows (N, ...)       all rows, video after video; contiguous, so that a video is one range
        spans (N, 2)        float64 seconds
        video_id (V,)       text; row_start, row_size (V,) int64; crc32c, spans_crc32c (V,) uint32
        source, note (V,)   text; seconds, source_size, source_mtime_ns (V,)

`vlpipe store export --layout vlpipe-hdf5` makes one. h5py alone reads it by name.
"""

import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vlpipe.stores.errors import StoreDamaged, StoreNotFound, StoreTooNew, UsageError
from vlpipe.stores.feature_store import FeatureStore
from vlpipe.stores.foreign_hdf5 import open_foreign_hdf5
from vlpipe.stores.generation import GenerationState, RawVideoRow
from vlpipe.stores.hdf5_index import FORMAT, FORMAT_VERSION, FeatureIndex, read_index
from vlpipe.stores.hdf5_storage import FORM, Hdf5Part, Hdf5Storage, only_read
from vlpipe.stores.layout import format_utc
from vlpipe.stores.state import Failure, State
from vlpipe.stores.storage import local_path

if TYPE_CHECKING:
    from vlpipe.stores.verification import VerifyReport

# What h5py raises where the structure of a file is damaged.
_DAMAGE = (KeyError, ValueError, OSError, RuntimeError, TypeError, AttributeError, UnicodeError)


class Hdf5Store(FeatureStore):
    """A file of features: a store at the version that it was exported from, with all that reads.

    What would change it raises UsageError. Handles pickle to their path, and work after a fork:
    h5py is used while opening only.
    """

    @classmethod
    def open(
        cls,
        url: str | Path,
        version: int | str | None = None,
        *,
        at: str | date | None = None,
        durability: str = "power",
    ) -> Self:
        """The file at a path. version: None, or that of the file; there is no other.

        Raises StoreNotFound, UsageError for other HDF5 files and other versions, StoreTooNew for a
        later format and StoreDamaged where its small arrays do not match their checksum.
        """
        path = local_path(url)
        if path is None or not path.is_file():
            raise StoreNotFound(f"there is no file {path or url} on this machine")
        storage = Hdf5Storage(path)
        with open_foreign_hdf5(path) as file:
            try:
                state = _read_state(path, file)
            except _DAMAGE as error:
                raise StoreDamaged(f"{path}: {error}") from error
        if at is not None or version not in (None, state.version):
            raise UsageError(
                f"{path} holds version {state.version} of a store and no other, so not "
                + (f"version {version!r}" if at is None else f"that of {at}")
            )
        return cls(storage, state, durability=durability, is_pinned=True)

    def check_writable(self) -> None:
        raise only_read(self.url)

    def pin(self, run: str, hours: float = 24.0) -> None:
        """Nothing: a file loses no version."""

    def verify(
        self,
        *,
        deep: bool = True,
        repair: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> "VerifyReport":
        """What is wrong with the bytes of the file. Its list of videos was compared when it was
        opened; `deep` compares the rows and spans of every video as well."""
        from vlpipe.stores.verification import verify_one_file

        if repair:
            self.check_writable()
        return verify_one_file(self._storage, self._state, is_deep=deep, progress=progress)


def _read_state(path: Path, file: Any) -> State:  # noqa: ANN401 - h5py.File
    if file.attrs.get("format") != FORMAT:
        raise UsageError(
            f"{path} is not a file of this layout",
            hint="other HDF5 files: vlpipe store import STORE --layout ... --from FILE",
        )
    format_version = int(file.attrs["format_version"])
    if format_version > FORMAT_VERSION:
        raise StoreTooNew(
            f"{path} has format {format_version}, this vlpipe reads up to {FORMAT_VERSION}"
        )
    version = int(json.loads(file.attrs["store"])["version"])
    state = State(version=version, entry_id=json.loads(file.attrs["vlpipe_export"])["identity"])
    found = path.stat()
    for feature in sorted(set(file) - {"failed"}):
        for name in sorted(file[feature]):
            index = read_index(file, f"/{feature}/{name}")
            generation = GenerationState(index.definition, name)
            generation.put(_video_rows(index, _part(index, name, version, found.st_size)))
            state.generations[feature, name] = generation
            if index.is_active:
                state.active[feature] = name
    # The first files of this format did not say when and how often.
    at_latest = format_utc(datetime.fromtimestamp(found.st_mtime, UTC))
    unknown = {"attempt": 1, "retry": False, "version": version, "time": at_latest}
    for failure in json.loads(file["failed"][()]):
        facts = unknown | failure
        key = tuple(facts.pop(name) for name in ("feature", "generation", "video_id"))
        state.failures.set(key, Failure(**facts))
    return state


def _part(index: FeatureIndex, generation: str, version: int, file_bytes: int) -> Hdf5Part:
    definition = index.definition
    num_rows = int(index.row_size.sum())
    return Hdf5Part(
        id=f"{generation}-{index.checksum():08x}",
        feature=definition.name,
        generation=generation,
        num_rows=num_rows,
        num_videos=len(index.video_ids),
        dtype=definition.dtype,
        row_shape=definition.row_shape,
        chunk_rows=max(num_rows, 1),
        codec="none",
        base=index.rows_offset or 0,
        rows_bytes=file_bytes,
        spans_bytes=file_bytes,
        form=FORM,
        version=version,
        created="",
        spans_base=index.spans_offset or 0,
    )


def _video_rows(index: FeatureIndex, part: Hdf5Part) -> Iterator[tuple[str, RawVideoRow]]:
    columns = zip(
        index.video_ids, index.row_start.tolist(), index.row_size.tolist(), index.crc32c.tolist(),
        index.spans_crc32c.tolist(), index.sources, index.seconds.tolist(),
        index.source_size.tolist(), index.source_mtime_ns.tolist(), index.notes, strict=True,
    )  # fmt: skip
    for video_id, start, size, crc, spans_crc, source, seconds, num_bytes, mtime, note in columns:
        yield (
            video_id,
            (
                part, start, size, crc, spans_crc, source or None,
                None if math.isnan(seconds) else seconds,
                None if num_bytes < 0 else num_bytes,
                None if mtime < 0 else mtime,
                note or None, part.version,
            ),
        )  # fmt: skip
