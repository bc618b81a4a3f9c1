"""TVQA: tables, subtitles in both forms, clips, what is malformed and what is hidden."""

import gzip
import json

import pytest
from made_subtitled import SPLITS, make_tables

from vlpipe.stores.datasets import SubtitledQuestion, SubtitleLine, open_dataset
from vlpipe.stores.errors import AnnotationError, UsageError

TASK = "subtitled_qa"
ROW = {
    "qid": 7, "q": "What?", "a0": "a", "a1": "b", "a2": "c", "a3": "d", "a4": "e",
    "answer_idx": 4, "ts": "76.01-84.2", "vid_name": "grey_s03e21_seg02_clip_08",
    "show_name": "Grey's Anatomy",
}  # fmt: skip


@pytest.fixture
def root(tmp_path):
    make_tables(tmp_path)
    return tmp_path


def write(root, *rows, split="train"):
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
    (root / f"tvqa_{split}.jsonl").write_text(text, encoding="utf-8")
    return open_dataset("tvqa", root)


def test_questions_come_as_published(tmp_path):
    dataset = write(tmp_path, ROW, ROW | {"qid": 8, "vid_name": "s01e02_seg02_clip_00"}, "")
    first, second = dataset.questions(TASK, "train")
    assert first == SubtitledQuestion(
        7, "grey_s03e21_seg02_clip_08", "grey", "What?", ("a", "b", "c", "d", "e"), 4, (76.01, 84.2)
    )
    assert second.show == "bbt"
    with pytest.raises(UsageError, match="no task 'count'"):
        dataset.questions("count", "train")
    with pytest.raises(UsageError, match="no split 'test'"):
        dataset.questions(TASK, "test")
    with pytest.raises(AnnotationError, match=r"tvqa_val\.jsonl is not in"):
        dataset.questions(TASK, "val")


@pytest.mark.parametrize(
    ("ts", "span"),
    [("NaN-NaN", None), ("nan-3.5", None), ("4-nan", None), (float("nan"), None), ("nan", None),
     ("0-5", (0, 5)), (" 1.5 - 2 ", (1.5, 2)), ("-1-2", (-1, 2))],
)  # fmt: skip
def test_spans_that_are_not_numbers_are_not_known(tmp_path, ts, span):
    (found,) = write(tmp_path, ROW | {"ts": ts}).questions(TASK, "train")
    assert found.span_s == span


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ROW | {"answer_idx": 5}, "answer_idx is 5; expected 0 to 4"),
        (ROW | {"answer_idx": True}, "answer_idx is True"),
        ({k: v for k, v in ROW.items() if k != "answer_idx"}, "answer_idx is missing"),
        (ROW | {"ts": "soon"}, "ts is 'soon'; expected seconds"),
        (ROW | {"a3": None}, "a3 is None; expected a text"),
        (ROW | {"q": " "}, "q is ' '; expected a text"),
        (ROW | {"qid": "7"}, "qid is '7'; expected a whole number"),
        (ROW | {"vid_name": "../x"}, "vid_name: the id '../x' has a path separator"),
        ("[1]", "a JSON list; expected an object"),
        ("{", "Expecting property name"),
        (ROW | {"q": "again"}, "qid 7 was used before, in line 1"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, row, reason):
    is_second = isinstance(row, dict) and row.get("q") == "again"
    dataset = write(tmp_path, *([ROW, row] if is_second else [row, ROW | {"qid": 9}]))
    line = 2 if is_second else 1
    with pytest.raises(AnnotationError) as caught:
        dataset.questions(TASK, "train")
    assert f"tvqa_train.jsonl, line {line}: " in caught.value.message
    assert reason in caught.value.message
    (bad,) = dataset.check().bad_rows
    assert bad.line == line
    assert [video.id for video in dataset.videos("train")] == [ROW["vid_name"]]
    assert reason in dataset.left_out[0]


def test_answers_of_test_public_are_hidden(root):
    dataset = open_dataset("tvqa", root)
    assert dataset.question_splits == ("train", "val", "test_public")
    assert {q.answer for q in dataset.questions(TASK, "test_public")} == {None}
    (root / "tvqa_test_public.jsonl").unlink()
    assert dataset.question_splits == ("train", "val")
    bare = write(root, {k: ROW[k] for k in ROW if k not in ("answer_idx", "ts")},
                 split="test_public")  # fmt: skip
    assert bare.questions(TASK, "test_public")[0].span_s is None


def test_subrip_files_are_latin_1_with_lines_over_several_rows(root):
    name = "s01e01_train_clip_00"
    (root / "tvqa_subtitles" / f"{name}.srt").write_bytes(
        "1\r\n00:01:02,500 --> 00:01:03,000\r\n(Ann:)Caf\xe9,\r\n2\r\n\r\n"
        "3\r\n00:00:01.25 --> 00:00:02\r\nFirst\r\n\r\n4\r\n0:0:5,0 --> 0:0:6,0\r\n\r\n"
        .encode("iso-8859-1")
    )  # fmt: skip
    dataset = open_dataset("tvqa", root)
    assert dataset.subtitles(name) == (
        SubtitleLine(1.25, 2, "First"), SubtitleLine(62.5, 63, "(Ann:)Caf\xe9, 2"),
    )  # fmt: skip
    assert dataset.subtitles("unheard") == ()
    assert dataset.subtitles("../tables") == ()
    (root / "tvqa_subtitles" / f"{name}.srt").write_text("no times here")
    with pytest.raises(AnnotationError, match=rf"{name}\.srt holds no line of times"):
        dataset.subtitles(name)


def test_subtitles_of_the_preprocessed_file_come_first(root):
    clip = {"vid_name": "c", "sub": [{"text": "b ", "start": 3, "end": 4.5},
                                     {"text": " a\n a", "start": 1.0, "end": 2},
                                     {"text": " ", "start": 0, "end": 1}]}  # fmt: skip
    path = root / "tvqa_preprocessed_subtitles.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(clip).encode()))
    dataset = open_dataset("tvqa", root)
    assert dataset.subtitles("c") == (SubtitleLine(1, 2, "a a"), SubtitleLine(3, 4.5, "b"))
    clip["sub"][0]["start"] = "soon"
    path.write_bytes(gzip.compress(b"\n" + json.dumps(clip).encode()))
    with pytest.raises(AnnotationError, match=r"jsonl\.gz, line 2: sub\.0\.start: .*seconds"):
        open_dataset("tvqa", root).subtitles("c")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AnnotationError, match=r"jsonl\.gz cannot be read"):
        open_dataset("tvqa", root).subtitles("c")


def test_a_copy_without_subtitles_says_so(tmp_path):
    make_tables(tmp_path, subtitles=None)
    dataset = open_dataset("tvqa", tmp_path)
    assert dataset.subtitles("s01e01_train_clip_00") is None
    (missing,) = [table for table in dataset.check().tables if table.name == "subtitles"]
    assert missing.path is None
    assert not missing.is_complete


def test_a_check_counts_pictures_and_files_and_says_what_is_missing(root):
    pictures = root / "frames" / "bbt_frames" / "s01e01_train_clip_00"
    pictures.mkdir(parents=True)
    (pictures / "00001.jpg").write_bytes(b"x")
    (root / "friends_s01e02_train_clip_01.mp4").write_bytes(b"x")
    (root / "other.mp4").write_bytes(b"x")
    dataset = open_dataset("tvqa", root)
    found = dataset.check()
    assert not found.is_complete
    rows = {table.name: table.rows for table in found.tables}
    assert rows == {"tvqa_train.jsonl": 80, "tvqa_val.jsonl": 24, "tvqa_test_public.jsonl": 12,
                    "subtitles": sum(SPLITS.values())}  # fmt: skip
    assert (found.media_named, found.media_present) == (sum(SPLITS.values()), 2)
    assert "castle_s01e03_train_clip_02" in found.missing
    assert found.unnamed == ("other.mp4",)
    paths = {video.id: video.path for video in dataset.videos()}
    assert paths["friends_s01e02_train_clip_01"] == root / "friends_s01e02_train_clip_01.mp4"
    assert paths["s01e01_train_clip_00"] is None  # extractors read files
    assert {v.split for v in dataset.videos("val")} == {"val"}
    with pytest.raises(UsageError, match="no split 'dev'"):
        dataset.videos("dev")


def test_two_files_of_one_clip_concern_it_alone(root):
    for folder in ("x", "y"):
        (root / folder).mkdir()
        (root / folder / "s01e01_train_clip_00.mp4").write_bytes(b"x")
    (unusable,) = open_dataset("tvqa", root).check().unusable
    assert unusable.problem_kind == "duplicate_id"
    assert unusable.id == "s01e01_train_clip_00"
