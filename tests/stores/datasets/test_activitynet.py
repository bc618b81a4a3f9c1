"""ActivityNet Captions: published and compressed files, media, and what is malformed."""

import gzip
import json

import pytest

from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import AnnotationError, UsageError

ENTRY = {
    "duration": 82.73,
    "timestamps": [[0.83, 19.86], [17, 60.81]],
    "sentences": ["A woman dances.", " She bows."],
}


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = json.dumps(entries).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "captions" / "train.json", {"v_aaaaaaaaaaa": ENTRY, "v_bbbbbbbbbbb": ENTRY})
    write(tmp_path / "val_1.json.gz", {"v_ccccccccccc": ENTRY})
    write(tmp_path / "val_2.json.gz", {"v_ccccccccccc": ENTRY, "v_ddddddddddd": ENTRY})
    (tmp_path / "videos").mkdir()
    for name in ("v_aaaaaaaaaaa.mp4", "ccccccccccc.mkv", "other.mp4"):
        (tmp_path / "videos" / name).write_bytes(b"x")
    return tmp_path


def test_events_come_as_published(root):
    dataset = open_dataset("activitynet", root)
    first, _ = dataset.captions("train")
    assert (first.video_id, first.duration_s) == ("v_aaaaaaaaaaa", 82.73)
    assert first.spans == ((0.83, 19.86), (17.0, 60.81))
    assert first.sentences[1] == " She bows."
    assert [video.video_id for video in dataset.captions("val_2")] == [
        "v_ccccccccccc", "v_ddddddddddd"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="no split 'val'"):
        dataset.captions("val")


def test_videos_are_found_with_and_without_their_prefix(root):
    dataset = open_dataset("activitynet", root)
    found = {video.id: video for video in dataset.videos()}
    assert found["v_aaaaaaaaaaa"].path.name == "v_aaaaaaaaaaa.mp4"
    assert found["v_ccccccccccc"].path.name == "ccccccccccc.mkv"
    assert (found["v_ddddddddddd"].path, found["v_ddddddddddd"].split) == (None, "val")
    assert [video.id for video in dataset.videos("train")] == ["v_aaaaaaaaaaa", "v_bbbbbbbbbbb"]


def test_a_check_says_what_is_missing(root):
    found = open_dataset("activitynet", root).check()
    assert not found.is_complete
    assert [(table.name, table.rows) for table in found.tables] == [
        ("train.json", 2), ("val_1.json", 1), ("val_2.json", 2)
    ]  # fmt: skip
    assert found.missing == ("v_bbbbbbbbbbb", "v_ddddddddddd")
    assert found.unnamed == ("videos/other.mp4",)


def test_two_files_of_one_video_concern_it_alone(root):
    (root / "aaaaaaaaaaa.mp4").write_bytes(b"y")
    found = {video.id: video for video in open_dataset("activitynet", root).videos("train")}
    assert found["v_aaaaaaaaaaa"].problem_kind == "duplicate_id"
    assert found["v_bbbbbbbbbbb"].problem is None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"v_x": ENTRY | {"sentences": ["one"]}}, "2 timestamps and 1 sentences"),
        ({"v_x": {"duration": 1.0}}, "v_x, timestamps"),
        ({"v_x": ENTRY | {"duration": "long"}}, "v_x, duration"),
        ([], "the file"),
    ],
)
def test_malformed_files_are_named(root, entries, said):
    write(root / "captions" / "train.json", entries)
    dataset = open_dataset("activitynet", root)
    with pytest.raises(AnnotationError, match=said):
        dataset.captions("train")
    assert dataset.check().tables[0].problem is not None


def test_missing_and_damaged_files_are_named(root):
    (root / "captions" / "train.json").unlink()
    dataset = open_dataset("activitynet", root)
    with pytest.raises(AnnotationError, match=r"train\.json is not in"):
        dataset.captions("train")
    with pytest.raises(AnnotationError, match=r"train\.json is not in"):
        dataset.videos("train")
    assert [video.split for video in dataset.videos()] == ["val", "val"]
    packed = (root / "val_1.json.gz").read_bytes()
    (root / "val_1.json.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(AnnotationError, match="cannot be read"):
        dataset.captions("val_1")


def test_an_id_that_is_a_path_stays_data(root):
    write(root / "captions" / "train.json", {"../../etc/passwd": ENTRY})
    (video,) = open_dataset("activitynet", root).videos("train")
    assert (video.path, video.problem_kind) == (None, "bad_id")


def test_what_is_said_comes_from_the_tables_beside_the_captions(root):
    assert open_dataset("activitynet", root).captions("train")[0].speech == ()
    table = root / "captions" / "train_meta.csv"
    columns = "video_id\tcaption\tstart\tend\tduration\tcategory_32\tsubs\tphase\tidx"
    row = 'v_aaaaaaaaaaa\tShe bows.\t17.0\t60.81\t82.73\t5\t"now ""bow"" please"\ttrain\t0'
    table.write_text(f"{columns}\n{row}\n")
    told = open_dataset("activitynet", root).captions("train")
    assert told[0].speech == ("", 'now "bow" please')
    assert told[1].speech == ("", "")
    table.write_text(f"{columns}\n{row.replace('17.0', 'soon')}\n")
    with pytest.raises(AnnotationError, match=r"train_meta\.csv, line 2"):
        open_dataset("activitynet", root).captions("train")
