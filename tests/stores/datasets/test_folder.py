"""Any media below any paths."""

import os

import pytest

from vlpipe.stores.datasets import FolderDataset, Video, open_dataset
from vlpipe.stores.errors import UsageError


def make(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def ids(dataset):
    return [video.id for video in dataset.videos()]


def test_ids_are_paths_without_extension(tmp_path):
    make(tmp_path, "b.MP4", "a.gif", "sub/deep/c.v2.webm", ".hidden.mp4", ".git/d.mp4", "notes.txt")
    dataset = open_dataset("folder", tmp_path)
    assert dataset.videos() == [
        Video("a", tmp_path / "a.gif", None),
        Video("b", tmp_path / "b.MP4", None),
        Video("sub/deep/c.v2", tmp_path / "sub/deep/c.v2.webm", None),
    ]
    assert dataset.check().is_complete


def test_named_files_are_taken_whatever_they_are_called(tmp_path, monkeypatch):
    make(tmp_path, "raw.dat", "videos/x.mp4", "videos/y.txt")
    monkeypatch.chdir(tmp_path)
    dataset = FolderDataset.from_paths(["videos", "raw.dat"])
    assert ids(dataset) == ["x", "raw"]
    assert all(video.path.is_absolute() for video in dataset.videos())


def test_paths_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder: "):
        FolderDataset.from_paths([tmp_path / "absent"])
    with pytest.raises(UsageError, match="no file or folder was named"):
        FolderDataset.from_paths([])
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(UsageError, match="neither a file nor a folder"):
        FolderDataset.from_paths([tmp_path / "pipe.mp4"])
    assert ids(open_dataset("folder", tmp_path)) == []


def test_two_files_of_one_id_are_a_problem_and_the_others_go_on(tmp_path):
    make(tmp_path, "a.mp4", "a.gif", "b.mp4")
    first, second = open_dataset("folder", tmp_path).videos()
    assert (first.id, first.path, first.problem_kind) == ("a", None, "duplicate_id")
    assert str(tmp_path / "a.gif") in first.problem
    assert str(tmp_path / "a.mp4") in first.problem
    assert second.problem is None


def test_two_folders_with_equal_names_inside(tmp_path):
    make(tmp_path, "day1/clip.mp4", "day2/clip.mp4")
    (video,) = FolderDataset.from_paths([tmp_path / "day1", tmp_path / "day2"]).videos()
    assert video.problem_kind == "duplicate_id"
    assert "give the folder above them" in video.problem
    assert ids(FolderDataset.from_paths([tmp_path])) == ["day1/clip", "day2/clip"]


def test_one_file_named_twice_is_one_item(tmp_path):
    make(tmp_path, "a.mp4")
    (video,) = FolderDataset.from_paths([tmp_path, tmp_path / "a.mp4"]).videos()
    assert video.problem is None


def test_links_are_followed_and_loops_end(tmp_path):
    make(tmp_path / "elsewhere", "far.mp4")
    root = make(tmp_path / "root", "sub/a.mp4")
    (root / "linked.mp4").symlink_to(tmp_path / "elsewhere/far.mp4")
    (root / "sub/up").symlink_to(root)
    (root / "self.mp4").symlink_to(root / "self.mp4")
    (root / "gone.mp4").symlink_to(root / "nowhere.mp4")
    dataset = open_dataset("folder", root)
    paths = {video.id: video.path for video in dataset.videos()}
    assert paths == {
        "gone": None,
        "linked": root / "linked.mp4",
        "self": None,
        "sub/a": root / "sub/a.mp4",
    }
    assert dataset.check().missing == ("gone", "self")


def test_names_that_cannot_be_ids(tmp_path):
    make(tmp_path, "bad\nname.mp4", "good.mp4", *["/".join(["x" * 250] * 5) + ".mp4"])
    (tmp_path / os.fsdecode(b"\xff.mp4")).touch()
    videos = open_dataset("folder", tmp_path).videos()
    assert [video.problem_kind for video in videos] == ["bad_id", None, "bad_id", "bad_id"]
    for video in videos:
        video.id.encode()
        (video.problem or "").encode()
        assert "\n" not in video.id + (video.problem or "")


def test_a_folder_has_no_splits(tmp_path):
    with pytest.raises(UsageError, match="no split 'train'"):
        open_dataset("folder", tmp_path).videos("train")


def test_a_folder_that_cannot_be_listed_is_told(tmp_path, monkeypatch):
    make(tmp_path, "shut/a.mp4", "b.mp4")
    scandir = os.scandir

    def refuse(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    dataset = open_dataset("folder", tmp_path)
    assert ids(dataset) == ["b"]
    assert dataset.left_out == (f"{tmp_path / 'shut'} cannot be listed: Permission denied",)
