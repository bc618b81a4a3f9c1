"""Extractors that read the rows of others: order, counts, sharing, failure; toy networks."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from made_media import make_video
from pydantic import Field
from torch import nn

from vlpipe.extractors.extractor import (
    Extractor,
    ExtractorConfig,
    ExtractorSpec,
    Inferred,
    Names,
    Output,
)
from vlpipe.extractors.graph import make_graph, with_sources
from vlpipe.extractors.media import FrameRequest
from vlpipe.extractors.samples import FrameSampler, Sample, SourceRows
from vlpipe.extractors.weights.source import WeightsSource
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.stores import FeatureStore


class Nothing(nn.Module):
    def forward(self, x):
        return {}


class Toy(Extractor):
    version: ClassVar[int] = 1
    gflop_per_sample = 1.0
    description = "for tests"

    @classmethod
    def published_checkpoints(cls):
        return {}

    @classmethod
    def build_network(cls, config):
        return Nothing()

    @classmethod
    def load(cls, network, checkpoints):
        pass

    def to_input(self, samples):
        return torch.from_numpy(samples)


class SpotsConfig(ExtractorConfig):
    fps: float | None = None
    broken_from: int | None = None
    outputs: Names[str] = Field(default=("value",))


class Spots(Toy):
    """Of the n-th frame of a video, n mod 3 rows: n and the mean of the frame."""

    name = "spots"
    Config = SpotsConfig
    batch_size = 4
    rows_keep_span = True
    calls: ClassVar[list[int]] = []

    @classmethod
    def media_request(cls, config):
        return FrameRequest(fps=config.fps)

    @classmethod
    def declare_outputs(cls, config):
        both = {
            "value": Output("spots", "value", (), ()),
            "number": Output("spots_number", "number", (1,), ("n",), dtype="int32"),
        }
        return tuple(both[name] for name in config.outputs)

    def sampler(self, info):
        return Counting()

    def infer(self, samples):
        Spots.calls.append(len(samples))
        counts = np.array([s.context % 3 for s in samples], np.int64)
        rows = {
            "spots": np.repeat([np.float32(s.data.mean()) for s in samples], counts),
            "spots_number": np.repeat([s.context for s in samples], counts)[:, None],
        }
        broken = self.spec.config.broken_from
        if broken is not None and any(s.context >= broken for s in samples):
            rows["spots"] = rows["spots"] * np.nan
        kept = {o.feature for o in self.spec.outputs}
        spans = np.repeat([s.span for s in samples] or np.zeros((0, 2)), counts, axis=0)
        return Inferred(
            {f: np.asarray(r, np.float32 if f == "spots" else np.int32) for f, r in rows.items()
             if f in kept},
            spans, counts,
        )  # fmt: skip


class Counting(FrameSampler):
    def __init__(self):
        self.number = 0

    def push(self, block):
        samples = []
        for sample in super().push(block):
            samples.append(Sample(sample.data, sample.span, self.number))
            self.number += 1
        return samples


class SumConfig(ExtractorConfig):
    fps: float | None = None
    source: str = "spots"


class Joining:
    """Holds frames until the rows of the source come, and checks that they belong together."""

    def __init__(self):
        self.frames = []
        self.is_finished = False

    def push(self, block):
        if not isinstance(block, SourceRows):
            self.frames += [
                (f, tuple(s)) for f, s in zip(block.frames, block.spans.tolist(), strict=True)
            ]
            return []
        frame, span = self.frames.pop(0)
        assert span == tuple(block.span)
        assert block.source == "spots"
        return [Sample(frame, span, (block.rows["number"][:, 0].tolist(), len(block.spans)))]

    def finish(self):
        assert not self.frames
        return []


class Sum(Toy):
    """Of each frame its mean, plus a thousand for every row of the source."""

    name = "sum"
    Config = SumConfig
    batch_size = 3

    @classmethod
    def sources(cls, config):
        from vlpipe.extractors.extractor import Source

        return {"spots": Source(config.source, {"outputs": ("number",)})}

    @classmethod
    def media_request(cls, config):
        return FrameRequest(fps=config.fps)

    @classmethod
    def declare_outputs(cls, config):
        return (Output("sum", "sum", (1,), ("n",)),)

    def sampler(self, info):
        return Joining()

    def infer(self, samples):
        rows = [[s.data.mean() / 255 + 1000 * s.context[1]] for s in samples]
        for sample in samples:
            numbers, count = sample.context
            assert len(numbers) == count
        return Inferred(
            {"sum": np.array(rows, np.float32).reshape(-1, 1)},
            np.array([s.span for s in samples], np.float64).reshape(-1, 2),
            np.ones(len(samples), np.int64),
        )


def spec_of(extractor, sources=None, **settings):
    return ExtractorSpec(
        extractor, extractor.Config(**settings), WeightsSource(), sources=sources or {}
    )


def sum_spec(**settings):
    return spec_of(Sum, {"spots": spec_of(Spots, outputs=("number",), **settings)})


@pytest.fixture
def clip(tmp_path):
    return make_video(tmp_path / "clip.mp4", seconds=0.6, size=(32, 24))


def test_a_reader_gets_frames_and_rows_of_the_same_sample(clip):
    made = sum_spec().build().extract(clip)["sum"]
    counts = np.arange(len(made.rows)) % 3
    assert len(made.rows) == 15
    assert np.array_equal(made.rows[:, 0] // 1000, counts)
    assert np.all(np.diff(made.spans[:, 0]) > 0)


def test_extract_keeps_the_sources_that_it_built(clip):
    extractor = sum_spec().build()
    first = extractor.extract(clip)["sum"]
    built = dict(extractor._source_extractors)
    second = extractor.extract(clip)["sum"]
    assert extractor._source_extractors == built
    assert np.array_equal(first.rows, second.rows)


def test_what_is_asked_for_and_read_is_one_node_with_all_outputs():
    graph = make_graph([sum_spec(), spec_of(Spots)])
    assert list(graph) == ["spots", "sum"]
    assert set(graph["spots"].spec.config.outputs) == {"value", "number"}
    assert graph["sum"].sources == {"spots": "spots"}


def test_a_source_with_other_settings_is_a_node_of_its_own():
    graph = make_graph([spec_of(Spots), sum_spec(fps=5)])
    assert len(graph) == 3
    key = graph["sum"].sources["spots"]
    assert key != "spots"
    assert with_sources(graph, ["sum"]) == [key, "sum"]
    assert with_sources(graph, ["spots"]) == ["spots"]


def test_the_provenance_holds_that_of_the_sources():
    plain, other = (sum_spec(fps=fps).definitions()[0] for fps in (None, 5))
    assert plain.generation != other.generation
    assert plain.provenance["sources"]["spots"]["extractor"]["name"] == "spots"
    assert "sources" not in spec_of(Spots).provenance()


def test_random_weights_of_a_source_mark_its_reader():
    spots = ExtractorSpec(Spots, SpotsConfig(), WeightsSource(is_untrained=True))
    assert spec_of(Sum, {"spots": spots}).definitions()[0].is_untrained
    assert not sum_spec().definitions()[0].is_untrained


@pytest.fixture
def make_store(tmp_path, monkeypatch):
    """Runs specs over four clips, and returns the summary and the store."""
    for name, seconds in (("a", 0.2), ("b", 0.6), ("c", 1.0), ("d", 0.4)):
        (tmp_path / "clips").mkdir(exist_ok=True)
        make_video(tmp_path / "clips" / f"{name}.mp4", seconds=seconds, size=(32, 24))

    def run(*specs, store="store"):
        monkeypatch.setattr(ExtractionJob, "specs", lambda self: list(specs))
        job = ExtractionJob(
            paths=(tmp_path / "clips",),
            store=str(tmp_path / store),
            features=tuple(spec.name for spec in specs),
        )
        return run_extraction(job), FeatureStore.open(job.store)

    return run


def test_a_source_is_made_once_and_stored_only_if_asked_for(make_store):
    Spots.calls.clear()
    summary, store = make_store(sum_spec())
    assert summary.exit_code == 0
    assert store.feature_names == ["sum"]
    assert sum(Spots.calls) == 5 + 15 + 25 + 10
    Spots.calls.clear()
    _, both = make_store(spec_of(Spots, outputs=("value", "number")), sum_spec(), store="both")
    assert sum(Spots.calls) == 5 + 15 + 25 + 10
    assert both["spots_number"]["b"].dtype == np.int32
    assert both["spots_number"]["b"][:, 0].tolist() == [1, 2, 2, 4, 5, 5, 7, 8, 8, 10, 11, 11, 13,
                                                        14, 14]  # fmt: skip
    for video in "abcd":
        assert np.array_equal(both["sum"][video], store["sum"][video])
        assert np.array_equal(
            both["sum"][video][:, 0] // 1000, np.arange(len(both["sum"][video])) % 3
        )


def test_a_reader_is_added_to_a_store_that_has_its_source(make_store):
    make_store(spec_of(Spots))
    summary, store = make_store(spec_of(Spots), sum_spec())
    assert summary.extracted == 4
    assert sorted(store.feature_names) == ["spots", "sum"]
    assert len(store["sum"]["b"]) == 15


def test_rows_of_a_source_that_are_not_finite_fail_its_readers_and_no_other_video(make_store):
    summary, store = make_store(sum_spec(broken_from=20))
    assert summary.exit_code == 0  # the source's values are not read, only its numbers
    spots = spec_of(Spots, outputs=("value", "number"), broken_from=20)
    summary, store = make_store(spots, spec_of(Sum, {"spots": spots}), store="broken")
    assert summary.exit_code == 1
    assert {row["video_id"] for row in store.failed().to_pylist()} == {"c"}
    assert {row["feature"] for row in store.failed().to_pylist()} >= {"spots", "sum"}
    assert len(store["sum"]["b"]) == 15


def test_stored_rows_of_a_source_are_read_back_and_not_made_again(make_store, tmp_path):
    both = spec_of(Spots, outputs=("value", "number"))
    make_store(both)
    Spots.calls.clear()
    summary, store = make_store(both, sum_spec())
    assert summary.extracted == 4
    assert not Spots.calls
    _, fresh = make_store(sum_spec(), store="fresh")
    assert store.digest("sum") == fresh.digest("sum")


def test_rows_of_another_file_or_rounded_rows_are_not_read_back(make_store, tmp_path):
    both = spec_of(Spots, outputs=("value", "number"))
    make_store(both)
    make_video(tmp_path / "clips" / "a.mp4", seconds=0.4, size=(32, 24))
    Spots.calls.clear()
    make_store(sum_spec())
    assert sum(Spots.calls) == 10  # of the changed file alone
    make_store(spec_of(Spots, outputs=("value",)), store="rounded")
    Spots.calls.clear()
    make_store(
        spec_of(Sum, {"spots": spec_of(Spots, outputs=("number", "value"))}), store="rounded"
    )
    assert sum(Spots.calls) == 10 + 15 + 25 + 10
