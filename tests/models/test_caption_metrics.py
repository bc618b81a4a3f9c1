"""Caption figures against pycocoevalcap and METEOR 1.5, and the dense evaluation by hand."""

import json

import golden_cases
import numpy as np
import pytest

from vlpipe.models.metrics.captioning import caption_scores, tokenised
from vlpipe.models.metrics.dense_captioning import (
    EventCaption,
    evaluate_captions,
    evaluate_detection,
    read_submission,
    submission,
)
from vlpipe.models.metrics.java_scoring import Meteor, java_tokens, missing_for_java
from vlpipe.models.metrics.reduced_meteor import EXACT, EXACT_STEM, ReducedMeteor
from vlpipe.stores.datasets import DenseCaptions
from vlpipe.stores.errors import EnvironmentLacks, UsageError

WANTED = golden_cases.outputs("caption_metrics")
_TEXTS = json.loads((golden_cases.FOLDER / "caption_metrics.json").read_text())["data"]
TOKENS = [item["hypothesis"] for item in _TEXTS["tokenized"]]
REFERENCES = [item["references"] for item in _TEXTS["tokenized"]]
PLAIN = [text for item in _TEXTS["items"] for text in (item["hypothesis"], *item["references"])]
PENN = [t for item in _TEXTS["tokenized"] for t in (item["hypothesis"], *item["references"])]


def test_tokens_are_those_of_stanfords_program():
    assert tokenised(PLAIN) == PENN
    assert tokenised(['He says "hi" (twice); it\u2019s 7:30 p.m.!']) == [
        "he says hi -lrb- twice -rrb- it 's 7:30 p.m."
    ]


def test_bleu_rouge_and_cider_are_those_of_the_coco_evaluation():
    found = caption_scores(TOKENS, REFERENCES)
    for name, whole, each in [
        *((f"bleu_{n + 1}", WANTED["bleu"][n], WANTED["bleu_each"][n]) for n in range(4)),
        ("rouge_l", WANTED["rouge_l"], WANTED["rouge_l_each"]),
        ("cider", WANTED["cider"], WANTED["cider_each"]),
    ]:
        assert found.whole[name] == pytest.approx(float(whole), abs=1e-6)
        np.testing.assert_allclose(found.each[name], each, atol=1e-6)


@pytest.mark.parametrize("name", [EXACT, EXACT_STEM])
def test_reduced_meteor_is_that_of_the_program_without_dictionaries(name):
    found = caption_scores(TOKENS, REFERENCES, meteor=ReducedMeteor(name))
    assert found.whole[name] == pytest.approx(float(WANTED[name]), abs=1e-6)
    np.testing.assert_allclose(found.each[name], WANTED[f"{name}_each"], atol=1e-6)


@pytest.mark.slow  # it reads 62 MB of paraphrases
def test_java_gives_meteor_itself_or_says_what_it_lacks():
    if missing_for_java() is None:
        with Meteor() as meteor:
            found = caption_scores(TOKENS, REFERENCES, meteor=meteor)
        assert found.whole["meteor"] == pytest.approx(float(WANTED["meteor"]), abs=1e-6)
        np.testing.assert_allclose(found.each["meteor"], WANTED["meteor_each"], atol=1e-6)
    else:
        with pytest.raises(EnvironmentLacks, match="cannot run"):
            Meteor()


def test_java_gives_the_same_tokens_or_says_what_it_lacks():
    if missing_for_java() is None:
        assert tokenised(PLAIN, "java") == PENN
        assert java_tokens(["", "a b", ""]) == [[], ["a", "b"], []]
    else:
        with pytest.raises(EnvironmentLacks, match="cannot run"):
            java_tokens(["a"])


def test_without_java_meteor_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EnvironmentLacks, match="there is no java program"):
        java_tokens(["a"])


def test_figures_need_as_many_references():
    with pytest.raises(ValueError, match="1 hypotheses for 2 items"):
        caption_scores(["a"], [["a"], ["b"]])


def annotated(**events):
    """video -> its (start, end, sentence)s"""
    return {
        video: DenseCaptions(video, 100.0, tuple(e[:2] for e in of), tuple(e[2] for e in of))
        for video, of in events.items()
    }


REDUCED = ReducedMeteor(EXACT)


def test_captions_are_scored_by_video_and_then_averaged():
    references = [annotated(a=[(0, 10, "a man runs")], b=[(0, 10, "a dog sits")])]
    right = {"a": [EventCaption(0, 10, "A man runs.")]}
    found = evaluate_captions(right, references, tious=(0.5, 0.9), meteor=REDUCED)
    # One video is said in full, the other has no prediction.
    assert found["bleu_3"] == pytest.approx(50.0, abs=1e-3)
    assert found["meteor_exact/tiou_0.9"] == pytest.approx(50.0)
    assert found["cider"] == 0  # one item: no word is rare


def test_a_prediction_without_partner_lowers_the_mean():
    references = [annotated(a=[(0, 10, "a man runs")])]
    alone = {"a": [EventCaption(0, 10, "a man runs")]}
    more = {"a": [*alone["a"], EventCaption(50, 60, "a man runs")]}
    best = evaluate_captions(alone, references, tious=(0.5,), meteor=REDUCED)
    worse = evaluate_captions(more, references, tious=(0.5,), meteor=REDUCED)
    assert worse["bleu_1"] == pytest.approx(50.0, abs=1e-3)
    assert 0 < worse["meteor_exact"] < best["meteor_exact"] == 100
    # Only the first of a file count.
    assert evaluate_captions(more, references, tious=(0.5,), most=1, meteor=REDUCED) == best


def test_every_pair_that_overlaps_counts_over_all_annotators():
    references = [annotated(a=[(0, 10, "a man runs")]), annotated(a=[(0, 9, "two dogs sit")])]
    found = evaluate_captions({"a": [EventCaption(0, 10, "a man runs")]}, references, tious=(0.5,))
    assert found["bleu_1"] == pytest.approx(50.0, abs=1e-3)
    strict = evaluate_captions(
        {"a": [EventCaption(0, 10, "a man runs")]}, references, tious=(0.95,)
    )
    assert strict["bleu_1"] == pytest.approx(100.0, abs=1e-3)


def test_letters_beyond_ascii_become_blanks():
    references = [annotated(a=[(0, 10, "a man runs")])]
    found = evaluate_captions(
        {"a": [EventCaption(0, 10, "a\u00e9man runs")]}, references, tious=(0.5,)
    )
    assert found["bleu_1"] == pytest.approx(100.0, abs=1e-3)


def test_detection_by_hand():
    references = [
        annotated(a=[(0, 10, ""), (20, 30, ""), (50, 100, "")], b=[(0, 10, "")]),
        annotated(a=[(0, 10, "")]),
    ]
    predictions = {"a": [EventCaption(0, 10), EventCaption(21, 30), EventCaption(40, 41)]}
    found = evaluate_detection(predictions, references, tious=(0.5,))
    # Video a: two of three predictions hit the first annotator's, all events of the second's are
    # hit; video b has no prediction.
    assert found["precision"] == pytest.approx(100 * (2 / 3) / 2)
    assert found["recall"] == pytest.approx(100 * 1 / 2)
    p, r = found["precision"], found["recall"]
    assert found["f1"] == pytest.approx(2 * p * r / (p + r))
    assert found["recall/tiou_0.5"] == found["recall"]


def test_an_overlap_of_exactly_half_is_a_miss():
    references = [annotated(a=[(0, 10, "a man runs")])]
    half = {"a": [EventCaption(0, 5, "a man runs")]}
    assert evaluate_detection(half, references, tious=(0.5,))["recall"] == 0
    assert evaluate_captions(half, references, tious=(0.5,))["bleu_1"] < 1e-3


def test_a_video_without_predictions_or_of_one_empty_list_scores_nothing():
    references = [annotated(a=[(0, 10, "a man runs")])]
    for nothing in ({}, {"a": []}, {"other": [EventCaption(0, 10, "a man runs")]}):
        assert evaluate_detection(nothing, references)["f1"] == 0
        assert evaluate_captions(nothing, references)["bleu_1"] == 0


def test_submissions_travel_as_the_challenge_wants_them(tmp_path):
    path = tmp_path / "submission.json"
    predictions = {"a": [EventCaption(0.5, 10.25, "A man runs")], "b": []}
    path.write_text(json.dumps(submission(predictions)))
    assert read_submission(path) == predictions
    path.write_text(json.dumps({"results": {}}))
    with pytest.raises(UsageError, match="lacks version, external_data"):
        read_submission(path)
    broken = submission(predictions) | {"results": {"a": [{"sentence": "x"}]}}
    path.write_text(json.dumps(broken))
    with pytest.raises(UsageError, match="timestamp"):
        read_submission(path)


def test_figures_are_those_of_the_challenges_own_program():
    wanted = golden_cases.outputs("dense_evaluation")
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
    found = evaluate_captions(predictions, references, most=6)
    found |= evaluate_detection(predictions, references, most=6)
    for name, values in wanted.items():
        for tiou, value in zip((0.3, 0.5, 0.7, 0.9), values, strict=True):
            assert found[f"{name}/tiou_{tiou}"] == pytest.approx(100 * value, abs=1e-6)
