"""Faces: alignment against known transforms, joining to tracks, published layouts, whole clips."""

import numpy as np
import pytest
import torch
from drawn_figures import (
    FaceFinder,
    Figure,
    FigureDetector,
    crossing,
    make_clip,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.faces import Faces
from vlpipe.extractors.people.detectors import PERSON_DETECTORS, PersonDetectorEntry
from vlpipe.extractors.people.face_alignment import (
    ARCFACE_LANDMARKS,
    align_faces,
    similarity_between,
)
from vlpipe.extractors.people.face_detectors import FACE_DETECTORS, FaceDetectorEntry
from vlpipe.extractors.people.face_encoders import FACE_ENCODERS, FaceEncoderEntry
from vlpipe.extractors.samples import Sample
from vlpipe.extractors.track_faces import join_faces
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.stores.errors import UsageError


class MeanColour(nn.Module):
    """A vector of 4: the mean red, green, blue of the middle of a face, and 1."""

    def forward(self, x):
        middle = (x[:, :, 40:72, 40:72].mean(dim=(2, 3)) + 1) / 2  # (N, 3)
        return {"embedding": torch.cat([middle, torch.ones(len(x), 1)], dim=1)}


@pytest.fixture
def look(monkeypatch):
    """Makes detectors of these figures and their faces known as `figures`, and an encoder."""

    def enter(figures, finder=None):
        faces = FaceDetectorEntry(build=lambda min_face: finder or FaceFinder(figures))
        monkeypatch.setitem(FACE_DETECTORS, "figures", faces)
        persons = PersonDetectorEntry(
            build=lambda settings: FigureDetector(figures), has_keypoints=True
        )
        monkeypatch.setitem(PERSON_DETECTORS, "figures", persons)
        monkeypatch.setitem(FACE_ENCODERS, "colour", FaceEncoderEntry(build=MeanColour, width=4))

    return enter


SETTINGS = {"person_boxes": {"detector": "figures"}, "faces": {"detector": "figures"}}


@given(st.floats(-np.pi, np.pi), st.floats(0.05, 20), st.floats(-500, 500), st.floats(-500, 500))
def test_a_similarity_is_found_again(angle, scale, x, y):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = ARCFACE_LANDMARKS @ turn.T + (x, y)
    back = similarity_between(points, ARCFACE_LANDMARKS)
    assert np.allclose(points @ back[:, :2].T + back[:, 2], ARCFACE_LANDMARKS, atol=1e-6)
    assert np.allclose(back[:, :2] @ turn, np.eye(2), atol=1e-9)


@given(st.integers(0, 10_000))
def test_no_near_similarity_is_better(seed):
    random = np.random.default_rng(seed)
    points = ARCFACE_LANDMARKS + random.normal(0, 15, (5, 2))

    def error(matrix):
        return ((points @ matrix[:, :2].T + matrix[:, 2] - ARCFACE_LANDMARKS) ** 2).sum()

    best = similarity_between(points, ARCFACE_LANDMARKS)
    for _ in range(10):
        a, b, x, y = random.normal(0, 0.02, 4)
        change = np.array([[1 + a, -b], [b, 1 + a]])
        other = np.concatenate([change @ best[:, :2], best[:, 2:] + [[x], [y]]], axis=1)
        assert error(best) <= error(other) + 1e-9


def test_a_mirrored_face_is_turned_and_not_mirrored():
    matrix = similarity_between(ARCFACE_LANDMARKS * (-1, 1), ARCFACE_LANDMARKS)
    assert np.linalg.det(matrix[:, :2]) > 0
    with pytest.raises(ValueError, match="all points are one"):
        similarity_between(np.ones((5, 2)), ARCFACE_LANDMARKS)


def test_an_aligned_face_is_cut_out_as_it_is():
    frame = torch.rand(3, 150, 200, generator=torch.Generator().manual_seed(0)) * 255
    (made,) = align_faces(frame, (ARCFACE_LANDMARKS + np.array([31, 17]))[None])
    assert torch.allclose(made, frame[:, 17:129, 31:143], atol=1e-2)


def test_a_turned_face_is_turned_back():
    ys, xs = np.mgrid[0:240, 0:240]
    angle, scale, shift = 0.6, 1.5, np.array([120.0, 30.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    # A picture whose values are the places in the upright face.
    upright = (np.stack([xs, ys], axis=-1) - shift) @ np.linalg.inv(turn).T  # (240, 240, 2)
    frame = torch.from_numpy(np.concatenate([upright, np.ones((240, 240, 1))], axis=-1))
    frame = frame.permute(2, 0, 1).float()
    (made,) = align_faces(frame, (ARCFACE_LANDMARKS @ turn.T + shift)[None])
    within = (made[2] == 1).numpy()
    assert within.mean() > 0.7
    rows, columns = np.mgrid[0:112, 0:112]
    assert np.allclose(made[0].numpy()[within], columns[within], atol=1e-3)
    assert np.allclose(made[1].numpy()[within], rows[within], atol=1e-3)
    assert (made[:, 0, 111] == 0).all() or within[0, 111]


def test_no_faces_give_no_pictures():
    assert align_faces(torch.zeros(3, 20, 20), np.zeros((0, 5, 2))).shape == (0, 3, 112, 112)


def test_a_face_goes_to_the_person_that_it_overlaps_most():
    persons = np.array([[0, 0, 40, 100], [30, 0, 70, 100], [200, 0, 210, 20]])
    faces = np.array([[10, 5, 25, 20], [33, 5, 48, 20], [100, 100, 120, 120], [35, 5, 65, 20]])
    assert join_faces(faces, persons).tolist() == [0, 1, -1, 1]
    assert join_faces(faces, persons[:0]).tolist() == [-1] * 4
    assert join_faces(faces[:0], persons).shape == (0,)


def test_vectors_of_tracks_are_means_of_their_faces(tmp_path, look):
    figures = [*crossing(), Figure((10, 10, 10), (200, 0, 200), lambda k: (80, 20), (14, 30))]
    look(figures)
    clip = make_clip(tmp_path / "clip.mkv", figures, frames=20)
    faces = create_extractor("faces", detector="figures", encoder="colour").extract(clip)
    assert {len(f.rows) for f in faces.values()} == {40}
    assert np.allclose(np.linalg.norm(faces["faces"].rows, axis=1), 1, atol=1e-6)
    made = create_extractor("track_faces", encoder="colour", source_settings=SETTINGS).extract(clip)
    assert made["track_faces_id"].rows.tolist() == [0, 1, 2]
    assert made["track_faces_count"].rows.tolist() == [20, 20, 0]
    assert not made["track_faces"].rows[2].any()
    for row, figure in zip(made["track_faces"].rows[:2], figures, strict=False):
        wanted = np.array([*np.array(figure.face) / 255, 1])
        assert np.allclose(row, wanted / np.linalg.norm(wanted), atol=1e-2)
    assert np.allclose(made["track_faces"].spans, [[0, 20 / 24]] * 3, atol=1e-6)
    raw = create_extractor(
        "track_faces",
        encoder="colour",
        normalise=False,
        source_settings=SETTINGS | {"faces": {"detector": "figures", "normalise": False}},
    ).extract(clip)
    assert np.allclose(raw["track_faces"].rows[:2, 3], 1, atol=1e-6)


def test_clips_without_faces_or_persons(tmp_path, look):
    figures = [Figure((10, 10, 10), (200, 0, 200), lambda k: (80, 50))]
    look(figures)
    clip = make_clip(tmp_path / "turned.mkv", figures, frames=6)
    faces = create_extractor("faces", detector="figures", encoder="colour")
    assert faces.extract(clip)["faces"].rows.shape == (0, 4)
    assert faces.note(None, 0) == "no_faces"
    tracks = create_extractor("track_faces", encoder="colour", source_settings=SETTINGS)
    assert tracks.extract(clip)["track_faces"].rows.tolist() == [[0, 0, 0, 0]]
    empty = make_clip(tmp_path / "empty.mkv", [], frames=6)
    assert tracks.extract(empty)["track_faces"].rows.shape == (0, 4)
    assert tracks.note(None, 0) == "no_persons"


class Odd(nn.Module):
    """Faces without shape, outside, weak, and one that is right."""

    def forward(self, frame):
        good = torch.from_numpy(ARCFACE_LANDMARKS).float()
        points = torch.stack([torch.ones(5, 2), good, good, torch.full((5, 2), torch.nan), good])
        boxes = torch.tensor(
            [[0, 0, 30, 30], [-50, -50, -10, -10], [5, 5, 50, 50], [9, 9, 40, 40], [0, 0, 90, 90]]
        ).float()
        return {"boxes": boxes, "scores": torch.tensor([1, 1, 0.1, 1, 0.8]), "landmarks": points}


def test_faces_that_cannot_be_aligned_are_left_out(look):
    look([], Odd())
    extractor = create_extractor("faces", detector="figures", encoder="colour")
    made = extractor.infer([Sample(np.full((60, 60, 3), 99, np.uint8), (0.0, 0.1))])
    assert made.rows["faces_box"].tolist() == [[0, 0, 60, 60]]
    assert made.counts.tolist() == [1]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Checkpoints in the published layouts, drawn, that find something in almost any picture."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(2)
    network = Faces.build_network(Faces.Config(encoder="iresnet18"))
    Faces.initialise_untrained(network)
    paths = {"iresnet18": folder / "backbone.pth"}
    torch.save(network.encoder.state_dict(), paths["iresnet18"])
    for part in ("pnet", "rnet", "onet"):
        paths[f"mtcnn_{part}"] = folder / f"{part}.pt"
        module = network.detector.get_submodule(part)
        for name, value in module.named_parameters():
            if name in ("conv4_1.bias", "dense5_1.bias", "dense6_1.bias"):
                value.data += torch.tensor([0.0, 2.0])
        torch.save(module.state_dict(), paths[f"mtcnn_{part}"])
    return paths


def test_published_layouts_load_and_make_vectors(files):
    extractor = create_extractor("faces", weights=files, encoder="iresnet18", min_face=40)
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    samples = [Sample(frame, (0.0, 0.1)), Sample(frame[::-1].copy(), (0.1, 0.2))]
    made = extractor.infer(samples)
    assert (made.counts > 0).all()
    assert made.rows["faces"].shape == (made.counts.sum(), 512)
    assert np.allclose(np.linalg.norm(made.rows["faces"], axis=1), 1, atol=1e-5)
    assert np.ptp(made.rows["faces"], axis=0).max() > 1e-3
    alone = extractor.infer(samples[1:])
    for name, rows in alone.rows.items():
        assert np.array_equal(rows, made.rows[name][made.counts[0] :])
    for role, path in files.items():
        Faces.check_checkpoint(role, Checkpoint.read(path))


def test_wrong_names_and_checkpoints_are_named(files):
    with pytest.raises(WeightsMissing, match="non-commercial"):
        create_extractor("faces", weights={k: v for k, v in files.items() if k != "iresnet18"})
    with pytest.raises(WeightsRejected, match="rnet"):
        create_extractor(
            "faces", weights=files | {"mtcnn_rnet": files["mtcnn_onet"]}, encoder="iresnet18"
        )
    with pytest.raises(UsageError, match="mtcnn"):
        configure_extractor("faces", weights="untrained", detector="eyes")
    with pytest.raises(UsageError, match="iresnet50"):
        configure_extractor("faces", weights="untrained", encoder="facenet")
