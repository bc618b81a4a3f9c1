"""HDF5 with one array of all videos, padded to the same number of rows: (N, T, ...), and ids."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import (
    Container,
    ExportPlan,
    Facts,
    Sample,
    Source,
    SourceFile,
    Target,
    check_within_folder,
    require_path,
)
from vlpipe.stores.exchange.hdf5_files import Hdf5File, unwritable
from vlpipe.stores.exchange.hdf5_videos import as_os_error, find_file, finish_all
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.foreign_arrays import ForeignArrayError
from vlpipe.stores.foreign_hdf5 import (
    find_dataset,
    has_dataset,
    import_h5py,
    open_foreign_hdf5,
    read_dataset,
    read_names,
)

IDS, LENGTHS = "/ids", "/lengths"


class Hdf5Padded(Container):
    """Places are `FILE:/ARRAY`. The file also has `/ids` (N,) and, as we write it, `/lengths` (N,):
    without lengths, rows of zeros at the padded end are taken for padding."""

    holds_empty = True

    def check_place(self, slot: str, place: str) -> None:
        name, colon, path = place.partition(":")
        if not name or not colon or path in ("", "/", IDS, LENGTHS):
            raise UsageError(
                f"the place {place!r} of {slot!r} is not FILE:/ARRAY",
                hint=f"for instance --place '{slot}=features.hdf5:/features'",
            )
        check_within_folder(slot, place, name)

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "Hdf5PaddedSource":
        del raw_dtype
        return Hdf5PaddedSource(path, slots)

    def create(self, plan: ExportPlan) -> "Hdf5PaddedTarget":
        return Hdf5PaddedTarget(plan)


class Hdf5PaddedSource(Source):
    def __init__(self, path: Path, slots: Sequence[Slot]) -> None:
        require_path(path, "HDF5 file or folder of them")
        self._arrays: dict[str, tuple[Slot, Any, dict[str, int], npt.NDArray[Any] | None]] = {}
        self._opened: dict[Path, Any] = {}
        for slot in slots:
            name, _, inner = slot.places[0].partition(":")
            file = find_file(path, name)
            if file is None:
                continue
            if file not in self._opened:
                self._opened[file] = open_foreign_hdf5(file)
            try:
                self._arrays[slot.name] = _open_array(slot, self._opened[file], inner)
            except ForeignArrayError as error:
                raise UsageError(f"{file} is not of this layout: {error}") from None
        if not self._arrays:
            raise UsageError(
                f"{path} has none of the files {', '.join(slot.places[0] for slot in slots)}"
            )
        self.slots = tuple(slot for slot in slots if slot.name in self._arrays)
        self.files = tuple(SourceFile(file.name, file) for file in self._opened)

    def keys(self) -> list[str]:
        return sorted({key for _, _, numbers, _ in self._arrays.values() for key in numbers})

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        for name, (slot, array, numbers, lengths) in self._arrays.items():
            if key not in numbers:
                continue
            number = numbers[key]
            try:
                rows = np.asarray(array[number])
            except (OSError, RuntimeError) as error:
                sample.problems[name] = f"{array.file.filename}:{array.name}[{number}]: {error}"
                continue
            length = _length(rows, slot) if lengths is None else int(lengths[number])
            if not 0 <= length <= len(rows):
                sample.problems[name] = (
                    f"{array.file.filename}:{LENGTHS}[{number}] is {length}, expected 0 to "
                    f"{len(rows)}"
                )
                continue
            sample.rows[name] = (
                rows[len(rows) - length :] if slot.pad_side == "left" else rows[:length]
            )
        return sample

    def close(self) -> None:
        for file in self._opened.values():
            file.close()


class Hdf5PaddedTarget(Target):
    def __init__(self, plan: ExportPlan) -> None:
        self._files: dict[str, Hdf5File] = {}
        self._arrays: dict[str, tuple[Slot, Any, dict[str, int], Any]] = {}
        for slot in plan.slots:
            if slot.pad_rows is None:
                raise UsageError(
                    f"nothing says to how many rows {slot.name!r} is padded",
                    hint=f"--pad {slot.name}=40",
                )
            name, _, inner = slot.places[0].partition(":")
            keys = list(plan.num_rows[slot.name])
            if name in self._files and keys != list(next(iter(plan.num_rows.values()))):
                raise UsageError(
                    f"slots of {name} have different videos, which share one /ids",
                    hint="--id names the videos that have all of them",
                )
            if name not in self._files:
                self._files[name] = _new_file(plan, name, keys)
            array = self._files[name].handle.create_dataset(
                inner,
                shape=(len(keys), slot.pad_rows, *plan.row_shapes[slot.name]),
                dtype=plan.dtypes[slot.name],
                chunks=(1, slot.pad_rows, *plan.row_shapes[slot.name]) if keys else None,
                fletcher32=bool(keys),
            )
            numbers = {key: n for n, key in enumerate(keys)}
            self._arrays[slot.name] = (slot, array, numbers, self._files[name].handle[LENGTHS])

    def add(
        self,
        key: str,
        slot: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: Facts,
    ) -> None:
        del spans, facts
        layout_slot, array, numbers, lengths = self._arrays[slot]
        size = array.shape[1]
        if len(rows) > size:
            rows = (
                rows[even_rows(len(rows), size)] if layout_slot.surplus == "even" else rows[:size]
            )
        padded = np.zeros(array.shape[1:], array.dtype)  # [T, *row_shape]
        if layout_slot.pad_side == "left":
            padded[size - len(rows) :] = rows
        else:
            padded[: len(rows)] = rows
        try:
            array[numbers[key]] = padded
            lengths[numbers[key]] = len(rows)
        except (OSError, RuntimeError) as error:
            raise unwritable(Path(array.file.filename), as_os_error(error)) from error

    def finish(self) -> list[Path]:
        return finish_all(self._files.values())

    def abandon(self) -> None:
        for file in self._files.values():
            file.abandon()


def even_rows(num_rows: int, size: int) -> npt.NDArray[np.int64]:
    """[size] numbers of evenly spaced rows, floor(i * num_rows / size) (JSFusion, inputs)."""
    return np.arange(size, dtype=np.int64) * num_rows // size


def _new_file(plan: ExportPlan, name: str, keys: Sequence[str]) -> Hdf5File:
    facts = {"vlpipe_export": {"identity": plan.identity, "layout": plan.layout}}
    file = Hdf5File(plan.folder / name, facts)
    text = import_h5py().string_dtype("utf-8")
    file.handle.create_dataset(IDS, data=list(keys), dtype=text, shape=(len(keys),))
    file.handle.create_dataset(LENGTHS, shape=(len(keys),), dtype="int32")
    return file


def _open_array(
    slot: Slot,
    file: Any,  # noqa: ANN401
    inner: str,
) -> tuple[Slot, Any, dict[str, int], npt.NDArray[Any] | None]:
    array = find_dataset(file, inner)
    if array.ndim < 2:
        raise ForeignArrayError(f"{inner} has the shape {array.shape}, expected (N, T, ...)")
    ids = read_names(file, IDS)
    if len(ids) != len(array):
        raise ForeignArrayError(f"{IDS} has {len(ids)} names for {len(array)} videos")
    numbers = {key: n for n, key in enumerate(ids)}
    if len(numbers) != len(ids):
        raise ForeignArrayError(f"{IDS} names a video twice")
    lengths = read_dataset(file, LENGTHS) if has_dataset(file, LENGTHS) else None
    if lengths is not None and lengths.shape != (len(ids),):
        raise ForeignArrayError(f"{LENGTHS} has the shape {lengths.shape}, expected ({len(ids)},)")
    return slot, array, numbers, lengths


def _length(rows: npt.NDArray[Any], slot: Slot) -> int:
    """Rows without the zeros at the padded end."""
    used = np.flatnonzero(rows.reshape(len(rows), -1).any(axis=1))
    if not len(used):
        return 0
    return len(rows) - int(used[0]) if slot.pad_side == "left" else int(used[-1]) + 1
