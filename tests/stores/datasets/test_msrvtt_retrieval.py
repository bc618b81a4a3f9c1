"""MSR-VTT 1k-A: the two training sets, the test, media, and files not as published."""

import json

import pytest

from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import AnnotationError, UsageError

TEST_ROWS = 'key,vid_key,video_id,sentence\nret0,msr9,video9,"a person, writes"\n'


def sentences(*videos):
    told = [
        {"caption": f"sentence {n} of {video}", "video_id": video, "sen_id": n}
        for video in videos
        for n in (10, 11)
    ]
    return json.dumps({"info": {}, "videos": [], "sentences": told})


@pytest.fixture
def root(tmp_path):
    (tmp_path / "MSRVTT_JSFUSION_test.csv").write_text(TEST_ROWS)
    (tmp_path / "train_val_videodatainfo.json").write_text(sentences("video0", "video1"))
    (tmp_path / "test_videodatainfo.json").write_text(sentences("video8", "video9"))
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "video9.mp4").write_bytes(b"x")
    (tmp_path / "clips" / "other.mp4").write_bytes(b"y")
    return tmp_path


def test_the_two_training_sets_never_hold_a_test_video(root):
    dataset = open_dataset("msrvtt-retrieval", root)
    (test,) = dataset.sentence_pairs("test")
    assert (test.key, test.video_id, test.sentence) == ("ret0", "video9", "a person, writes")
    train = dataset.sentence_pairs("train")
    assert [p.video_id for p in train] == ["video0", "video0", "video1", "video1"]
    assert (train[1].key, train[1].vid_key) == ("sen11", "msr0")
    larger = open_dataset("msrvtt-retrieval-9k", root).sentence_pairs("train")
    assert {p.video_id for p in larger} == {"video0", "video1", "video8"}
    with pytest.raises(UsageError, match="no split 'val'; they have: train, test"):
        dataset.sentence_pairs("val")


def test_videos_and_what_is_missing(root):
    dataset = open_dataset("msrvtt-retrieval", root)
    assert [(v.id, v.split) for v in dataset.videos()] == [
        ("video0", "train"), ("video1", "train"), ("video9", "test"),
    ]  # fmt: skip
    (tested,) = dataset.videos("test")
    assert tested.path == root / "clips" / "video9.mp4"
    check = dataset.check()
    assert check.missing == ("video0", "video1")
    assert check.unnamed == ("clips/other.mp4",)
    assert [table.rows for table in check.tables] == [1, 4, None, None, None]
    assert not check.is_complete
    (root / "video9.mp4").write_bytes(b"z")
    (twice,) = dataset.videos("test")
    assert twice.problem_kind == "duplicate_id"


def test_files_that_are_absent_or_malformed_are_named(root):
    path = root / "train_val_videodatainfo.json"
    path.write_text('{"sentences": [{"caption": "", "video_id": "video0", "sen_id": 1}]}')
    dataset = open_dataset("msrvtt-retrieval", root)
    with pytest.raises(AnnotationError, match="sentence 1: expected sentences"):
        dataset.sentence_pairs("train")
    assert "sentence 1" in dataset.check().tables[1].problem
    path.unlink()
    with pytest.raises(AnnotationError, match=r"train_val_videodatainfo\.json is not in"):
        dataset.videos()
    assert dataset.check().tables[1].path is None


def test_choices_are_about_all_official_test_videos(root):
    path = root / "MSR_MC_test.csv"
    columns = "key\tvid_key\ta1\ta2\ta3\ta4\ta5\tanswer\n"
    path.write_text(f"{columns}MC1\tmsr7010\ta\tb\tc\td\te\t2\n")
    dataset = open_dataset("msrvtt-retrieval", root)
    (choice,) = dataset.sentence_choices("test")
    assert (choice.video_id, choice.choices[choice.answer]) == ("video7010", "c")
    assert [video.id for video in dataset.videos("test")] == ["video9", "video7010"]
    with pytest.raises(AnnotationError, match="4 sentences are too few"):
        dataset.sentence_choices("train")
    with pytest.raises(UsageError, match="no split 'test'; they have: none"):
        open_dataset("msrvtt-retrieval-9k", root).sentence_choices("test")
    path.write_text(f"{columns}MC1\t7010\ta\tb\tc\td\te\t2\n")
    with pytest.raises(AnnotationError, match="vid_key '7010': expected msr and a number"):
        dataset.sentence_choices("test")


def test_blanks(root):
    header = "key\tvid_key\tsentence\tblank_sentence\tanswer\n"
    (root / "MSR_FIB_train.csv").write_text(f"{header}FIB1\tmsr1\ta dog\ta _____\tdog\n")
    (blank,) = open_dataset("msrvtt-retrieval", root).sentence_blanks("train")
    assert (blank.video_id, blank.answer) == ("video1", "dog")
