"""HDF5 with the boxes of all frames one after the other, and where those of each frame are.

    /image_features (boxes, D)   /image_bb (boxes, 4)   /spatial_features (boxes, 6)   float32
    /pos_boxes (frames, 2) int32, the half-open range of boxes of each frame
    /ids (frames,) text, `VIDEO/FRAME`

The published converter keeps the names of frames in a pickle, which is not read: `/ids`, or a JSON
file beside the HDF5 file with the same name and the suffix `.json` that maps `VIDEO/FRAME` to the
row of `pos_boxes`, takes its place.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.box_lines import fixed_number, frame_order
from vlpipe.stores.exchange.container import (
    Container,
    ExportPlan,
    Facts,
    Sample,
    Source,
    SourceFile,
    Target,
    check_within_folder,
    plain_name_problem,
    require_path,
)
from vlpipe.stores.exchange.hdf5_files import Hdf5File, unwritable
from vlpipe.stores.exchange.hdf5_videos import as_os_error, find_file
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

POSITIONS, IDS = "/pos_boxes", "/ids"
NUM_BOXES = "num_boxes"  # the slot that says how many boxes of a row are real
_CHUNK_BYTES = 1 << 20
_MAX_TABLE_BYTES = 1 << 30


class Hdf5Boxes(Container):
    """Places are `FILE:/ARRAY`, all in one file; that of `num_boxes` is `FILE:/pos_boxes`."""

    shares_rows = True

    def check_place(self, slot: str, place: str) -> None:
        name, colon, path = place.partition(":")
        if not name or not colon or not path.strip("/"):
            raise UsageError(f"the place {place!r} of {slot!r} is not FILE:/ARRAY")
        check_within_folder(slot, place, name)

    def check_key(self, key: str) -> str | None:
        return plain_name_problem(key)

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "Hdf5BoxSource":
        del raw_dtype
        return Hdf5BoxSource(path, slots)

    def create(self, plan: ExportPlan) -> "Hdf5BoxTarget":
        return Hdf5BoxTarget(plan)


class Hdf5BoxSource(Source):
    def __init__(self, path: Path, slots: Sequence[Slot]) -> None:
        require_path(path, "HDF5 file")
        name = slots[0].places[0].partition(":")[0]
        file = find_file(path, name)
        if file is None:
            raise UsageError(f"{path} has no file {name}", hint="--from FILE.hdf5")
        self.files = (SourceFile(file.name, file),)
        self._file = open_foreign_hdf5(file)
        try:
            self._positions = _read_positions(self._file)
            names = _frame_names(self._file, file, len(self._positions))
            self._arrays = {
                slot.name: find_dataset(self._file, inner)
                for slot in slots
                if slot.name != NUM_BOXES
                and has_dataset(self._file, inner := slot.places[0].partition(":")[2])
            }
        except ForeignArrayError as error:
            self._file.close()
            raise UsageError(f"{file} is not of this layout: {error}") from None
        self.slots = tuple(s for s in slots if s.name in self._arrays or s.name == NUM_BOXES)
        counts = self._positions[:, 1] - self._positions[:, 0]
        self._num_boxes = fixed_number(slots) or int(counts.max(initial=1))
        self._frames: dict[str, list[tuple[str, int]]] = {}
        for number, text in enumerate(names):
            video, _, frame = text.rpartition("/")
            self._frames.setdefault(video or frame, []).append((frame, number))

    def keys(self) -> list[str]:
        return sorted(self._frames)

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        frames = sorted(self._frames[key], key=lambda frame: frame_order(frame[0]))
        ranges = self._positions[[number for _, number in frames]]
        counts = ranges[:, 1] - ranges[:, 0]
        sample.rows[NUM_BOXES] = counts[:, None].astype(np.int32)
        most = int(counts.max(initial=0))
        for slot, array in self._arrays.items():
            try:
                if most > self._num_boxes:
                    raise ForeignArrayError(  # noqa: TRY301
                        f"a frame has {most} boxes, and rows are for {self._num_boxes}"
                    )
                if (counts < 0).any() or (ranges < 0).any() or (ranges[:, 1] > len(array)).any():
                    raise ForeignArrayError(f"{POSITIONS} leads out of {array.name}")  # noqa: TRY301
                rows = np.zeros((len(frames), self._num_boxes, *array.shape[1:]), array.dtype)
                for t, (begin, end) in enumerate(ranges.tolist()):
                    rows[t, : end - begin] = array[begin:end]  # [B, D]
                sample.rows[slot] = rows
            except (ForeignArrayError, OSError, RuntimeError) as error:
                sample.problems[slot] = f"{self.files[0].path}, frames of {key!r}: {error}"
        return sample

    def close(self) -> None:
        self._file.close()


class Hdf5BoxTarget(Target):
    """Grows its arrays as videos come; `num_boxes`, where it is exported, comes first."""

    def __init__(self, plan: ExportPlan) -> None:
        names = {slot.places[0].partition(":")[0] for slot in plan.slots}
        if len(names) != 1:
            raise UsageError(f"the arrays of this layout are one file, not {sorted(names)}")
        facts = {"vlpipe_export": {"identity": plan.identity, "layout": plan.layout}}
        self._file = Hdf5File(plan.folder / names.pop(), facts)
        handle = self._file.handle
        self._arrays = {}
        for slot in plan.slots:
            if slot.name == NUM_BOXES:
                continue
            inner = slot.places[0].partition(":")[2]
            width = plan.row_shapes[slot.name][1:]
            row_bytes = np.dtype(plan.dtypes[slot.name]).itemsize * int(np.prod(width))
            self._arrays[slot.name] = handle.create_dataset(
                inner,
                shape=(0, *width),
                maxshape=(None, *width),
                dtype=plan.dtypes[slot.name],
                chunks=(max(_CHUNK_BYTES // row_bytes, 1), *width),
                fletcher32=True,
            )
        if not self._arrays:
            raise UsageError("this layout needs image_features, image_bb or spatial_features")
        self._lead = next(iter(self._arrays))
        text = import_h5py().string_dtype("utf-8")
        self._positions = handle.create_dataset(
            POSITIONS, shape=(0, 2), maxshape=(None, 2), dtype="int32", fletcher32=True
        )
        self._ids = handle.create_dataset(IDS, shape=(0,), maxshape=(None,), dtype=text)
        self._counts: tuple[str, npt.NDArray[np.int64]] | None = None

    def add(
        self,
        key: str,
        slot: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: Facts,
    ) -> None:
        del spans, facts
        if slot == NUM_BOXES:
            self._counts = (key, rows.reshape(-1).astype(np.int64))
            return
        if self._counts is not None and self._counts[0] == key:
            counts = np.minimum(self._counts[1], rows.shape[1])
        else:
            counts = np.full(len(rows), rows.shape[1])
        is_kept = np.arange(rows.shape[1]) < counts[:, None]  # [T, B]
        try:
            if slot == self._lead:
                begin = len(self._arrays[slot])
                ends = begin + np.cumsum(counts)
                _append(self._positions, np.stack([ends - counts, ends], axis=1))
                _append(self._ids, [f"{key}/{t}" for t in range(len(rows))])
            _append(self._arrays[slot], rows[is_kept])  # [boxes, D]
        except (OSError, RuntimeError) as error:
            raise unwritable(self._file.path, as_os_error(error)) from error

    def finish(self) -> list[Path]:
        lengths = {name: len(array) for name, array in self._arrays.items()}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"{self._file.path}: slots have different numbers of boxes: {lengths}")
        return [self._file.finish()]

    def abandon(self) -> None:
        self._file.abandon()


def _append(array: Any, values: Any) -> None:  # noqa: ANN401
    before = len(array)
    array.resize(before + len(values), axis=0)
    if len(values):
        array[before:] = values


def _read_positions(file: Any) -> npt.NDArray[np.int64]:  # noqa: ANN401
    positions = read_dataset(file, POSITIONS)
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iu":
        raise ForeignArrayError(f"{POSITIONS} is {positions.shape} {positions.dtype}")
    return positions.astype(np.int64)


def _frame_names(file: Any, path: Path, num_frames: int) -> list[str]:  # noqa: ANN401
    if has_dataset(file, IDS):
        names = read_names(file, IDS)
    else:
        names = _names_in_json(path.with_suffix(".json"), num_frames)
    if len(names) != num_frames:
        raise ForeignArrayError(f"{len(names)} names for {num_frames} frames")
    return names


def _names_in_json(path: Path, num_frames: int) -> list[str]:
    if not path.is_file() or path.stat().st_size > _MAX_TABLE_BYTES:
        raise ForeignArrayError(f"it has no dataset {IDS}, and there is no {path.name} beside it")
    try:
        table: Mapping[str, int] = json.loads(path.read_text("utf-8"))
        names = [""] * num_frames
        for name, number in table.items():
            names[number] = name
    except (ValueError, AttributeError, TypeError, IndexError, RecursionError) as error:
        raise ForeignArrayError(f"{path} does not map frames to rows: {error}") from None
    return [name or f"unnamed/{n}" for n, name in enumerate(names)]
