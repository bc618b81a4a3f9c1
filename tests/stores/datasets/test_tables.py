"""The strict reader of delimited files."""

import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.stores.datasets._tables import MAX_ROW_CHARS, read_strict, read_table
from vlpipe.stores.errors import AnnotationError

COLUMNS = ("name", "text", "number")
HEADER = "name\ttext\tnumber\r\n"


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


fields = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)  # files on a busy machine
@given(
    rows=st.lists(st.tuples(fields, fields, fields), max_size=8),
    delimiter=st.sampled_from("\t,"),
    line_end=st.sampled_from(["\r\n", "\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    has_mark=st.booleans(),
)
def test_what_was_written_is_read(tmp_path_factory, rows, delimiter, line_end, quoting, has_mark):
    buffer = io.StringIO()
    # A lone carriage return needs quotes with any line end, which the writer of Python 3.11 forgets
    # unless it is part of its own.
    quoting = csv.QUOTE_ALL if any("\r" in field for row in rows for field in row) else quoting
    writer = csv.writer(buffer, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    mark = b"\xef\xbb\xbf" if has_mark else b""
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    path.write_bytes(mark + buffer.getvalue().encode())
    assert read_strict(path, COLUMNS, delimiter=delimiter) == rows


@settings(deadline=None)
@given(content=st.binary(max_size=200))
def test_any_bytes_give_rows_or_an_error_of_ours(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tables") / "table.csv"
    path.write_bytes(content)
    with contextlib.suppress(AnnotationError):
        for row in read_table(path, ("a", "b"), has_header=False):
            assert len(row.values) == 2
            assert row.line >= 1


def test_words_that_look_like_gaps_stay_words(tmp_path):
    path = written(tmp_path, HEADER + "null\tNA\tNone\r\nnan\t\t1e5\r\n")
    assert read_strict(path, COLUMNS) == [("null", "NA", "None"), ("nan", "", "1e5")]


def test_quotes_are_real(tmp_path):
    path = written(tmp_path, HEADER + 'a\t"say ""no"""\t1\r\nb\tpet man\'s 5" head\t2\r\n')
    assert read_strict(path, COLUMNS) == [("a", 'say "no"', "1"), ("b", "pet man's 5\" head", "2")]


def test_columns_are_found_by_name(tmp_path):
    path = written(tmp_path, "number\tspare\tname\ttext\n1\tx\ta\tb\n")
    assert read_strict(path, COLUMNS) == [("a", "b", "1")]


def test_missing_columns_are_named(tmp_path):
    path = written(tmp_path, "name\tcomment\r\n")
    with pytest.raises(AnnotationError) as caught:
        read_strict(path, COLUMNS)
    message = str(caught.value)
    assert str(path) in message
    assert "lacks the columns text, number" in message
    assert "found: name, comment" in message
    assert "expected, parted by tabs: name, text, number" in message


def test_a_table_with_commas_is_not_one_with_tabs(tmp_path):
    with pytest.raises(AnnotationError, match="found: name,text,number; expected, parted by tabs"):
        read_strict(written(tmp_path, "name,text,number\n"), COLUMNS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the file is empty"),
        ("name\ttext\tnumber\tname\n", "columns name more than once"),
        (HEADER.encode("utf-16"), "not UTF-8 text: .* in line 1"),
        (HEADER.encode() + b"a\tb\t1\n\xff\tb\t2\n", "not UTF-8 text: .* in line 3"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_strict(written(tmp_path, content), COLUMNS)


def test_malformed_rows_are_told_with_their_lines_and_the_others_are_read(tmp_path):
    rows = 'a\t"two\r\nlines"\t1\r\nb\t2\r\n\r\nc\t"x"y\t3\r\nd\te\t4\t5\r\nf\tg\t6\r\n'
    path = written(tmp_path, HEADER + rows)
    read = list(read_table(path, COLUMNS))
    assert [(row.line, row.values[0]) for row in read] == [
        (2, "a"),
        (4, "b"),
        (6, ""),
        (7, "d"),
        (8, "f"),
    ]
    problems = [str(row.problem) for row in read if row.problem is not None]
    assert problems[0] == f"{path}, line 4: 2 fields; expected 3"
    assert "line 6" in problems[1]
    assert problems[2] == f"{path}, line 7: 4 fields; expected 3"
    with pytest.raises(AnnotationError, match="line 4: 2 fields; expected 3"):
        read_strict(path, COLUMNS)


def test_an_open_quote_is_told(tmp_path):
    read = list(read_table(written(tmp_path, HEADER + 'a\t"b\t1\nc\td\t2\n'), COLUMNS))
    assert [row.problem.reason for row in read] == ['a field opens with " and never closes it']


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_huge_field_is_refused_without_being_read_whole(tmp_path, quote):
    path = tmp_path / "table.csv"
    with path.open("wb") as stream:
        stream.write(f"{HEADER}a\t{quote}".encode())
        stream.seek(100_000_000)  # a hole: the field has 100 MB of zeros
        stream.write(b"\t1\r\n")
    with pytest.raises(AnnotationError, match=f"row is longer than {MAX_ROW_CHARS:,} characters"):
        read_strict(path, COLUMNS)


def test_a_quote_that_swallows_line_after_line_is_stopped(tmp_path, monkeypatch):
    previous = csv.field_size_limit(1 << 30)  # as other libraries of a process may do
    try:
        path = written(tmp_path, HEADER + 'a\t"b\t1\n' + "x\ty\t2\n" * (MAX_ROW_CHARS // 4))
        with pytest.raises(AnnotationError, match="never closes it"):
            read_strict(path, COLUMNS)
    finally:
        csv.field_size_limit(previous)


def test_a_field_over_the_limit_of_the_csv_module(tmp_path):
    path = written(tmp_path, HEADER + f"a\t{'x' * 200_000}\t1\r\nb\tc\t2\r\n")
    first, second = read_table(path, COLUMNS)
    assert "a field is longer than" in first.problem.reason
    assert second.values == ("b", "c", "2")
