"""How samples of many videos become batches: full, of one shape, in the order of each video."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlpipe.extractors.extractor import Inferred
from vlpipe.extractors.network_batches import NetworkBatches
from vlpipe.extractors.samples import Sample


class Numbers:
    """Its rows are what its samples hold first; it refuses a batch of several shapes."""

    batch_size = 3

    def __init__(self):
        self.sizes = []

    def infer(self, samples):
        assert len({sample.data.shape for sample in samples}) == 1
        self.sizes.append(len(samples))
        rows = np.array([sample.data[0] for sample in samples])
        spans = np.array([sample.span for sample in samples])
        return Inferred({"numbers": rows}, spans, np.ones(len(samples), np.int64))


def sample(number, width):
    return Sample(np.full(width, number, np.float32), (float(number), number + 1.0))


def all_of(batches, numbers_and_widths):
    """What is made of samples (video, key, width), numbered in their order."""
    made = []
    for number, (video, key, width) in enumerate(numbers_and_widths):
        made += batches.add(video, key, [sample(number, width)])
    while not batches.is_empty:
        made += batches.flush()
    return made


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(1, 3))),
    st.sampled_from([20, 10_000]),
)
def test_rows_of_a_video_are_in_the_order_of_its_samples(given_samples, most_bytes):
    networks = {"x": Numbers(), "y": Numbers()}
    batches = NetworkBatches(networks, most_bytes=most_bytes, is_wanted=lambda v, k: True)
    rows = defaultdict(list)
    for made in all_of(batches, given_samples):
        rows[made.video, made.key] += made.inferred.rows["numbers"].tolist()
    for (video, key), found in rows.items():
        assert found == [n for n, s in enumerate(given_samples) if s[:2] == (video, key)]
    assert sum(map(len, rows.values())) == len(given_samples)


def test_videos_of_one_shape_fill_batches_together():
    network = Numbers()
    batches = NetworkBatches({"x": network}, most_bytes=10_000, is_wanted=lambda v, k: True)
    all_of(batches, [(video, "x", 2) for video in "aabcdde"])
    assert network.sizes == [3, 3, 1]


@pytest.mark.parametrize("unwanted", ["a", "b"])
def test_samples_of_a_video_given_up_cost_no_work(unwanted):
    network = Numbers()
    batches = NetworkBatches(
        {"x": network}, most_bytes=10_000, is_wanted=lambda video, key: video != unwanted
    )
    made = all_of(batches, [("a", "x", 1), ("b", "x", 1)])
    assert [m.video for m in made] == [{"a": "b", "b": "a"}[unwanted]]
    assert network.sizes == [1]
