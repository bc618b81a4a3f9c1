"""The task reid: stories as tensors, labels of tracks, losses, ids, figures, files."""

import numpy as np
import pytest
import torch

from vlpipe.models import create_model
from vlpipe.models.character_ids import track_characters
from vlpipe.models.metrics.story import story_figures
from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.reid import ReidSettings, ReidTask, StoryExample
from vlpipe.models.track_labels import frames_of_seconds, label_tracks
from vlpipe.stores.datasets import Track
from vlpipe.stores.errors import UsageError

FRAMES = range(6)
LEFT, RIGHT = (0, 0, 10, 20), (30, 0, 40, 20)


def track(name, box, frames=FRAMES):
    return Track(name, tuple((frame, *box) for frame in frames))


def clip(*boxes):
    """What a model prepares of a clip with a track for each box, by falling length."""
    rows = [(place, frame, box) for place, box in enumerate(boxes) for frame in FRAMES]
    return {
        "face": torch.eye(4)[: len(boxes)],
        "has_face": torch.ones(len(boxes), dtype=torch.bool),
        "meta": torch.rand(len(boxes), 4),
        "track_row": torch.arange(len(boxes)).flip(0),
        "boxes": torch.tensor([box for *_, box in rows]).float().reshape(-1, 4),
        "box_track": torch.tensor([place for place, *_ in rows]).long(),
        "box_frame": torch.tensor([frame for _, frame, _ in rows]).long(),
        "box_s": torch.tensor([[f / 10, (f + 1) / 10] for _, f, _ in rows]).reshape(-1, 2),
    }


STORY = StoryExample(
    "train:M:1",
    ("a", "b", "c"),
    ("SOMEONE jumps while SOMEONE's dog waits.", "It rains.", "SOMEONE sings."),
    (("ADA", "DAN"), (), ("ADA",)),
    ((track("ADA", LEFT), track("DAN", RIGHT)), (), (track("ADA", RIGHT),)),
    {"ADA": "F", "DAN": "M"},
)
CLIPS = [clip(RIGHT, LEFT), clip(), clip(RIGHT, LEFT)]


def fitted(**settings):
    return ReidTask.fit(ReidSettings(**{"text": "words"} | settings), [STORY], None)


def model_of(task, **settings):
    torch.manual_seed(0)
    sizes = {"hidden": 8, "text_width": 8, "face_width": 4, "motion": False, "parts": False}
    return create_model("cisin", task="reid", **sizes | task.model_settings() | settings).eval()


def test_a_story_lies_side_by_side_with_its_labels():
    batch = fitted().collate([(STORY, CLIPS)])
    assert batch.inputs["token_clip"].tolist() == [[0, 0, 2]]
    # The third clip's other track is nobody's and takes no part.
    assert batch.inputs["track_clip"].tolist() == [[0, 0, 2]]
    assert batch.targets["track_character"].tolist() == [[1, 0, 0]]
    assert batch.targets["token_character"].tolist() == [[0, 1, 0]]
    assert batch.targets["is_female"].tolist() == [[1, 0, 1]]
    assert batch.targets["track_row"].tolist() == [[1, 0, 1]]
    everybody = fitted(protocol="open").collate([(STORY, CLIPS)])
    assert everybody.targets["track_character"].tolist() == [[1, 0, 0, -1]]
    few = fitted(protocol="open", max_tracks=1).collate([(STORY, CLIPS)])
    assert few.inputs["track_clip"].tolist() == [[0, 2]]


def test_a_mentioned_character_has_its_longest_track_alone():
    twice = StoryExample(
        "x", ("a",), ("SOMEONE waits.",), (("ADA",),), ((track("ADA", LEFT), track("ADA", RIGHT)),)
    )
    batch = fitted().collate([(twice, [clip(RIGHT, LEFT)])])
    assert batch.targets["track_row"].tolist() == [[1]]
    both = fitted(protocol="open").collate([(twice, [clip(RIGHT, LEFT)])])
    assert both.targets["track_character"].tolist() == [[0, 0]]


def test_stories_of_other_sizes_are_padded_and_nobody_at_all_is_a_story_too():
    task = fitted()
    alone = StoryExample("x", ("a",), ("It rains.",), ((),))
    batch = task.collate([(STORY, CLIPS), (alone, [clip()])])
    assert batch.inputs["token_clip"][1].tolist() == [-1, -1, -1]
    assert batch.inputs["pieces_length"].tolist()[1] < batch.inputs["pieces"].shape[1]
    model = model_of(task)
    with torch.inference_mode():
        outputs = model(**batch.inputs)
        records = task.decode(outputs, batch)
        (single,) = task.decode(model(**(b := task.collate([(alone, [clip()])])).inputs), b)
    assert records[1]["prediction"] == single["prediction"] == []
    assert torch.isfinite(task.loss(outputs, batch))
    (again,) = task.predict(model, [task.collate([(STORY, CLIPS)])])
    assert again["mention_tracks"] == records[0]["mention_tracks"]
    np.testing.assert_allclose(again["same_mentions"], records[0]["same_mentions"], atol=2e-4)


def test_a_token_stands_for_its_first_piece_and_a_long_story_is_cut_evenly(tmp_path):
    task = fitted()
    inputs, _ = task.encode(STORY)
    told = [task.words()[i] for i in inputs["pieces"]]
    assert told[0] == "[CLS]"
    assert told.count("[SEP]") == 3
    assert [told[i] for i in inputs["someone_at"]] == ["someone"] * 3
    assert [told[i] for i in inputs["action_at"]] == ["jumps", "dog", "sings"]
    cut, _ = fitted(max_pieces=16).encode(
        StoryExample("x", ("a", "b"), ("SOMEONE " + "x " * 30 + "SOMEONE", "SOMEONE y"), ((), ()))
    )
    assert len(cut["pieces"]) <= 16
    assert cut["someone_at"].max() < len(cut["pieces"])

    pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "someone", "jump", "##s", "wait", "dog"]
    (tmp_path / "vocab.txt").write_text("\n".join([*words, "while", "'", "s", "."]))
    task = fitted(vocabulary=tmp_path / "vocab.txt", text="small")
    inputs, _ = ReidTask.from_json(task.to_json()).encode(STORY)
    told = [task.words()[i] for i in inputs["pieces"]]
    assert told[1:8] == ["someone", "jump", "##s", "while", "someone", "'", "s"]
    assert [told[i] for i in inputs["action_at"]] == ["jump", "dog", "[UNK]"]
    (tmp_path / "other.txt").write_text("a\nb\n")
    with pytest.raises(UsageError, match=r"no vocabulary of BERT: \[PAD\]"):
        fitted(vocabulary=tmp_path / "other.txt")
    with pytest.raises(UsageError, match="no vocabulary of them is named"):
        fitted(text="base")


def test_verbs_without_a_parser():
    story = StoryExample("x", ("a",), ("Slowly, SOMEONE and SOMEONE turn to SOMEONE.",), ((),))
    for rule, wanted in (("next_word", ["turn", "turn", "to"]), ("last_but_one", ["someone"] * 3)):
        task = ReidTask.fit(ReidSettings(text="words", verb_rule=rule), [story], None)
        inputs, _ = task.encode(story)
        assert [task.words()[i] for i in inputs["pieces"][inputs["action_at"]]] == wanted
        assert "no parser" in task.notes()[0]


def test_faces_are_laid_over_persons():
    boxes = np.array([[0, 0, 20, 60], [15, 0, 60, 60]] * 3, float)
    ids, frames = np.array([0, 1] * 3), np.repeat([0, 1, 2], 2)
    face = track("ADA", (2, 2, 12, 12), range(3))
    other = track("DAN", (30, 2, 40, 12), range(2))
    assert label_tracks([face, other], boxes, ids, frames, 2) == ["ADA", "DAN"]
    # Two on one person: the one that covers more of it.
    assert label_tracks([other, track("EVE", (16, 0, 50, 50))], boxes, ids, frames, 2)[1] == "EVE"
    assert label_tracks([track("ADA", (2, 2, 12, 12), (7, 8))], boxes, ids, frames, 2) == [None] * 2
    assert label_tracks([face], boxes[:0], ids[:0], frames[:0], 0) == []
    assert frames_of_seconds(np.array([[0.0, 0.1], [0.1, 0.2]]), 10).tolist() == [0, 1]


def test_frames_may_be_counted_at_a_rate_of_their_own():
    named = fitted(fps=10.0).collate([(STORY, CLIPS)])
    assert named.targets["track_character"].tolist() == [[1, 0, 0]]
    late = fitted(fps=0.5).collate([(STORY, CLIPS)])
    assert late.targets["track_character"].tolist() == [[1, 0, 0]]  # all in frame 0
    beyond = fitted(fps=1000.0).collate([(STORY, CLIPS)])  # no frame has an annotated box
    assert beyond.targets["track_character"].tolist() == [[-1]]


def test_the_loss_has_its_terms_and_learns_nothing_from_strangers():
    task, stranger = (
        fitted(),
        StoryExample("x", STORY.video_ids, STORY.sentences, ((None,) * 2, (), (None,))),
    )
    model = model_of(task).train()
    known, unknown = (task.collate([(e, CLIPS)]) for e in (STORY, stranger))
    assert task.loss(model(**known.inputs), known) > 0
    assert task.loss(model(**unknown.inputs), unknown) == 0
    heavier = fitted(weights={"gender": 100})
    torch.manual_seed(1)
    light = task.loss(model(**known.inputs), known)
    torch.manual_seed(1)
    assert heavier.loss(model(**known.inputs), known) > light


def test_ids_pairs_and_the_file_of_the_challenge(tmp_path):
    task = ReidTask.from_json(fitted().to_json())
    batch = task.collate([(STORY, CLIPS)])
    outputs = {
        "C": torch.tensor([[[0.4, 0.2, 0.9], [0.2, 0.4, 0.1], [0.9, 0.1, 0.4]]]),
        "V": torch.tensor([[[1.0, -1, -1], [-1, 1, 1], [-1, 1, 1]]]),
        "G": torch.tensor([[[0.0, 1, 9], [2, 1, 0], [9, 9, 0]]]),
        "gender": torch.tensor([[0.9, 0.2, 0.3]]),
    }
    (record,) = task.decode(outputs, batch)
    assert record["prediction"] == record["answer"] == [0, 1, 0]
    assert record["mention_tracks"] == [1, 0, 2]
    assert [t["character"] for t in record["tracks"]] == ["DAN", "ADA", "ADA"]
    found = task.metrics([record])
    assert found["accuracy"] == found["video"] == found["grounding"] == found["text"] == 100
    assert found["gender"] == pytest.approx(200 / 3)
    assert found["accuracy/all_same"] == pytest.approx(100 / 3)
    assert found["video/all_different"] == pytest.approx(200 / 3)
    assert task.shown(record).is_right
    assert task.shown(record).given.startswith("[0] jumps while [1]'s dog")
    path = task.write_predictions([record], tmp_path, "val")
    assert path.read_bytes() == b"a\t[0],[1]\r\nb\t_\r\nc\t[0]\r\n"
    baseline = task.baseline([STORY], [STORY])
    assert task.metrics(baseline)["accuracy"] == pytest.approx(200 / 3)
    assert baseline[0]["prediction"] == [0, 1, 2]


def test_nobody_known_is_no_figure_and_sets_of_one_count_as_the_papers_say():
    task = fitted()
    stranger = StoryExample("x", STORY.video_ids, STORY.sentences, ((None,) * 2, (), (None,)))
    batch = task.collate([(stranger, CLIPS)])
    record = task.decode(model_of(task)(**batch.inputs), batch)[0]
    assert record["answer"] is None
    assert story_figures([record]) == {}
    one = StoryExample("y", ("a",), ("SOMEONE sings.",), (("ADA",),), ((track("ADA", LEFT),),))
    batch = task.collate([(one, [CLIPS[0]])])
    single = task.decode(model_of(task)(**batch.inputs), batch)[0]
    assert story_figures([single])["text"] == 0
    assert story_figures([single])["text/published"] == 100


def test_tracks_take_the_character_that_is_grounded_on_them():
    same = np.full((5, 5), -1.0)
    for a, b in ((0, 2), (3, 4)):
        same[a, b] = same[b, a] = 1
    # Two mentions of 0 and one of 1 on track 0; track 2 is like it; 3 and 4 are somebody else.
    assert track_characters([0, 1, 0, 1], [0, 0, 0, 1], same) == [0, 1, 0, 2, 2]
    assert track_characters([], [], np.zeros((0, 0))) == []
    assert track_characters([0], [-1], np.ones((1, 1))) == [1]


def test_examples_need_stories_and_sentences_fit_their_clips():
    with pytest.raises(UsageError, match="has no stories"):
        find_task("reid").splits(type("Bare", (), {"name": "bare"})())
    told = fitted().tell(["a", "b"], ["SOMEONE and SOMEONE walk.", ""])
    assert told.characters == ((None, None), ())
    with pytest.raises(UsageError, match="2 clips and 1 sentences with 1 times SOMEONE"):
        fitted().tell(["a", "b"], ["SOMEONE walks."])
    with pytest.raises(UsageError, match="0 times SOMEONE"):
        fitted().tell(["a"], ["Nobody walks."])
