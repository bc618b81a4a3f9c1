"""Boxes from files: which frame has which, what files may hold, and features made of them."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from made_media import make_video

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.given_boxes import GivenBoxes, GivenBoxSampler
from vlpipe.extractors.media import FrameBlock, MediaInfo, VideoStream
from vlpipe.extractors.regions.timed_boxes import find_file, read_boxes, sha256_of_folder
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, UsageError

BOXES = [[0.0, 0.0, 20.0, 20.0], [5.0, 5.0, 30.0, 40.0], [1.0, 2.0, 3.0, 4.0]]
VIDEO = VideoStream(64, 48, 0, 10.0, 20, False, "h264", "yuv420p", 0.0, 2.0)
INFO = MediaInfo("clip.mp4", "mp4", 2.0, 1, "0" * 64, VIDEO, None, "pyav")


def write(folder, name="clip.json", **arrays):
    folder.mkdir(exist_ok=True)
    path = folder / name
    if path.suffix == ".json":
        path.write_text(json.dumps(arrays))
    else:
        np.savez(path, **arrays)
    return path


def given(tmp_path, **arrays):
    return read_boxes(write(tmp_path / "boxes", **arrays), max_boxes=100)


def labels_of_frames(found, *, fps, num_frames, within_s=None, info=INFO):
    """The labels that each of so many frames at that rate gets."""
    starts = np.arange(num_frames) / (fps or info.video.average_fps)
    spans = np.stack([starts, starts + starts[1]], axis=1)
    sampler = GivenBoxSampler(found, fps=fps, within_s=within_s, info=info)
    half = num_frames // 2
    frames = np.zeros((num_frames, 2, 2, 3), np.uint8)
    samples = sampler.push(FrameBlock(0, frames[:half], spans[:half], 0))
    samples = [*samples, *sampler.push(FrameBlock(0, frames[half:], spans[half:], half))]
    assert sampler.finish() == []
    return [sample.context[1].tolist() for sample in samples]


def test_a_frame_has_the_boxes_of_the_nearest_time(tmp_path):
    found = given(tmp_path, seconds=[1.1, 0.0, 1.1], labels=[7, 8, 9], boxes=BOXES)
    assert labels_of_frames(found, fps=2, num_frames=4) == [[8], [], [7, 9], []]
    assert labels_of_frames(found, fps=2, num_frames=4, within_s=0.6) == [[8], [8], [7, 9], [7, 9]]
    assert found.boxes[1].tolist() == [BOXES[0], BOXES[2]]
    # Half a frame away from both neighbours: the earlier time, and both frames have it.
    halves = given(tmp_path, seconds=[0.25, 0.75], labels=[1, 2], boxes=BOXES[:2])
    assert labels_of_frames(halves, fps=2, num_frames=3) == [[1], [1], [2]]


def test_frames_are_numbers_of_the_source(tmp_path):
    found = given(tmp_path, frames=[0, 5, 6, 15], labels=[1, 2, 3, 4], boxes=[BOXES[0]] * 4)
    assert labels_of_frames(found, fps=2, num_frames=4) == [[1], [2], [], [4]]
    every = labels_of_frames(found, fps=None, num_frames=20)
    assert {n: labels for n, labels in enumerate(every) if labels} == {
        0: [1], 5: [2], 6: [3], 15: [4]}  # fmt: skip
    late = dataclasses.replace(INFO, video=dataclasses.replace(VIDEO, start_s=0.5))
    assert labels_of_frames(found, fps=2, num_frames=4, info=late) == [[], [1], [2], []]


def test_both_forms_hold_the_same(tmp_path):
    arrays = {"seconds": [0.5, 0.0], "labels": [3, 4], "boxes": BOXES[:2]}
    one = given(tmp_path, **arrays)
    write(tmp_path / "b", "clip.npz", **{name: np.array(v) for name, v in arrays.items()})
    other = read_boxes(tmp_path / "b" / "clip.npz", 100)
    assert one.times == other.times == (0.0, 0.5)
    assert all(np.array_equal(a, b) for a, b in zip(one.boxes, other.boxes, strict=True))
    assert [labels.tolist() for labels in other.labels] == [[4], [3]]
    assert other.boxes[0].dtype == np.float32
    assert other.labels[0].dtype == np.int32


def test_a_file_without_boxes_is_a_video_without_objects(tmp_path):
    found = given(tmp_path, seconds=[], labels=[], boxes=[])
    assert labels_of_frames(found, fps=2, num_frames=4) == [[]] * 4


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"labels": [1], "boxes": BOXES[:1]}, "found the arrays labels, boxes"),
        ({"seconds": [0], "frames": [0], "labels": [1], "boxes": BOXES[:1]}, "found the arrays"),
        ({"seconds": [0], "boxes": BOXES[:1]}, "no array 'labels'"),
        ({"seconds": [0, 1], "labels": [1], "boxes": BOXES[:1]}, "shapes"),
        ({"seconds": [0], "labels": [1], "boxes": [[1, 2, 3]]}, "shapes"),
        ({"seconds": [0], "labels": [1.5], "boxes": BOXES[:1]}, "labels are float64"),
        ({"seconds": [0], "labels": ["cat"], "boxes": BOXES[:1]}, "labels are"),
        ({"seconds": [0], "labels": [2**40], "boxes": BOXES[:1]}, "32-bit"),
        ({"seconds": [0, 1], "labels": [1, 1], "boxes": [BOXES[0], [9, 0, 8, 1]]}, "row 1 has x2"),
        ({"seconds": [float("nan")], "labels": [1], "boxes": BOXES[:1]}, "row 0 is not finite"),
        ({"seconds": [0] * 101, "labels": [1] * 101, "boxes": [BOXES[0]] * 101}, "max_boxes=100"),
        ({"seconds": [0], "labels": [1], "boxes": [[1, 2], [3]]}, "clip.json"),
    ],
)
def test_bad_files_are_named_with_what_is_wrong(tmp_path, arrays, named):
    with pytest.raises(MediaError, match=named) as caught:
        given(tmp_path, **arrays)
    assert "clip.json" in caught.value.message
    assert "boxes (N, 4)" in caught.value.hint


def test_other_content_is_refused_and_named(tmp_path):
    for name, content in (
        ("a.json", b"[1]"),
        ("b.json", b"{"),
        ("c.npz", b"x"),
        ("d.json", b"\xff"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(MediaError, match=name):
            read_boxes(path, 100)
    objects = np.array([{}], dtype=object)
    np.savez(tmp_path / "e.npz", boxes=objects, labels=objects, seconds=objects)
    with pytest.raises(MediaError, match=r"e\.npz.*pickle"):
        read_boxes(tmp_path / "e.npz", 100)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("boxes.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(257):
            member.write(bytes(2**20))
    with pytest.raises(MediaError, match="unpacks to more"):
        read_boxes(tmp_path / "f.npz", 100)


def test_names_of_videos_lead_nowhere_else(tmp_path):
    write(tmp_path / "boxes", "..json", seconds=[], labels=[], boxes=[])
    secret = write(tmp_path, "secret.json", seconds=[], labels=[], boxes=[])
    for name in ("../secret.mp4", "/../../secret.mp4", str(secret), "..", "x/..\\secret.mp4"):
        with pytest.raises(MediaError, match="has no boxes"):
            find_file(tmp_path / "boxes", name)
    write(tmp_path / "boxes", "two.json", seconds=[], labels=[], boxes=[])
    write(tmp_path / "boxes", "two.npz", seconds=[], labels=[], boxes=[])
    with pytest.raises(MediaError, match="two files"):
        find_file(tmp_path / "boxes", "/videos/two.mp4")


def test_provenance_follows_the_content_of_the_folder(tmp_path):
    for name in ("one", "copy"):
        write(tmp_path / name, seconds=[0], labels=[1], boxes=BOXES[:1])
    (tmp_path / "copy" / "notes.txt").write_text("not read")

    def spec(name):
        return configure_extractor("given_boxes", folder=tmp_path / name)

    first = spec("one").definitions()[0].generation
    assert spec("copy").definitions()[0].generation == first
    assert str(tmp_path) not in json.dumps(spec("one").provenance())
    write(tmp_path / "copy", seconds=[0], labels=[2], boxes=BOXES[:1])
    assert spec("copy").definitions()[0].generation != first
    (tmp_path / "one" / "clip.json").rename(tmp_path / "one" / "clap.json")
    assert sha256_of_folder(tmp_path / "one") != spec("copy").config.folder_sha256
    assert spec("one").definitions()[0].generation != first
    with pytest.raises(UsageError, match="not there"):
        spec("none")


def test_without_a_folder_it_says_what_to_set():
    with pytest.raises(EnvironmentLacks, match="no folder") as caught:
        create_extractor("given_boxes").sampler(INFO)
    assert "given_boxes.folder" in caught.value.hint


def test_numbers_of_frames_need_a_steady_rate(tmp_path):
    write(tmp_path / "boxes", frames=[0], labels=[1], boxes=BOXES[:1])
    uneven = dataclasses.replace(INFO, video=dataclasses.replace(VIDEO, is_variable_rate=True))
    extractor = create_extractor("given_boxes", folder=tmp_path / "boxes")
    with pytest.raises(MediaError, match="varies"):
        extractor.sampler(uneven)
    whole = create_extractor("given_boxes", folder=tmp_path / "boxes", fps=None)
    assert isinstance(whole.sampler(uneven), GivenBoxSampler)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=2, size=(64, 48))


def test_rows_are_the_boxes_of_the_frames(clip, tmp_path):
    write(tmp_path / "boxes", seconds=[0, 1, 1], labels=[5, 6, 7], boxes=BOXES)
    made = create_extractor("given_boxes", folder=tmp_path / "boxes").extract(clip)
    assert made["given_boxes"].rows.tolist() == BOXES
    assert made["given_boxes_labels"].rows.tolist() == [5, 6, 7]
    assert made["given_boxes"].spans.tolist() == [[0, 0.5], [1, 1.5], [1, 1.5]]


@pytest.fixture
def job(clip, tmp_path):
    """Common-sense features of boxes of any labels, outside the frame, and without area."""
    write(
        tmp_path / "boxes", seconds=[0, 0, 0, 1], labels=[1599, 2, 2, -1],
        boxes=[[-30, -10, 20, 20], [10, 10, 10, 10], [70, 60, 90, 90], [0, 0, 63, 47]],
    )  # fmt: skip
    return ExtractionJob(
        paths=(clip,),
        store=str(tmp_path / "store"),
        features=("commonsense",),
        settings={
            "commonsense": {
                "boxes": "given_boxes", "depth": 50, "shorter_edge": 64, "longer_edge": 96},
            "given_boxes": {"folder": str(tmp_path / "boxes")},
        },
        weights={"*": "untrained"},
    )  # fmt: skip


def test_common_sense_features_come_of_given_boxes(job):
    summary = run_extraction(job)
    assert summary.reuse["commonsense"].computed == 2
    with FeatureStore.open(job.store) as store:
        features = store["commonsense"]["clip"]
        boxes, labels = store["commonsense_boxes"]["clip"], store["commonsense_labels"]["clip"]
        assert store["commonsense_index"]["clip"][:, 0].tolist() == [0, 0, 0, 2]
    # Cut to the frame, whose last pixel is (63, 47); empty boxes are kept. Labels are as given.
    assert boxes.tolist() == [[0, 0, 20, 20], [10, 10, 10, 10], [63, 47, 63, 47], [0, 0, 63, 47]]
    assert labels.tolist() == [1599, 2, 2, -1]
    assert features.shape == (4, 1024)
    assert np.isfinite(features).all()
    assert (features >= 0).all()
    assert not np.array_equal(features[0], features[3])


def test_a_video_without_a_file_fails_and_its_siblings_go_on(job, tmp_path):
    other = make_video(tmp_path / "other.mp4", seconds=1, size=(64, 48))
    changes = {
        "paths": (*job.paths, other),
        "features": ("given_boxes",),
        "settings": {"given_boxes": job.settings["given_boxes"]},
    }
    job = job.model_copy(update=changes)
    summary = run_extraction(job)
    assert summary.exit_code == 1
    (failure,) = summary.failed
    assert failure.id == "other"
    assert "has no boxes: looked for other.npz or other.json" in failure.message
    with FeatureStore.open(job.store) as store:
        assert len(store["given_boxes"]["clip"]) == 4


def test_the_description_names_no_network():
    assert GivenBoxes.published_checkpoints() == {}
