"""SODA against its authors' program, and what it means."""

import itertools
import json

import golden_cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vlpipe.models.metrics.dense_captioning import EventCaption
from vlpipe.models.metrics.java_scoring import Meteor, missing_for_java
from vlpipe.models.metrics.reduced_meteor import EXACT_STEM, ReducedMeteor
from vlpipe.models.metrics.soda import best_in_order, evaluate_soda
from vlpipe.stores.datasets import DenseCaptions
from vlpipe.stores.errors import EnvironmentLacks


def story(*events):
    spans, sentences = zip(*(((s, e), text) for s, e, text in events), strict=True)
    return {"v": DenseCaptions("v", 100.0, spans, sentences)}


REFERENCES = story((0, 10, "a man runs"), (10, 20, "he jumps over a wall"))


@pytest.fixture(scope="module")
def challenge():
    data = json.loads((golden_cases.FOLDER / "dense_evaluation.json").read_text())["data"]
    references = [
        {
            video: DenseCaptions(
                video, of["duration"], tuple(map(tuple, of["timestamps"])), tuple(of["sentences"])
            )
            for video, of in annotator.items()
        }
        for annotator in data["references"]
    ]
    predictions = {
        video: [EventCaption(*e["timestamp"], e["sentence"]) for e in events]
        for video, events in data["submission"]["results"].items()
    }
    return predictions, references


@pytest.mark.parametrize("variant", ["a", "b", "c", "d"])
@pytest.mark.parametrize("is_merged", [True, False])
def test_figures_are_those_of_the_authors_program(challenge, variant, is_merged):
    wanted = golden_cases.outputs("soda")[f"{variant}_{'merged' if is_merged else 'each'}"]
    meteor = ReducedMeteor(EXACT_STEM)
    found = evaluate_soda(*challenge, variant=variant, meteor=meteor, is_merged=is_merged)
    assert list(found.values()) == pytest.approx(wanted.tolist(), abs=1e-9)


def test_the_name_says_which_meteor_it_is(challenge):
    reduced = evaluate_soda(*challenge, variant="c", meteor=ReducedMeteor(EXACT_STEM))
    names = [f"soda_c_{EXACT_STEM}{end}" for end in ("_precision", "_recall", "")]
    assert list(reduced) == names
    assert "soda_d" in evaluate_soda(*challenge, variant="d")
    with pytest.raises(ValueError, match="needs a METEOR"):
        evaluate_soda(*challenge, variant="c")


def test_with_meteor_itself_it_has_its_own_name_or_java_is_said_to_lack():
    right = {"v": [EventCaption(*s, t) for s, t in zip(*told(REFERENCES), strict=True)]}
    if missing_for_java() is None:
        with Meteor() as meteor:
            found = evaluate_soda(right, [REFERENCES], meteor=meteor)
        assert found["soda_c"] == pytest.approx(100, abs=1e-4)
    else:
        with pytest.raises(EnvironmentLacks, match="cannot run"):
            Meteor()


def told(references):
    return references["v"].spans, references["v"].sentences


def test_repeating_a_caption_costs_precision_and_turning_the_story_round_costs_more():
    meteor = ReducedMeteor(EXACT_STEM)

    def f1(*events):
        predictions = {"v": [EventCaption(*event) for event in events]}
        return evaluate_soda(predictions, [REFERENCES], meteor=meteor)["soda_c_meteor_exact_stem"]

    first, second = ((*s, t) for s, t in zip(*told(REFERENCES), strict=True))
    right = f1(first, second)
    repeated = f1(first, second, second)
    turned = f1((*first[:2], second[2]), (*second[:2], first[2]))
    assert right == pytest.approx(100, abs=1e-4)
    assert right > repeated > turned


def test_videos_on_one_side_alone_do_not_count():
    right = [EventCaption(*s, t) for s, t in zip(*told(REFERENCES), strict=True)]
    meteor = ReducedMeteor(EXACT_STEM)
    others = {"v": right, "unknown": right, "empty": []}
    both = REFERENCES | {"empty": REFERENCES["v"], "missing": REFERENCES["v"]}
    assert evaluate_soda(others, [both], meteor=meteor)["soda_c_meteor_exact_stem"] > 99.9
    assert evaluate_soda({}, [both], variant="d") == {
        "soda_d_precision": 0.0, "soda_d_recall": 0.0, "soda_d": 0.0
    }  # fmt: skip


@settings(deadline=None)
@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
        elements=st.integers(0, 4).map(float),
    )
)
def test_no_order_preserving_choice_of_pairs_is_better(weights):
    rows, columns = map(range, weights.shape)
    best = max(
        sum(weights[r, c] for r, c in zip(chosen, places, strict=True))
        for count in range(min(weights.shape) + 1)
        for chosen in itertools.combinations(rows, count)
        for places in itertools.combinations(columns, count)
    )
    assert best_in_order(weights)[0] == best
