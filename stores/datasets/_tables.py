"""A strict reader of delimited annotation files: TSV and CSV with real quoting.

Tabs or commas part fields, `"` quotes them and is doubled inside; line ends are CRLF or LF; text is
UTF-8, with or without a byte order mark. Every field stays the text it is: "null", "NA" and "None"
are answers and words in these files, not gaps.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from vlpipe.stores.datasets._registry import RowProblem
from vlpipe.stores.errors import AnnotationError

# The longest row of the published tables has some 700 characters. The limit keeps a damaged file,
# say one with a quote that never closes, from being read into memory whole.
MAX_ROW_CHARS = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the asked columns in the asked order; the problem, if it is malformed.

    The values of a malformed row are those that could be read, the rest are empty.
    """

    line: int
    values: tuple[str, ...]
    problem: RowProblem | None = None


def read_table(
    path: Path, columns: Sequence[str], *, delimiter: str = "\t", has_header: bool = True
) -> Iterator[Row]:
    """The rows of a table, each with the values of the named columns.

    Without a header the columns are the names of all fields in order. A file that cannot be read
    as such a table is an AnnotationError; a malformed row is a Row with a problem.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _rows(path, stream, columns, delimiter, has_header)
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{path} is not UTF-8 text: {error.reason} in line {_undecodable_line(path)}",
            hint="save it as UTF-8, tab-separated, or take the publisher's file unchanged",
        ) from error
    except OSError as error:
        raise AnnotationError(f"{path} cannot be read: {error.strerror}") from error


def read_strict(
    path: Path, columns: Sequence[str], *, delimiter: str = "\t", has_header: bool = True
) -> list[tuple[str, ...]]:
    """The values of all rows; a malformed row is an AnnotationError with its line."""
    rows = []
    for row in read_table(path, columns, delimiter=delimiter, has_header=has_header):
        if row.problem is not None:
            raise AnnotationError(str(row.problem))
        rows.append(row.values)
    return rows


def _rows(
    path: Path, stream: TextIO, columns: Sequence[str], delimiter: str, has_header: bool
) -> Iterator[Row]:
    lines = _BoundedLines(path, stream)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    if has_header:
        width, places = _header(path, reader, columns, delimiter)
    else:
        width, places = len(columns), list(range(len(columns)))
    while True:
        line = reader.line_num + 1
        lines.chars_of_row = 0
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(line, ("",) * len(columns), RowProblem(path, line, _explained(error)))
            continue
        if not fields:  # an empty line, often the last one
            continue
        problem = None
        if len(fields) != width:
            problem = RowProblem(path, line, f"{len(fields)} fields; expected {width}")
        values = tuple(fields[place] if place < len(fields) else "" for place in places)
        yield Row(line, values, problem)


def _header(
    path: Path, reader: Iterator[list[str]], columns: Sequence[str], delimiter: str
) -> tuple[int, list[int]]:
    """The number of columns of a table and the places of those asked for."""
    shown = {"\t": "tabs", ",": "commas"}[delimiter]
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise AnnotationError(f"{path}, line 1: {_explained(error)}") from error
    missing = [name for name in columns if name not in header]
    if missing:
        found = ", ".join(header)[:500] if header else "nothing: the file is empty"
        raise AnnotationError(
            f"{path} lacks the columns {', '.join(missing)}; "
            f"found: {found}; expected, parted by {shown}: {', '.join(columns)}",
            hint="take the publisher's file unchanged; spreadsheets change separators",
        )
    twice = sorted({name for name in columns if header.count(name) > 1})
    if twice:
        raise AnnotationError(f"{path} has the columns {', '.join(twice)} more than once")
    return len(header), [header.index(name) for name in columns]


def _undecodable_line(path: Path) -> int:
    with path.open("rb") as stream:
        line = 1
        while block := stream.readline(MAX_ROW_CHARS):
            try:
                block.decode("utf-8")
            except UnicodeDecodeError:
                break
            line += 1
    return line


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end of data" in text:
        return 'a field opens with " and never closes it'
    if "field larger than field limit" in text:
        return f"a field is longer than {csv.field_size_limit():,} characters"
    return text


class _BoundedLines:
    """The lines of a file; AnnotationError once the lines of one row are too long together.

    The csv module asks for line after line while a quote is open and has a limit per field only,
    which any other library of the process may have lifted.
    """

    def __init__(self, path: Path, stream: TextIO) -> None:
        self._path = path
        self._stream = stream
        self._line = 0
        self.chars_of_row = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = self._stream.readline(MAX_ROW_CHARS + 1)
        if not text:
            raise StopIteration
        self._line += 1
        self.chars_of_row += len(text)
        if self.chars_of_row > MAX_ROW_CHARS:
            raise AnnotationError(
                f"{self._path}, line {self._line}: the row is longer than "
                f"{MAX_ROW_CHARS:,} characters",
                hint='the file is damaged, or a field opens with " and never closes it',
            )
        return text
