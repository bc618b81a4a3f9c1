"""HDF5 with a dataset per video: at the root, in a group per feature, or in a group per video."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import StoreDamaged, UsageError
from vlpipe.stores.exchange.container import (
    Container,
    ExportPlan,
    Facts,
    RowPlace,
    Sample,
    Source,
    SourceFile,
    Target,
    check_within_folder,
    plain_name_problem,
    require_path,
)
from vlpipe.stores.exchange.hdf5_files import Hdf5File, unwritable
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.foreign_arrays import ForeignArrayError
from vlpipe.stores.foreign_hdf5 import (
    group_names,
    has_dataset,
    open_foreign_hdf5,
    read_if_there,
)

_KEY = "{key}"


class Hdf5Videos(Container):
    """Places are `FILE:/PATH` with `{key}` once in the path."""

    def check_place(self, slot: str, place: str) -> None:
        super().check_place(slot, place)
        name, colon, path = place.partition(":")
        if not colon or path.count(_KEY) != 1:
            raise UsageError(
                f"the place {place!r} of {slot!r} is not FILE:/PATH with {_KEY} once in the path",
                hint=f"for instance --place '{slot}=features.hdf5:/{_KEY}'",
            )
        check_within_folder(slot, place, name)

    def check_key(self, key: str) -> str | None:
        return plain_name_problem(key)

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "Hdf5VideoSource":
        del raw_dtype
        return Hdf5VideoSource(path, slots)

    def create(self, plan: ExportPlan) -> "Hdf5VideoTarget":
        return Hdf5VideoTarget(plan)


class Hdf5VideoSource(Source):
    """One or several HDF5 files in a folder, or one file given by itself."""

    def __init__(self, path: Path, slots: Sequence[Slot]) -> None:
        require_path(path, "HDF5 file or folder of them")
        self._opened: dict[Path, Any] = {}
        self._places: dict[str, tuple[Path, str]] = {}
        for slot in slots:
            for place in slot.places:
                name, _, inner = place.partition(":")
                file = find_file(path, name)
                if file is not None:
                    self._places[slot.name] = (file, inner)
                    break
        if not self._places:
            expected = ", ".join(slot.places[0].partition(":")[0] for slot in slots)
            raise UsageError(
                f"{path} has none of the files {expected}",
                hint="--place 'SLOT=FILE:/PATH' says where they are",
            )
        self.slots = tuple(slot for slot in slots if slot.name in self._places)
        found = dict.fromkeys(file for file, _ in self._places.values())
        self.files = tuple(SourceFile(file.name, file) for file in found)
        for file in found:
            self._opened[file] = open_foreign_hdf5(file)

    def keys(self) -> list[str]:
        found: set[str] = set()
        for file, inner in self._places.values():
            before, after = _split(inner)
            names = group_names(self._opened[file], before)
            found.update(
                n for n in names if _may_be_dataset(self._opened[file], before + n + after)
            )
        return sorted(found)

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        for slot, (file, inner) in self._places.items():
            path = inner.replace(_KEY, key)
            try:
                rows = read_if_there(self._opened[file], path)
                if rows is not None:
                    sample.rows[slot] = rows
            except ForeignArrayError as error:
                sample.problems[slot] = str(error)
        return sample

    def close(self) -> None:
        for file in self._opened.values():
            file.close()


class Hdf5VideoTarget(Target):
    """Contiguity is given up for a Fletcher-32 checksum of each dataset: one chunk a video."""

    def __init__(self, plan: ExportPlan) -> None:
        self._plan = plan
        self._files: dict[str, Hdf5File] = {}
        self._paths: dict[str, tuple[str, str]] = {}
        self._num_rows: dict[tuple[str, str], tuple[int, ...]] = {}
        for slot in plan.slots:
            name, _, inner = slot.places[0].partition(":")
            self._paths[slot.name] = (name, inner)
            if name not in self._files:
                facts = {"vlpipe_export": {"identity": plan.identity, "layout": plan.layout}}
                self._files[name] = Hdf5File(plan.folder / name, facts)

    def add(
        self,
        key: str,
        slot: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: Facts,
    ) -> None:
        del spans, facts
        name, inner = self._paths[slot]
        path = inner.replace(_KEY, key)
        try:
            write_checked(self._files[name].handle, path, rows)
        except (OSError, RuntimeError) as error:
            raise unwritable(self._files[name].path, as_os_error(error)) from error
        self._num_rows[name, path] = rows.shape

    def link(self, key: str, slot: str, place: RowPlace) -> None:
        name, inner = self._paths[slot]
        path = inner.replace(_KEY, key)
        num_bytes = np.dtype(place.dtype).itemsize * int(np.prod(place.shape))
        try:
            self._files[name].handle.create_dataset(
                path,
                shape=place.shape,
                dtype=place.dtype,
                external=[(str(place.path), place.offset, num_bytes)],
            )
        except (OSError, RuntimeError) as error:
            raise unwritable(self._files[name].path, as_os_error(error)) from error
        self._num_rows[name, path] = place.shape

    def finish(self) -> list[Path]:
        for (name, path), shape in self._num_rows.items():
            found = self._files[name].handle[path].shape
            if found != shape:
                raise StoreDamaged(
                    f"{self._files[name].path}:{path} has the shape {found}, expected {shape}"
                )
        return finish_all(self._files.values())

    def abandon(self) -> None:
        for file in self._files.values():
            file.abandon()


def write_checked(group: Any, path: str, rows: npt.NDArray[Any]) -> None:  # noqa: ANN401
    """A dataset with a checksum that any HDF5 library compares; one chunk, so one read."""
    is_chunked = rows.size > 0 and rows.nbytes < 2**32
    group.create_dataset(
        path, data=rows, chunks=rows.shape if is_chunked else None, fletcher32=is_chunked
    )


def finish_all(files: Iterable[Hdf5File]) -> list[Path]:
    """Gives all files their names, one right after the other."""
    return [file.finish() for file in files]


def as_os_error(error: Exception) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))


def find_file(path: Path, name: str) -> Path | None:
    """The file of that name at or below a folder; a file given by itself is the only one."""
    if path.is_file():
        return path
    direct = path / name
    if direct.is_file():
        return direct
    found = sorted(path.rglob(Path(name).name))
    return found[0] if found else None


def _may_be_dataset(file: Any, path: str) -> bool:  # noqa: ANN401
    """Whether a video is to be read from there; what is refused gives its reason then."""
    try:
        return has_dataset(file, path)
    except ForeignArrayError:
        return True


def _split(inner: str) -> tuple[str, str]:
    before, _, after = inner.partition(_KEY)
    return before, after
