"""TGIF-QA in the publisher's files."""

import pytest

from vlpipe.stores.datasets import (
    CountQuestion,
    FrameQuestion,
    MultipleChoiceQuestion,
    Video,
    open_dataset,
)
from vlpipe.stores.datasets._questions import COLUMNS
from vlpipe.stores.datasets.tgif import PUBLISHED_ROWS
from vlpipe.stores.errors import AnnotationError, UsageError

COUNT = ["{gif}", "How many times does the man nod ?", "3", "COUNT{n}", "{n}"]


def write_table(root, name, *rows, line_end="\r\n"):
    task = name.split("_")[1]
    lines = ["\t".join(COLUMNS[task]), *("\t".join(row) for row in rows)]
    path = root / f"{name}_question.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + line_end for line in lines).encode())
    return path


def count_rows(*gifs, first=1):
    return [
        [field.format(gif=gif, n=number) for field in COUNT]
        for number, gif in enumerate(gifs, first)
    ]


def tgif(root):
    return open_dataset("tgif", root)


def test_rows_are_typed(tmp_path):
    write_table(tmp_path, "Train_count", *count_rows("a"))
    choices = ["nod", "NA", '"respond ""no"""', "null", "run"]
    write_table(
        tmp_path, "Test_transition", ["a", "After ?", *choices, "2", "TRANS1", "7"], line_end="\n"
    )
    write_table(
        tmp_path, "Test_frameqa", ["b", "what ?", "None", "1", "FRAMEQA9", "8", "a man nods ."]
    )
    dataset = tgif(tmp_path)
    assert dataset.questions("count", "train") == [
        CountQuestion("a", "COUNT1", 1, "How many times does the man nod ?", 3)
    ]
    assert dataset.questions("transition", "test") == [
        MultipleChoiceQuestion(
            "a", "TRANS1", 7, "After ?", ("nod", "NA", 'respond "no"', "null", "run"), 2
        )
    ]
    assert dataset.questions("frameqa", "test") == [
        FrameQuestion("b", "FRAMEQA9", 8, "what ?", "None", 1, "a man nods .")
    ]


@pytest.mark.parametrize("folder", ["", "dataset", "question", "questions"])
def test_where_the_tables_may_lie(tmp_path, folder):
    write_table(tmp_path / folder, "Train_count", *count_rows("a"))
    assert [video.id for video in tgif(tmp_path).videos()] == ["a"]


def test_a_table_in_two_places_is_refused(tmp_path):
    write_table(tmp_path, "Train_count", *count_rows("a"))
    write_table(tmp_path / "dataset", "Train_count", *count_rows("b"))
    with pytest.raises(AnnotationError, match=r"Train_count_question\.csv is there twice"):
        tgif(tmp_path).videos()


def test_videos_are_the_union_of_the_tables(tmp_path):
    write_table(tmp_path, "Train_count", *count_rows("b", "a"))
    write_table(tmp_path, "Test_action", *[["b", "?", *"vwxyz", "0", "ACTION1", "1"]])
    write_table(tmp_path, "Total_count", *count_rows("a", "b", "c"))
    dataset = tgif(tmp_path)
    assert dataset.videos() == [
        Video("a", None, "train"),
        Video("b", None, "train"),
        Video("c", None, None),
    ]
    assert [(video.id, video.split) for video in dataset.videos("test")] == [("b", "test")]
    with pytest.raises(UsageError, match="no split 'val'; it has: train, test"):
        dataset.videos("val")


def test_gifs_are_found_anywhere_by_name(tmp_path):
    root = tmp_path / "root"
    write_table(root / "dataset", "Train_count", *count_rows("a", "b", "c", "d", "e"))
    for path in ("gifs/a.gif", "gifs/deep/b.GIF", "c.mp4", "gifs/stranger.gif"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (tmp_path / "elsewhere.gif").touch()
    (root / "gifs/d.gif").symlink_to(tmp_path / "elsewhere.gif")
    (root / "gifs/e.gif").symlink_to(tmp_path / "gone.gif")
    dataset = tgif(root)
    assert {video.id: video.path for video in dataset.videos()} == {
        "a": root / "gifs/a.gif",
        "b": root / "gifs/deep/b.GIF",
        "c": root / "c.mp4",
        "d": root / "gifs/d.gif",
        "e": None,
    }
    check = dataset.check()
    assert (check.media_named, check.media_present) == (5, 4)
    assert check.missing == ("e",)
    assert check.unnamed == ("gifs/stranger.gif",)


def test_two_files_of_one_name(tmp_path):
    write_table(tmp_path, "Train_count", *count_rows("a", "b", "c"))
    for name in ("a.gif", "a.webm", "b.gif", "c.gif"):
        (tmp_path / name).touch()
    (tmp_path / "more").mkdir()
    (tmp_path / "more/b.gif").symlink_to(tmp_path / "b.gif")
    first, second, third = tgif(tmp_path).videos()
    assert (first.path, first.problem_kind) == (None, "duplicate_id")
    assert str(tmp_path / "a.gif") in first.problem
    assert str(tmp_path / "a.webm") in first.problem
    assert second.problem is None
    assert third == Video("c", tmp_path / "c.gif", "train")
    assert [video.id for video in tgif(tmp_path).check().unusable] == ["a"]


@pytest.mark.parametrize(
    "name", ["../../etc/x", "/etc/x", "a/b", "a\\b", "..", ".", "", "a\x00b", "a\x1bb", "x" * 1025]
)
def test_names_that_are_not_names(tmp_path, name):
    (tmp_path / "x.gif").touch()
    write_table(tmp_path, "Train_count", *count_rows(name, "x"))
    dataset = tgif(tmp_path)
    bad, good = sorted(dataset.videos(), key=lambda video: video.problem is None)
    assert (bad.path, bad.problem_kind) == (None, "bad_id")
    assert bad.id.isprintable()
    assert 0 < len(bad.id.encode()) <= 1024
    assert good == Video("x", tmp_path / "x.gif", "train")
    with pytest.raises(AnnotationError, match="line 2: gif_name: the id"):
        dataset.questions("count", "train")


@pytest.mark.parametrize(
    ("task", "column", "value", "reason"),
    [
        ("count", "answer", "11", "answer is 11; expected 0 to 10"),
        ("count", "answer", "two", "answer is 'two'; expected a whole number"),
        ("count", "answer", "-1", "expected a whole number"),
        ("count", "answer", "\u0665", "expected a whole number"),
        ("count", "key", "", "key is ''"),
        ("count", "key", "9" * 5000, "expected a whole number"),
        ("count", "question", "", "question is empty"),
        ("count", "vid_id", "", "vid_id is empty"),
        ("action", "answer", "5", "answer is 5; expected 0 to 4"),
        ("frameqa", "type", "4", "type is 4; expected 0 to 3"),
        ("frameqa", "answer", "", "answer is empty"),
        ("count", "key", "1\t2", "6 fields; expected 5"),
    ],
)
def test_bad_rows_are_named(tmp_path, task, column, value, reason):
    good = dict.fromkeys(COLUMNS[task], "1") | {"gif_name": "a", "vid_id": "X1"}
    bad = good | {"gif_name": "b", "vid_id": "X2", "key": "2", column: value}
    path = write_table(tmp_path, f"Train_{task}", list(good.values()), list(bad.values()))
    dataset = tgif(tmp_path)
    with pytest.raises(AnnotationError) as caught:
        dataset.questions(task, "train")
    assert f"{path}, line 3: " in str(caught.value)
    assert reason in str(caught.value)
    assert f"vlpipe datasets check tgif --root {tmp_path}" in caught.value.hint
    (row,) = dataset.check().bad_rows
    assert (row.path, row.line) == (path, 3)
    assert [video.id for video in dataset.videos()] == ["a", "b"], "media of bad rows go on"


def test_ids_of_questions_are_used_once(tmp_path):
    rows = count_rows("a", "b", "c")
    rows[1][3] = "COUNT1"
    rows[2][4] = "1"
    write_table(tmp_path, "Train_count", *rows)
    reasons = [row.reason for row in tgif(tmp_path).check().bad_rows]
    assert reasons == [
        "vid_id 'COUNT1' was used before, in line 2",
        "key 1 was used before, for 'a'",
    ]


def test_absent_tables_are_explained(tmp_path):
    write_table(tmp_path, "Train_count", *count_rows("a"))
    dataset = tgif(tmp_path)
    with pytest.raises(AnnotationError, match=r"Train_frameqa_question\.csv is not in") as caught:
        dataset.questions("frameqa", "train")
    assert "github.com/YunseokJANG/tgif-qa" in caught.value.hint
    with pytest.raises(AnnotationError, match=r"Total_count_question\.csv is not in"):
        dataset.questions("count")
    with pytest.raises(UsageError, match="no task 'trans'; it has: count, action"):
        dataset.questions("trans", "train")
    with pytest.raises(UsageError, match="no split 'val'"):
        dataset.questions("count", "val")


def test_a_root_without_tables(tmp_path):
    with pytest.raises(AnnotationError, match=r"none of the tables \{Train,Test,Total\}_TASK"):
        tgif(tmp_path).videos()
    check = tgif(tmp_path).check()
    assert not check.is_complete
    assert check.media_named == 0


def test_a_damaged_table_leaves_the_others(tmp_path):
    write_table(tmp_path, "Train_count", *count_rows("a"))
    damaged = tmp_path / "Train_action_question.csv"
    damaged.write_text("name\tquestion\nb\twhat ?\n")
    dataset = tgif(tmp_path)
    assert [video.id for video in dataset.videos()] == ["a"]
    (left_out,) = dataset.left_out
    assert "lacks the columns gif_name" in left_out
    tables = {table.name: table for table in dataset.check().tables}
    assert "lacks the columns gif_name" in tables[damaged.name].problem
    assert not tables[damaged.name].is_complete
    (tmp_path / "Train_count_question.csv").unlink()
    with pytest.raises(AnnotationError, match="lacks the columns gif_name"):
        dataset.videos()


def test_rows_that_name_no_gif_are_told(tmp_path, caplog):
    write_table(tmp_path, "Train_count", *count_rows("a"), ['"x"y'], *count_rows("b", first=2))
    assert [video.id for video in tgif(tmp_path).videos()] == ["a", "b"]
    assert "1 rows cannot be read" in caplog.text


def test_row_counts_are_compared_with_the_published_ones(tmp_path, monkeypatch):
    name = "Train_count_question.csv"
    write_table(tmp_path, "Train_count", *count_rows("a", "b"))
    for published, is_complete in (((3, 2), True), ((3,), False)):
        monkeypatch.setitem(PUBLISHED_ROWS, name, published)
        tables = {table.name: table for table in tgif(tmp_path).check().tables}
        assert tables[name].rows == 2
        assert tables[name].is_complete is is_complete
    assert not tables["Test_count_question.csv"].is_complete
    assert tables["Total_count_question.csv"].is_complete, "Total repeats the others"


def test_the_published_row_counts_add_up():
    largest = {name: max(rows) for name, rows in PUBLISHED_ROWS.items()}
    for task in COLUMNS:
        split = largest[f"Train_{task}_question.csv"] + largest[f"Test_{task}_question.csv"]
        assert largest[f"Total_{task}_question.csv"] == split
    assert sum(rows for name, rows in largest.items() if name.startswith("Total")) == 165_165
