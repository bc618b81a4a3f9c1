"""All pairs in blocks: the same scores as pair by pair, whatever the lengths and block sizes."""

import pytest
import torch
from small_jsfusion import material, small

from vlpipe.models.pair_scores import joined, score_all_pairs


@pytest.mark.parametrize("variant", ["thesis", "public"])
@pytest.mark.parametrize("cells_at_once", [1, 40, 10**6])
def test_blocks_give_the_scores_of_pairs(variant, cells_at_once):
    model = small(variant=variant)
    inputs = material(5, 4)
    calls = []
    with torch.inference_mode():
        wanted = model(**inputs)["score"]
        videos = joined(
            model.encode_video(inputs["video"][part], inputs["video_len"][part])
            for part in (slice(0, 2), slice(2, 5))
        )
        sentences = model.encode_words(inputs["words"], inputs["word_len"])
    found = score_all_pairs(
        model,
        videos,
        sentences,
        cells_at_once=cells_at_once,
        on_progress=lambda *numbers: calls.append(numbers),
    )
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert calls[-1] == (20, 20)


@pytest.mark.parametrize("settings", [{"decoder": "max"}, {"decoder": "last_states"}], ids=str)
def test_ablations_too(settings):
    model, inputs = small(**settings), material(3, 5)
    with torch.inference_mode():
        wanted = model(**inputs)["score"]
        videos = model.encode_video(inputs["video"], inputs["video_len"])
        sentences = model.encode_words(inputs["words"], inputs["word_len"])
    found = score_all_pairs(model, videos, sentences)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_a_blank_has_no_pairs():
    model, inputs = small("fib"), material()
    videos = model.encode_video(inputs["video"])
    sentences = model.encode_words(inputs["words"])
    with pytest.raises(TypeError, match="answers, no scores"):
        model.score_pairs(videos, sentences)
