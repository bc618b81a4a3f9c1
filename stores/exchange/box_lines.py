"""Regions of frames in tab-separated lines, as bottom-up attention writes them.

A line is image_id, image_w, image_h, num_boxes, boxes, features, without a header; the last two are
base64 of float32 little-endian arrays (n, 4) and (n, 2048). A frame of a video is `VIDEO/FRAME`.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import Container, Sample, Source, SourceFile, require_path
from vlpipe.stores.exchange.layout import ANY, Slot
from vlpipe.stores.foreign_arrays import ForeignArrayError

NUM_COLUMNS = 6
_MAX_LINE_BYTES = 64 << 20  # 100 boxes of 2048 numbers are 1.1 MB in base64
_MAX_NAMED = 20


class BoxLines(Container):
    """Places are column names: they only say which array a slot is."""

    def check_place(self, slot: str, place: str) -> None:
        raise UsageError(f"the columns of this layout are fixed: {slot}={place} cannot be set")

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "BoxLineSource":
        del raw_dtype
        return BoxLineSource(path, slots)


@dataclass(frozen=True, slots=True)
class _Frame:
    name: str
    path: Path
    offset: int
    num_bytes: int


class BoxLineSource(Source):
    """One file, or all *.tsv of a folder. A first pass notes where the lines of each video are."""

    def __init__(self, path: Path, slots: Sequence[Slot]) -> None:
        require_path(path, "TSV file or folder of them")
        paths = sorted(path.glob("*.tsv")) if path.is_dir() else [path]
        if not paths:
            raise UsageError(f"{path} has no *.tsv")
        self.files = tuple(SourceFile(file.name, file) for file in paths)
        self.slots = tuple(slots)
        self._num_boxes = fixed_number(slots)
        self._frames: dict[str, list[_Frame]] = {}
        self._left_out: list[str] = []
        for file in paths:
            self._list(file)
        more = len(self._left_out) - _MAX_NAMED
        tail = (f"and {more} more lines",) if more > 0 else ()
        self.left_out = (*self._left_out[:_MAX_NAMED], *tail)

    def keys(self) -> list[str]:
        return sorted(self._frames)

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        frames = sorted(self._frames[key], key=lambda frame: frame_order(frame.name))
        try:
            names = [frame.name for frame in frames]
            if len(set(names)) != len(names):
                raise ForeignArrayError("a frame is there twice")  # noqa: TRY301
            read = [_read_frame(frame) for frame in frames]
            arrays = _stack(read, self._num_boxes or max(len(boxes) for boxes, *_ in read))
        except (ForeignArrayError, OSError) as error:
            for slot in self.slots:
                sample.problems[slot.name] = f"{frames[0].path}, frames of {key!r}: {error}"
            return sample
        sample.rows = {slot.name: arrays[slot.places[0]] for slot in self.slots}
        return sample

    def _list(self, path: Path) -> None:
        offset = number = 0
        with path.open("rb") as stream:
            while line := stream.readline(_MAX_LINE_BYTES):
                number += 1
                name, tab, _ = line[:4096].partition(b"\t")
                text = name.decode("utf-8", "backslashreplace")
                if not line.endswith(b"\n") and len(line) == _MAX_LINE_BYTES:
                    raise UsageError(f"{path}, line {number}: the line is longer than 64 MiB")
                if not tab or not text:
                    self._left_out.append(f"{path.name}, line {number}: no image_id")
                else:
                    video, _, frame = text.rpartition("/")
                    # Without a slash each image is a video of one frame.
                    self._frames.setdefault(video or frame, []).append(
                        _Frame(frame, path, offset, len(line))
                    )
                offset += len(line)


def _read_frame(
    frame: _Frame,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], tuple[float, float]]:
    """Boxes [n, 4] in pixels, features [n, D] and the size of the picture."""
    with frame.path.open("rb") as stream:
        stream.seek(frame.offset)
        fields = stream.read(frame.num_bytes).rstrip(b"\r\n").split(b"\t")
    where = f"frame {frame.name!r}"
    if len(fields) != NUM_COLUMNS:
        raise ForeignArrayError(f"{where} has {len(fields)} columns, expected {NUM_COLUMNS}")
    try:
        width, height, number = (float(field) for field in fields[1:4])
        boxes, features = (
            np.frombuffer(base64.b64decode(field, validate=True), "<f4") for field in fields[4:6]
        )
    except (ValueError, binascii.Error) as error:
        raise ForeignArrayError(f"{where}: {error}") from None
    n = int(number)
    if n < 0 or width <= 0 or height <= 0:
        raise ForeignArrayError(f"{where} has {n} boxes in {width} x {height} pixels")
    if boxes.size != 4 * n or (n and features.size % n) or (not n and features.size):
        raise ForeignArrayError(
            f"{where} says {n} boxes, but has {boxes.size} corners and {features.size} numbers"
        )
    return boxes.reshape(n, 4), features.reshape(n, -1) if n else features, (width, height)


def _stack(
    frames: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], tuple[float, float]]],
    num_boxes: int,
) -> dict[str, npt.NDArray[Any]]:
    """Arrays [T, B, ...]; frames with fewer boxes end with zeros."""
    widths = {features.shape[1] for boxes, features, _ in frames if len(boxes)}
    if len(widths) != 1:
        raise ForeignArrayError(
            f"features have {sorted(widths) or 'no'} numbers a box, expected one width"
        )
    most = max(len(boxes) for boxes, *_ in frames)
    if most > num_boxes:
        raise ForeignArrayError(f"a frame has {most} boxes, and rows are for {num_boxes}")
    width = widths.pop()
    arrays: dict[str, npt.NDArray[Any]] = {
        "features": np.zeros((len(frames), num_boxes, width), np.float32),
        "boxes": np.zeros((len(frames), num_boxes, 4), np.float32),
        "spatial": np.zeros((len(frames), num_boxes, 6), np.float32),
        "num_boxes": np.zeros((len(frames), 1), np.int32),
    }
    for t, (boxes, features, size) in enumerate(frames):
        n = len(boxes)
        if n:
            arrays["features"][t, :n] = features
            arrays["boxes"][t, :n] = boxes
            arrays["spatial"][t, :n] = spatial_numbers(boxes, *size)
        arrays["num_boxes"][t] = n
    return arrays


def spatial_numbers(
    boxes: npt.NDArray[np.float32], width: float, height: float
) -> npt.NDArray[np.float32]:
    """[n, 6] from boxes (x0, y0, x1, y1) [n, 4] in pixels: corners, width and height as shares of
    the picture (MASN, feature files)."""
    shares = boxes / np.array([width, height, width, height], np.float32)
    return np.concatenate([shares, shares[:, 2:] - shares[:, :2]], axis=1)


def fixed_number(slots: Sequence[Slot]) -> int | None:
    """How many boxes a row holds, where the user said so."""
    for slot in slots:
        if slot.row_shape is not None and len(slot.row_shape) == 2 and slot.row_shape[0] != ANY:
            return slot.row_shape[0]
    return None


def frame_order(name: str) -> tuple[int, str]:
    """Numbers by value, all else by text."""
    digits = "".join(char for char in name if char.isdecimal())
    return (int(digits) if digits else -1, name)
