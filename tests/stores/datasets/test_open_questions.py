"""MSVD-QA and MSRVTT-QA: questions, media under either name, and files not as published."""

import gzip
import json

import pytest

from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import AnnotationError, UsageError

ROWS = [
    {"answer": "man", "id": 5, "question": "who runs?", "video_id": 1},
    {"answer": "null", "id": 6, "question": "what is it?", "video_id": 2, "category_id": 3},
]


def write(root, split, rows, *, is_packed=False):
    text = json.dumps(rows)
    if is_packed:
        (root / f"{split}_qa.json.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (root / f"{split}_qa.json").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("is_packed", [False, True])
def test_questions_name_the_video_and_keep_words_words(tmp_path, is_packed):
    write(tmp_path, "train", ROWS, is_packed=is_packed)
    found = open_dataset("msvd-qa", tmp_path).questions("open_ended", "train")
    assert [(q.id, q.video_id, q.answer) for q in found] == [
        (5, "vid1", "man"),
        (6, "vid2", "null"),
    ]
    other = open_dataset("msrvtt-qa", tmp_path).questions("open_ended", "train")
    assert other[0].video_id == "video1"


def test_videos_are_found_under_either_name_and_missing_ones_are_named(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "vid1.avi").write_bytes(b"x")
    (tmp_path / "-4wsuPCjDBc_5_15.avi").write_bytes(b"y")
    (tmp_path / "other.avi").write_bytes(b"z")
    (tmp_path / "youtube_mapping.txt").write_text("-4wsuPCjDBc_5_15 vid1451\n")
    dataset = open_dataset("msvd-qa", tmp_path)
    videos = {v.id: v for v in dataset.videos()}
    assert len(videos) == 1970
    assert videos["vid1"].path.name == "vid1.avi"
    assert (videos["vid1451"].path.name, videos["vid1451"].split) == (
        "-4wsuPCjDBc_5_15.avi", "test",
    )  # fmt: skip
    check = dataset.check()
    assert (check.media_named, check.media_present, check.unnamed) == (1970, 2, ("other.avi",))
    assert "vid2" in check.missing
    assert not check.is_complete


def test_two_files_of_one_id_are_a_problem_of_that_video(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "video7.mp4").write_bytes(folder.encode())
    (video,) = [v for v in open_dataset("msrvtt-qa", tmp_path).videos() if v.id == "video7"]
    assert (video.path, video.problem_kind) == (None, "duplicate_id")


@pytest.mark.parametrize(
    "row",
    [
        3,
        {"answer": "man", "id": 5, "question": "who?"},
        {"answer": "", "id": 5, "question": "who?", "video_id": 1},
        {"answer": "man", "id": "5", "question": "who?", "video_id": 1},
        {"answer": "man", "id": 5, "question": "who?", "video_id": -1},
        {"answer": "man", "id": 5, "question": "who?", "video_id": "../x"},
    ],
)
def test_a_malformed_row_stops_reading_and_is_listed(tmp_path, row):
    write(tmp_path, "train", [ROWS[1], row])
    dataset = open_dataset("msvd-qa", tmp_path)
    with pytest.raises(AnnotationError, match="row 2 of the array"):
        dataset.questions("open_ended", "train")
    check = dataset.check()
    assert [problem.line for problem in check.bad_rows] == [2]
    assert next(t.rows for t in check.tables if t.name == "train_qa.json") == 2


@pytest.mark.parametrize("content", [b"", b"{}", b"[1", b"\xff\xfe[]", b"[" * 100_000])
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content):
    (tmp_path / "val_qa.json").write_bytes(content)
    dataset = open_dataset("msvd-qa", tmp_path)
    with pytest.raises(AnnotationError, match=r"val_qa\.json"):
        dataset.questions("open_ended", "val")
    assert any(table.problem for table in dataset.check().tables)


def test_unknown_splits_tasks_and_absent_files_are_named(tmp_path):
    dataset = open_dataset("msvd-qa", tmp_path)
    with pytest.raises(UsageError, match="they have: train, val, test"):
        dataset.questions("open_ended", "dev")
    with pytest.raises(UsageError, match="has no task 'count'"):
        dataset.questions("count", "train")
    with pytest.raises(AnnotationError, match=r"test_qa\.json is not in"):
        dataset.questions("open_ended", "test")
    write(tmp_path, "train", [ROWS[0], ROWS[0]])
    with pytest.raises(AnnotationError, match="id 5 was used before"):
        dataset.questions("open_ended", "train")
