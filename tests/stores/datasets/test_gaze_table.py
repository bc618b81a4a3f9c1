"""Gaze tables: both forms, splits, what lies beside the frame, and damage by file, column, row."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.datasets.gaze_table import split_of_vas
from vlpipe.stores.errors import AnnotationError

CLIPS = """dataset\tclip\twidth\theight\tsplit
hollywood2\tactioncliptrain00001\t720\t400\ttrain
hollywood2\tactioncliptest00001\t640\t480\ttest
hollywood2\tactioncliptest00002\t640\t480\ttest
"""
HEADER = "dataset\tclip\tsubject\ttime_s\tx\ty\tvalid\n"
ROWS = [
    ("hollywood2", "actioncliptest00001", "s2", 0.2, 10.0, 20.0, True),
    ("hollywood2", "actioncliptest00001", "s1", 0.1, 639.4, 479.4, True),
    ("hollywood2", "actioncliptest00001", "s1", 0.3, 639.6, 5.0, True),
    ("hollywood2", "actioncliptest00001", "s1", 0.4, -0.6, 5.0, True),
    ("hollywood2", "actioncliptest00001", "s1", 0.5, 7.0, 8.0, False),
    ("hollywood2", "actioncliptrain00001", "s1", 0.0, 700.0, 1.0, True),
]


def write_tsv(root, rows=ROWS):
    lines = ["\t".join(str(value) for value in row) for row in rows]
    (root / "gaze.tsv").write_text(HEADER + "\n".join(lines) + "\n")


def write_parquet(root, rows=ROWS, **columns):
    names = HEADER.split()
    arrays = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) | columns
    pq.write_table(pa.table(arrays), root / "gaze.parquet")


@pytest.fixture
def root(tmp_path):
    (tmp_path / "clips.tsv").write_text(CLIPS)
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "actioncliptest00001.avi").write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize("write", [write_tsv, write_parquet])
def test_samples_on_the_frame_by_time(root, write):
    write(root)
    dataset = open_dataset("gaze-table", root)
    assert dataset.gaze_splits == ("train", "test")
    (clip,) = dataset.gaze_clips("test")
    assert (clip.video_id, clip.dataset, clip.width, clip.height) == (
        "actioncliptest00001", "hollywood2", 640, 480,
    )  # fmt: skip
    # Two samples lie beside the frame by more than half a pixel, one is not valid.
    assert clip.time_s.tolist() == [0.1, 0.2]
    assert clip.xy.tolist() == [[639.4, 479.4], [10, 20]]
    assert len(set(clip.subject.tolist())) == 2
    assert [c.xy.tolist() for c in dataset.gaze_clips("train")] == [[[700, 1]]]
    assert dataset.gaze_clips("val") == []


def test_forms_of_columns(root):
    write_parquet(
        root,
        subject=pa.array([2, 1, 1, 1, 1, 1]),
        valid=pa.array([1, 1, 1, 1, 0, 1], pa.int8()),
        clip=pa.array([row[1] for row in ROWS]).dictionary_encode(),
        x=pa.array([10.0, 639.4, 639.6, -0.6, None, 700.0], pa.float32()),
    )
    (clip,) = open_dataset("gaze-table", root).gaze_clips("test")
    assert clip.xy[:, 0] == pytest.approx([639.4, 10])
    (root / "gaze.parquet").unlink()
    rows = [row if row[-1] else (*row[:4], "", "nan", "FALSE") for row in ROWS]
    write_tsv(root, rows)
    (again,) = open_dataset("gaze-table", root).gaze_clips("test")
    assert again.xy == pytest.approx(clip.xy, abs=1e-4)


def test_videos_and_what_is_missing(root):
    write_tsv(root)
    dataset = open_dataset("gaze-table", root)
    assert [video.id for video in dataset.videos("test")] == [
        "actioncliptest00001", "actioncliptest00002",
    ]  # fmt: skip
    assert dataset.videos("test")[0].path == root / "media" / "actioncliptest00001.avi"
    check = dataset.check()
    assert [(table.name, table.rows) for table in check.tables] == [
        ("clips.tsv", 3), ("gaze", 6),
    ]  # fmt: skip
    assert check.missing == ("actioncliptrain00001", "actioncliptest00002")


def test_clips_of_vas_are_split_as_in_the_public_code(root):
    names = [f"clip{n:03}" for n in range(144)]
    split = split_of_vas(reversed(names))
    shuffled = np.array(names)
    np.random.RandomState(0).shuffle(shuffled)
    assert {name for name in names if split[name] == "train"} == set(shuffled[:86].tolist())
    assert list(split.values()).count("test") == 58
    lines = "".join(f"VAS\t{name}\t10\t10\t\n" for name in names)
    (root / "clips.tsv").write_text(CLIPS + lines)
    write_tsv(root)
    dataset = open_dataset("gaze-table", root)
    found = {video.id: video.split for video in dataset.videos()}
    assert {name: found[name] for name in names} == split
    assert found["actioncliptrain00001"] == "train"


def test_splits_that_are_given_in_part_are_refused(root):
    write_tsv(root)
    (root / "clips.tsv").write_text(CLIPS + "vas\ta\t9\t9\ttrain\nvas\tb\t9\t9\t\n")
    with pytest.raises(AnnotationError, match=r"clips\.tsv, line 6, column split: found ''"):
        open_dataset("gaze-table", root).videos()
    (root / "clips.tsv").write_text(CLIPS + "other\tb\t9\t9\t\n")
    with pytest.raises(AnnotationError, match=r"line 5, column split.*train, val, test"):
        open_dataset("gaze-table", root).gaze_clips("test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("\tc\t9\t9\ttrain", "line 5, column dataset: found .*expected a name"),
        ("d\tactioncliptest00001\t9\t9\ttest", "line 5, column clip: .* stands in line 3 already"),
        ("d\tc\t9.5\t9\ttrain", "line 5, column width: found '9.5'"),
        ("d\tc\t9\t1\ttrain", "line 5, column height: found '1'"),
        ("d\tc\t9\ttrain", "line 5: 4 fields; expected 5"),
    ],
)
def test_damaged_clips_are_named(root, line, message):
    write_tsv(root)
    (root / "clips.tsv").write_text(CLIPS + line + "\n")
    dataset = open_dataset("gaze-table", root)
    with pytest.raises(AnnotationError, match=rf"clips\.tsv, {message}"):
        dataset.videos()
    assert "line 5" in dataset.check().tables[0].problem


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: ""}, "column dataset: found .*expected a name"),
        ({0: "vas"}, r"column clip: clips\.tsv has no clip 'actioncliptest00001' of dataset 'vas'"),
        ({1: "nowhere"}, r"column clip: clips\.tsv has no clip 'nowhere'"),
        ({3: -0.1}, "column time_s: found '-0.1'"),
        ({3: "soon"}, "column time_s: found 'soon'"),
        ({3: "inf"}, "column time_s: found 'inf'"),
        ({4: "left"}, "column x: found 'left'"),
        ({5: "nan"}, "column y: found 'nan'; expected pixels where valid is true"),
        ({6: "maybe"}, "column valid: found 'maybe'; expected true, false, 1 or 0"),
    ],
)
def test_damaged_rows_of_a_text_are_named(root, change, message):
    rows = [*ROWS, tuple(change.get(n, value) for n, value in enumerate(ROWS[0]))]
    write_tsv(root, rows)
    dataset = open_dataset("gaze-table", root)
    with pytest.raises(AnnotationError, match=rf"gaze\.tsv, line 8, {message}"):
        dataset.gaze_clips("test")
    assert "line 8" in dataset.check().tables[1].problem


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"y": [1.0, 2, 3, 4, 5, np.nan]}, "row 6, column y: found 'nan'"),
        ({"time_s": [1.0, 2, None, 4, 5, 6]}, "row 3, column time_s: found 'null'"),
        ({"subject": ["a", None, "a", "a", "a", "a"]}, "row 2, column subject: found 'null'"),
        ({"valid": [1, 0, 1, 2, 1, 1]}, "row 4, column valid: found '2'"),
        ({"x": list("abcdef")}, "column x: holds string; expected numbers"),
        ({"clip": ["actioncliptest00001"] * 5 + ["gone"]}, "row 6, column clip: .*'gone'"),
    ],
)
def test_damaged_rows_of_parquet_are_named(root, columns, message):
    write_parquet(root, **columns)
    with pytest.raises(AnnotationError, match=rf"gaze\.parquet, {message}"):
        open_dataset("gaze-table", root).gaze_clips("test")


def test_files_that_are_absent_double_or_no_tables(root):
    dataset = open_dataset("gaze-table", root)
    with pytest.raises(AnnotationError, match=r"neither gaze\.parquet nor gaze\.tsv is in"):
        dataset.gaze_clips("test")
    write_tsv(root)
    write_parquet(root)
    with pytest.raises(AnnotationError, match=r"both gaze\.parquet and gaze\.tsv"):
        open_dataset("gaze-table", root).gaze_clips("test")
    (root / "gaze.tsv").unlink()
    whole = (root / "gaze.parquet").read_bytes()
    (root / "gaze.parquet").write_bytes(whole[:-20])
    with pytest.raises(AnnotationError, match=r"gaze\.parquet cannot be read as Parquet"):
        open_dataset("gaze-table", root).gaze_clips("test")
    pq.write_table(pa.table({"clip": ["a"], "x": [1.0]}), root / "gaze.parquet")
    with pytest.raises(
        AnnotationError, match="lacks the columns dataset, subject, time_s, y, valid"
    ):
        open_dataset("gaze-table", root).gaze_clips("test")
