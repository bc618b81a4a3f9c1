"""Files of boxes, one for each video: found, hashed, read and checked.

See `extractors/given_boxes.py` for what they hold. They are data of others: read without pickle,
within limits, and looked up among the names of the folder.
"""

import hashlib
import json
import zipfile
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.weights.checkpoint import sha256_of

_SUFFIXES = (".npz", ".json")
_MAX_BYTES = 256 * 2**20
_FORM = "expected boxes (N, 4), labels (N,), and seconds or frames (N,)"


@dataclass(frozen=True, slots=True)
class TimedBoxes:
    """The boxes of a video by time.

    times: rising; seconds, or numbers of source frames. boxes: float32 (n, 4), and labels: int32
    (n,), of each time.
    """

    is_numbered: bool
    times: tuple[float, ...]
    boxes: tuple[npt.NDArray[np.float32], ...]
    labels: tuple[npt.NDArray[np.int32], ...]

    def near(self, time: float, within: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Boxes and labels of the nearest time, none if it is further away than `within`."""
        place = bisect_left(self.times, time)
        candidates = [n for n in (place - 1, place) if 0 <= n < len(self.times)]
        best = min(candidates, key=lambda n: abs(self.times[n] - time), default=None)
        if best is None or abs(self.times[best] - time) > within + 1e-6:
            return np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
        return self.boxes[best], self.labels[best]


def sha256_of_folder(folder: Path) -> str:
    """Hex SHA-256 over the names and contents of its .npz and .json files.

    ValueError if there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(f"folder: {folder} is not there, or no folder")
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in _SUFFIXES and path.is_file():
            digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def find_file(folder: Path, video: str) -> Path:
    """The file of a video; MediaError if there is none, or both kinds.

    Looked up among the names in the folder, so that no name of a video leads out of it.
    """
    wanted = [Path(video).stem + suffix for suffix in _SUFFIXES]
    found = [path for path in folder.iterdir() if path.name in wanted and path.is_file()]
    if len(found) == 1:
        return found[0]
    what = "has no boxes" if not found else "has boxes in two files"
    raise MediaError(
        "missing",
        f"{video} {what}: looked for {' or '.join(wanted)} in {folder}",
        hint="a video without objects needs a file with empty arrays",
    )


def read_boxes(path: Path, max_boxes: int) -> TimedBoxes:
    """The boxes of one file; MediaError names the file, and the row that is wrong."""
    try:
        arrays = _read_npz(path) if path.suffix == ".npz" else _read_json(path)
        return _timed(arrays, max_boxes)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        what = f"there is no array {error}" if isinstance(error, KeyError) else str(error)
        raise MediaError("damaged", f"{path}: {what}", hint=_FORM) from error


def _read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MAX_BYTES:
            raise ValueError(f"unpacks to more than {_MAX_BYTES:,} bytes")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return {name: np.asarray(arrays[name]) for name in arrays.files}


def _read_json(path: Path) -> dict[str, npt.NDArray[Any]]:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"has more than {_MAX_BYTES:,} bytes")
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(f"holds a {type(content).__name__}")
    return {name: np.asarray(values) for name, values in content.items()}


def _timed(arrays: Mapping[str, npt.NDArray[Any]], max_boxes: int) -> TimedBoxes:
    is_numbered = "frames" in arrays
    if is_numbered == ("seconds" in arrays):
        raise ValueError(f"found the arrays {', '.join(arrays) or 'none'}")
    times = arrays["frames" if is_numbered else "seconds"].astype(np.float64)
    boxes, labels = arrays["boxes"].astype(np.float32), arrays["labels"]
    if not len(boxes):
        boxes, labels = boxes.reshape(0, 4), labels.reshape(0).astype(np.int64)
    if boxes.shape != (len(boxes), 4) or not len(boxes) == labels.size == times.size:
        shapes = (a.shape for a in (boxes, labels, times))
        raise ValueError("boxes, labels and times have the shapes {}, {} and {}".format(*shapes))
    if labels.dtype.kind not in "iu" or (len(labels) and np.abs(labels).max() >= 2**31):
        raise ValueError(f"labels are {labels.dtype}, not 32-bit integers")
    for what, is_bad in (
        ("is not finite", ~np.isfinite(np.column_stack([boxes, times])).all(axis=1)),
        ("has x2 < x1 or y2 < y1", (boxes[:, 2:] < boxes[:, :2]).any(axis=1)),
    ):
        if is_bad.any():
            row = int(is_bad.argmax())
            raise ValueError(f"row {row} {what}: {boxes[row].tolist()} at {times[row]}")
    order = np.argsort(times, kind="stable")
    different, firsts = np.unique(times[order], return_index=True)
    places = np.split(order, firsts[1:]) if len(order) else []
    for time, rows in zip(different, places, strict=True):
        if len(rows) > max_boxes:
            raise ValueError(f"{len(rows)} boxes at {time:g}, more than max_boxes={max_boxes}")
    return TimedBoxes(
        is_numbered,
        tuple(different.tolist()),
        tuple(boxes[rows] for rows in places),
        tuple(labels[rows].astype(np.int32) for rows in places),
    )
