"""Common-sense features: which frames are computed, by whose boxes, and what the rows say of it."""

import itertools
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_media import make_video
from torch import nn

from vlpipe.extractors.commonsense import Commonsense, CommonsenseConfig, scaled_size
from vlpipe.extractors.extractor import Extractor, ExtractorConfig, ExtractorSpec, Inferred, Output
from vlpipe.extractors.media import FrameRequest
from vlpipe.extractors.regions.label_changes import GivenEvents, LabelChanges, Shots, read_events
from vlpipe.extractors.samples import FrameSampler
from vlpipe.extractors.weights.source import WeightsSource
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError

Labels = st.lists(st.frozensets(st.integers(0, 3)), min_size=1, max_size=30)


@given(Labels, st.sets(st.integers(0, 29)))
def test_every_frame_of_every_event_has_one_source_with_its_labels(labels, starts):
    changes = LabelChanges()
    sources = [changes.is_source(found, starts_event=n in starts) for n, found in enumerate(labels)]
    latest = np.maximum.accumulate(np.where(sources, np.arange(len(labels)), 0))
    for n, source in enumerate(latest):
        assert labels[source] == labels[n]
        # No event starts after the source and up to the frame, so both are in the same events.
        assert not any(source < start <= n for start in starts)
    assert sources[0]


@given(Labels)
def test_k_changes_make_k_plus_one_computations(labels):
    changes = LabelChanges()
    computed = sum(changes.is_source(found, starts_event=False) for found in labels)
    assert computed == 1 + sum(a != b for a, b in itertools.pairwise(labels))


def test_events_start_at_the_frame_that_holds_their_start():
    events = GivenEvents([2.5, 0.0, 2.6, 9.0])
    frame = np.zeros((2, 2, 3), np.uint8)
    assert [events.is_start(frame, (t, t + 1.0)) for t in range(5)] == [1, 0, 1, 0, 0]


def test_shots_start_at_cuts():
    shots = Shots(27.0)
    red, blue = (np.full((32, 32, 3), c, np.uint8) for c in ((200, 30, 30), (30, 30, 200)))
    frames = [red] * 4 + [blue] * 4 + [red] * 3
    found = [shots.is_start(frame, (n, n + 1)) for n, frame in enumerate(frames)]
    assert [n for n, is_start in enumerate(found) if is_start] == [4, 8]


def test_events_are_read_from_captions_or_lists(tmp_path):
    path = tmp_path / "events.json"
    path.write_text(json.dumps({"a": {"timestamps": [[1, 2], [0.5, 3]]}, "b": [[4, 5]]}))
    assert read_events(path) == {"a": [1.0, 0.5], "b": [4.0]}
    path.write_text('{"a": {"times": []}}')
    with pytest.raises(UsageError, match=r"events\.json"):
        read_events(path)


class Nothing(nn.Module):
    def forward(self, x):
        return {}


class Boxes(Extractor):
    """Stands for a detector: of each frame the labels that LABELS names, boxes that tell them."""

    name = "given_labels"
    version: ClassVar[int] = 1
    Config = ExtractorConfig
    gflop_per_sample = 1.0
    description = "for tests"
    LABELS: ClassVar[list[list[int]]] = []

    @classmethod
    def published_checkpoints(cls):
        return {}

    @classmethod
    def media_request(cls, config):
        return FrameRequest(fps=5)

    @classmethod
    def declare_outputs(cls, config):
        return (
            Output("given_boxes", "boxes", (4,), ("corner",), "float32"),
            Output("given_labels", "labels", (), (), "int32"),
        )

    @classmethod
    def build_network(cls, config):
        return Nothing()

    @classmethod
    def load(cls, network, checkpoints):
        pass

    def sampler(self, info):
        return FrameSampler()

    def to_input(self, samples):
        return torch.from_numpy(samples)

    def infer(self, samples):
        labels = [self.LABELS[round(s.span[0] * 5)] for s in samples]
        counts = np.array([len(found) for found in labels], np.int64)
        flat = np.array([label for found in labels for label in found], np.int32)
        left = 8.0 * np.arange(len(flat)) % 24
        boxes = np.stack([left, left, left + 20, left + 16], axis=1).astype(np.float32)
        spans = np.repeat(np.array([s.span for s in samples]).reshape(-1, 2), counts, axis=0)
        return Inferred({"given_boxes": boxes, "given_labels": flat}, spans, counts)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", seconds=2, size=(64, 48))


def spec(**settings):
    boxes = ExtractorSpec(Boxes, ExtractorConfig(), WeightsSource())
    settings = {"fps": 5, "depth": 50, "shorter_edge": 64, "longer_edge": 96} | settings
    return ExtractorSpec(
        Commonsense,
        CommonsenseConfig(**settings),
        WeightsSource(is_untrained=True),
        sources={"boxes": boxes},
    )


SCENES = [[1, 2], [2, 1], [1, 2, 2], [], [], [3], [3], [3], [1, 2], [1, 2]]
"""Three changes in ten frames; two frames are empty."""


@pytest.fixture(scope="module")
def extractors():
    return {cache: spec(cache=cache).build() for cache in (True, False)}


@pytest.fixture
def made(extractors, clip, monkeypatch):
    monkeypatch.setattr(Boxes, "LABELS", SCENES)
    calls = dict.fromkeys(extractors, 0)
    for cache, extractor in extractors.items():
        plain = Extractor.run_network

        def counted(self, *x, cache=cache, plain=plain):
            calls[cache] += 1
            return plain(self, *x)

        monkeypatch.setattr(extractor, "run_network", counted.__get__(extractor))
    return {cache: e.extract(clip) for cache, e in extractors.items()}, calls


def test_features_are_computed_where_labels_change(made):
    features, calls = made
    cached, exact = features[True], features[False]
    index = cached["commonsense_index"].rows
    # Of the four computations the one of empty frames needs no network.
    assert calls == {True: 3, False: 8}
    assert sorted(set(index[:, 2].tolist())) == [0, 5, 8]
    assert index[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 5, 6, 7, 8, 8, 9, 9]
    assert exact["commonsense_index"].rows[:, 0].tolist() == [
        0, 0, 1, 1, 2, 2, 2, 5, 6, 7, 8, 8, 9, 9]  # fmt: skip


def test_computed_rows_are_those_of_exact_mode_and_others_repeat_them(made):
    features, _ = made
    cached, exact = features[True], features[False]
    index, every = cached["commonsense_index"].rows, exact["commonsense_index"].rows
    assert np.array_equal(every[:, 0], every[:, 2])
    for row, (_, box, source) in zip(cached["commonsense"].rows, index, strict=True):
        (wanted,) = np.nonzero((every[:, 0] == source) & (every[:, 1] == box))[0]
        assert np.array_equal(row, exact["commonsense"].rows[wanted])
    assert (cached["commonsense"].rows >= 0).all()
    times = cached["commonsense"].spans[:, 0]
    assert np.allclose(times, index[:, 0] / 5)


def test_the_summary_states_the_share_saved(clip, tmp_path, monkeypatch):
    monkeypatch.setattr(Boxes, "LABELS", [[1]] * 10)
    chosen = spec()
    monkeypatch.setattr(ExtractionJob, "specs", lambda self: [chosen])
    job = ExtractionJob(paths=(clip,), store=str(tmp_path / "s"), features=("commonsense",))
    summary = run_extraction(job)
    reuse = summary.reuse["commonsense"]
    assert (reuse.computed, reuse.used) == (1, 10)
    assert reuse.share_saved == pytest.approx(0.9)
    with FeatureStore.open(job.store) as store:
        assert store["commonsense_index"]["clip"][:, 2].tolist() == [0] * 10


def test_given_events_are_part_of_the_provenance_by_content(tmp_path):
    path, copy = tmp_path / "events.json", tmp_path / "copy.json"
    for file in (path, copy):
        file.write_text('{"clip": [[0.5, 1.5]]}')
    plain, one, other = spec(), spec(events_file=path), spec(events_file=copy)
    assert one.definitions()[0].generation == other.definitions()[0].generation
    assert one.definitions()[0].generation != plain.definitions()[0].generation
    assert "events.json" not in json.dumps(one.provenance())
    with pytest.raises(ValueError, match="not there"):
        spec(events_file=tmp_path / "none.json")


def test_a_given_event_makes_a_source(clip, tmp_path, monkeypatch):
    path = tmp_path / "events.json"
    path.write_text('{"clip": [[0.5, 1.5]], "other": [[0.1, 0.2]]}')
    monkeypatch.setattr(Boxes, "LABELS", [[1]] * 10)
    index = spec(events_file=path).build().extract(clip)["commonsense_index"].rows
    assert index[:, 2].tolist() == [0, 0] + [2] * 8


@given(st.integers(200, 3000), st.integers(200, 3000))
def test_frames_are_scaled_within_both_limits(height, width):
    new_height, new_width = scaled_size(height, width, 800, 1333)
    assert max(new_height, new_width) <= 1340
    assert min(new_height, new_width) <= 800
    assert (new_height <= new_width) == (height <= width) or new_height == new_width
