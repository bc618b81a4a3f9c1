"""CT-SAN learns its four tasks from files of the published form, and passes on what it learns."""

import json

import pytest
import torch
from made_sentences import COLORS, VERBS, make_features, make_job, make_tables

from vlpipe.pipelines.answering import answer_question
from vlpipe.pipelines.captioning.caption import caption_videos, write_captions
from vlpipe.pipelines.training.evaluation import evaluate_run
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.pipelines.training.train import run_training
from vlpipe.stores.errors import UsageError

QUICK = "learning_rate=0.02"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct-san")
    make_features(folder / "store", make_tables(folder / "tables"))
    return folder


@pytest.fixture(scope="module")
def described(place):
    return run_training(make_job(place, "description", "epochs=12", model="ct-san")).run


def test_what_is_seen_is_described(described):
    run = RunFolder(described)
    facts = run.read_facts()
    result = facts["results"]["test"]
    assert result["metrics"]["rouge_l"] >= 70
    assert result["metrics"]["cider"] > 2 * result["baseline"]["cider"]
    rows = json.loads((run.path / "predictions-test.json").read_text(encoding="utf-8"))
    assert [row["video_id"] for row in rows] == [f"video{7010 + n}" for n in range(20)]
    told = [set(row["caption"].lower().split()) for row in rows]
    assert sum(len(words & {*COLORS, *VERBS}) == 2 for words in told) >= 15
    again = evaluate_run(described, "test")
    assert again.metrics == result["metrics"]
    assert "cider" in run.report.read_text(encoding="utf-8")


def test_clips_are_captioned(described, tmp_path):
    found = caption_videos(described, ["video7010"])
    (video,) = found.videos
    assert not found.failed
    (event,) = video.events
    assert (event.start_s, event.end_s) == (0.0, round(video.duration_s, 2))
    rows = json.loads((RunFolder(described).path / "predictions-test.json").read_text())
    assert event.sentence == rows[0]["caption"]
    files = write_captions(found, tmp_path)["video7010"]
    assert event.sentence in files.webvtt.read_text(encoding="utf-8")


def test_the_concepts_are_words_of_the_training_sentences(described):
    run = RunFolder(described)
    words = run.read_json("task.json")["words"]
    known = {words[number] for number in run.read_facts()["model_config"]["concept_ids"]}
    assert {"dog", *COLORS, *VERBS} <= known
    assert "a" not in known
    assert not any(word.startswith("<") for word in known)


# Chance is one of 5 sentences; the most frequent word is one of 9.
@pytest.mark.parametrize(("task", "epochs", "least"), [("mc", 9, 45), ("fib", 7, 80)])
def test_what_is_seen_is_learnt(place, task, epochs, least):
    run = run_training(make_job(place, task, f"epochs={epochs}", QUICK, model="ct-san")).run
    facts = RunFolder(run).read_facts()
    result = facts["results"]["test"]
    assert result["metrics"]["accuracy"] >= least > 1.5 * result["baseline"]["accuracy"]
    settings = facts["job"]["settings"]["task"]
    assert settings.get("margin", 1.0) == 1.0  # the paper's, not JSFusion's
    if task == "fib":
        assert answer_question(run, "video7010", "a _____ dog jumps twice").answer in COLORS
    else:
        choices = ["a black dog sings twice", "a red dog jumps twice", "a green dog waits twice"]
        assert answer_question(run, "video7010", "which ?", choices).answer == choices[1]


def test_videos_are_found_and_what_the_user_sets_stands_above_the_paper(place):
    job = make_job(place, "retrieval", "epochs=5", QUICK, "task.margin=2", model="ct-san")
    run = run_training(job).run
    facts = RunFolder(run).read_facts()
    assert facts["job"]["settings"]["task"]["margin"] == 2
    result = facts["results"]["test"]
    assert result["metrics"]["R@5"] >= 60
    assert result["metrics"]["MedR"] < result["baseline"]["MedR"] / 2


def test_the_detector_of_a_description_begins_another_task(place, described):
    changes = ("epochs=1", "learning_rate=1e-9", f"init_from={described}")
    run = run_training(make_job(place, "mc", *changes, out="after", model="ct-san")).run
    first, second = (load_model(RunFolder(path).best)[0].concept for path in (described, run))
    torch.testing.assert_close(
        first.trace_rnn.weight_hh_l0, second.trace_rnn.weight_hh_l0, atol=1e-6, rtol=0
    )


def test_a_list_of_concepts_is_taken_or_named(place, tmp_path):
    path = tmp_path / "concepts.txt"
    path.write_text("Dog\na\nxylophone\n")
    changes = ("epochs=1", f"model.concept_list={path}")
    run = run_training(make_job(place, "fib", *changes, out="listed", model="ct-san")).run
    assert len(RunFolder(run).read_facts()["model_config"]["concept_ids"]) == 2
    changes = ("epochs=1", f"model.concept_list={tmp_path / 'absent'}")
    with pytest.raises(UsageError, match="the list of concept words"):
        run_training(make_job(place, "fib", *changes, out="absent", model="ct-san"))
    assert not (place / "absent").exists()
