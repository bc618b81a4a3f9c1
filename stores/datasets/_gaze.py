"""Tables of where people looked in clips, as typed rows; Parquet or TSV.

gaze    dataset, clip, subject, time_s, x, y, valid: a row for each sample of a recording. time_s
        counts from the start of the media file; x and y are pixels of the clip, 0 the centre of
        the first one; valid is true or false (1 or 0). Where it is false, x and y are not read.
clips   dataset, clip, width, height, split: a row for each clip, its size in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlpipe.stores.datasets._ids import shown_id
from vlpipe.stores.datasets._tables import read_table
from vlpipe.stores.errors import AnnotationError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

GAZE_COLUMNS = ("dataset", "clip", "subject", "time_s", "x", "y", "valid")
CLIP_COLUMNS = ("dataset", "clip", "width", "height", "split")
_NAMES, _NUMBERS = GAZE_COLUMNS[:3], GAZE_COLUMNS[3:6]
_KINDS = dict.fromkeys(_NAMES, "texts or whole numbers")
_KINDS |= dict.fromkeys(_NUMBERS, "numbers") | {"valid": "true and false, or 1 and 0"}
_TRUTH = {"1": True, "true": True, "0": False, "false": False}
_LEAST_EDGE = 2  # pixels are scaled by the distance of the outermost ones


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip as its table describes it; split is empty where none is given."""

    line: int
    dataset: str
    video_id: str
    width: int
    height: int
    split: str


@dataclass(frozen=True, slots=True, eq=False)
class GazeClip:
    """A clip and what was recorded while people watched it.

    width, height: in pixels. Of the S valid samples on the frame, by rising time: subject int32
    (S,), a number for each person; time_s float64 (S,); xy float64 (S, 2), pixels.
    """

    dataset: str
    video_id: str
    split: str
    width: int
    height: int
    subject: "npt.NDArray[np.int32]"
    time_s: "npt.NDArray[np.float64]"
    xy: "npt.NDArray[np.float64]"


@dataclass(frozen=True, slots=True, eq=False)
class GazeRows:
    """All R rows of a table, by column.

    path, unit, place: where each came from: `line` 7 of a TSV, `row` 7 of a Parquet table.
    names: column -> the texts that it holds; dataset, clip, subject: int32 (R,), which of them.
    """

    path: Path
    unit: Literal["line", "row"]
    place: "npt.NDArray[np.int64]"
    names: dict[str, list[str]]
    dataset: "npt.NDArray[np.int32]"
    clip: "npt.NDArray[np.int32]"
    subject: "npt.NDArray[np.int32]"
    time_s: "npt.NDArray[np.float64]"
    x: "npt.NDArray[np.float64]"
    y: "npt.NDArray[np.float64]"
    valid: "npt.NDArray[np.bool_]"

    def __len__(self) -> int:
        return len(self.place)


def read_clips(path: Path) -> list[ClipRow]:
    """The rows of a table of clips; an AnnotationError names the line and column of a bad one."""
    rows: list[ClipRow] = []
    seen: dict[str, int] = {}
    for row in read_table(path, CLIP_COLUMNS):
        if row.problem is not None:
            raise AnnotationError(str(row.problem))
        dataset, clip, *edges, split = row.values
        for column, text in (("dataset", dataset), ("clip", clip)):
            if not text:
                raise _wrong(path, "line", row.line, column, text, "a name")
        if clip in seen:
            raise AnnotationError(
                f"{path}, line {row.line}, column clip: {shown_id(clip)!r} stands in line "
                f"{seen[clip]} already; expected each clip once, also among several datasets"
            )
        seen[clip] = row.line
        for column, text in zip(("width", "height"), edges, strict=True):
            if not (text.isascii() and text.isdecimal() and int(text) >= _LEAST_EDGE):
                raise _wrong(path, "line", row.line, column, text, "a number of pixels, 2 or more")
        width, height = map(int, edges)
        rows.append(ClipRow(row.line, dataset, clip, width, height, split))
    return rows


def read_gaze(path: Path) -> GazeRows:
    """The rows of a gaze table. An AnnotationError names file, column and row of what is absent,
    not a number, or neither true nor false."""
    rows = _of_parquet(path) if path.suffix == ".parquet" else _of_tsv(path)
    import numpy as np

    _require(rows, "time_s", np.isfinite(rows.time_s) & (rows.time_s >= 0), "seconds, 0 or more")
    for column, values in (("x", rows.x), ("y", rows.y)):
        is_right = np.isfinite(values) | ~rows.valid
        _require(rows, column, is_right, "pixels where valid is true")
    return rows


def gaze_of_clips(rows: GazeRows, clips: Sequence[ClipRow], table: Path) -> dict[str, GazeClip]:
    """The recordings of each clip that has any, by its id, in the order of `clips`.

    A sample beside the frame is no fixation of it and left out. table: where the clips come from.
    An AnnotationError names the first row about a clip that is not among them.
    """
    import numpy as np

    datasets = {name: number for number, name in enumerate(rows.names["dataset"])}
    known = {clip.video_id: clip for clip in clips}
    found = [known.get(name) for name in rows.names["clip"]]
    expected = np.array([-1 if c is None else datasets.get(c.dataset, -1) for c in found], np.int32)
    is_known = expected[rows.clip] == rows.dataset
    if not is_known.all():
        n = int(np.flatnonzero(~is_known)[0])
        clip, dataset = rows.names["clip"][rows.clip[n]], rows.names["dataset"][rows.dataset[n]]
        raise AnnotationError(
            f"{rows.path}, {rows.unit} {rows.place[n]}, column clip: {table.name} has no clip "
            f"{shown_id(clip)!r} of dataset {shown_id(dataset)!r}",
            hint=f"each clip needs a row in {table}: {', '.join(CLIP_COLUMNS)}",
        )
    edges = np.array([(0, 0) if c is None else (c.width, c.height) for c in found])
    edges = edges.reshape(-1, 2)[rows.clip]
    xy = np.stack([rows.x, rows.y], axis=1)
    with np.errstate(invalid="ignore"):
        is_on_frame = ((xy >= -0.5) & (xy < edges - 0.5)).all(axis=1)
    kept = np.flatnonzero(rows.valid & is_on_frame)
    kept = kept[np.lexsort((rows.time_s[kept], rows.clip[kept]))]
    bounds = np.searchsorted(rows.clip[kept], np.arange(len(found) + 1))
    subject, time_s, xy = rows.subject[kept], rows.time_s[kept], xy[kept]
    codes = {name: code for code, name in enumerate(rows.names["clip"])}
    gaze = {}
    for clip_row in clips:
        if clip_row.video_id not in codes:
            continue
        code = codes[clip_row.video_id]
        own = slice(int(bounds[code]), int(bounds[code + 1]))
        if own.start < own.stop:
            gaze[clip_row.video_id] = GazeClip(
                clip_row.dataset, clip_row.video_id, clip_row.split, clip_row.width,
                clip_row.height, subject[own], time_s[own], xy[own],
            )  # fmt: skip
    return gaze


def _of_tsv(path: Path) -> GazeRows:
    import numpy as np

    codes: dict[str, dict[str, int]] = {name: {} for name in _NAMES}
    named: dict[str, list[int]] = {name: [] for name in _NAMES}
    numbers: dict[str, list[float]] = {name: [] for name in _NUMBERS}
    places, valid = list[int](), list[bool]()
    for row in read_table(path, GAZE_COLUMNS):
        if row.problem is not None:
            raise AnnotationError(str(row.problem))
        for column, text in zip(_NAMES, row.values, strict=False):
            if not text:
                raise _wrong(path, "line", row.line, column, text, "a name")
            of_column = codes[column]
            named[column].append(of_column.setdefault(text, len(of_column)))
        is_valid = _TRUTH.get(row.values[-1].lower())
        if is_valid is None:
            raise _wrong(path, "line", row.line, "valid", row.values[-1], "true, false, 1 or 0")
        for column, text in zip(_NUMBERS, row.values[3:6], strict=True):
            try:
                numbers[column].append(float(text))
            except ValueError:
                if is_valid or column == "time_s":
                    raise _wrong(path, "line", row.line, column, text, "a number") from None
                numbers[column].append(np.nan)
        places.append(row.line)
        valid.append(is_valid)
    arrays: dict[str, Any] = {name: np.array(values, np.int32) for name, values in named.items()}
    arrays |= {name: np.array(values, np.float64) for name, values in numbers.items()}
    arrays["valid"] = np.array(valid, np.bool_)
    texts = {name: list(of_column) for name, of_column in codes.items()}
    return GazeRows(path, "line", np.array(places, np.int64), texts, **arrays)


def _of_parquet(path: Path) -> GazeRows:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [column for column in GAZE_COLUMNS if column not in names]
            if missing:
                raise AnnotationError(
                    f"{path} lacks the columns {', '.join(missing)}; found: {', '.join(names)}"
                )
            table = file.read(columns=list(GAZE_COLUMNS))
    except (OSError, pa.ArrowException) as error:
        raise AnnotationError(f"{path} cannot be read as Parquet: {error}") from error
    texts: dict[str, list[str]] = {}
    arrays: dict[str, Any] = {}
    for column in GAZE_COLUMNS:
        values = table.column(column).combine_chunks()
        is_position = column in ("x", "y")
        if values.null_count and not is_position:
            place = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0]) + 1
            raise _wrong(path, "row", place, column, "null", "a value in every row")
        if not _is_of_kind(values.type, column):
            raise AnnotationError(
                f"{path}, column {column}: holds {values.type}; expected {_KINDS[column]}"
            )
        if column in _NAMES:
            encoded = values.cast(pa.string()).dictionary_encode()
            texts[column] = [str(text) for text in encoded.dictionary.to_pylist()]
            arrays[column] = encoded.indices.to_numpy().astype(np.int32)
        else:
            numbers = values.to_numpy(zero_copy_only=False)
            if column == "valid" and not np.isin(numbers, (0, 1)).all():
                place = int(np.flatnonzero(~np.isin(numbers, (0, 1)))[0])
                raise _wrong(path, "row", place + 1, column, numbers[place], "true, false, 1 or 0")
            arrays[column] = numbers.astype(np.bool_ if column == "valid" else np.float64)
    places = np.arange(1, len(table) + 1, dtype=np.int64)
    return GazeRows(path, "row", places, texts, **arrays)


def _is_of_kind(kind: Any, column: str) -> bool:  # noqa: ANN401 - a DataType of Arrow
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    if column in _NAMES:
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind))
    if column == "valid":
        return bool(types.is_boolean(kind) or types.is_integer(kind))
    return bool(types.is_floating(kind) or types.is_integer(kind))


def _require(rows: GazeRows, column: str, is_right: "npt.NDArray[np.bool_]", expected: str) -> None:
    if not is_right.all():
        n = int((~is_right).argmax())
        found = getattr(rows, column)[n]
        raise _wrong(rows.path, rows.unit, int(rows.place[n]), column, found, expected)


def _wrong(
    path: Path, unit: str, place: int, column: str, found: object, expected: str
) -> AnnotationError:
    return AnnotationError(
        f"{path}, {unit} {place}, column {column}: found {shown_id(str(found))!r}; "
        f"expected {expected}"
    )
