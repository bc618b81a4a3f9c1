"""JSFusion learns its three tasks from files of the published form, cut off and carried on."""

import csv

import pytest
import torch
from cut_training import Cut, CutAt
from made_sentences import COLORS, make_features, make_job, make_tables

from vlpipe.pipelines.answering import answer_question
from vlpipe.pipelines.training.evaluation import evaluate_run
from vlpipe.pipelines.training.loop import make_fabric, train
from vlpipe.pipelines.training.material import prepare_run
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.state import read_state
from vlpipe.pipelines.training.train import resume_training, run_training


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jsfusion")
    make_features(folder / "store", make_tables(folder / "tables"))
    return folder


@pytest.fixture(scope="module")
def trained(place):
    return {
        task: run_training(make_job(place, task, f"epochs={epochs}")).run
        for task, epochs in (("mc", 8), ("fib", 14))
    }


# Chance is one of 5 sentences; the most frequent word is one of 9.
@pytest.mark.parametrize("task", ["mc", "fib"])
def test_what_is_seen_is_learnt(trained, task):
    run = trained[task]
    facts = RunFolder(run).read_facts()
    result = facts["results"]["test"]
    assert result["metrics"]["accuracy"] >= 80
    assert result["baseline"]["accuracy"] < 50
    assert facts["left_out"] == {"train": [], "test": []}
    again = evaluate_run(run, "test")
    assert again.metrics == result["metrics"]
    with again.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    # The tables of train and of test share keys of rows, as FIB1.
    assert [row["video_id"] for row in rows] == [f"video{7010 + n}" for n in range(20)]
    assert "answer" in rows[0]
    assert "Answer given" in RunFolder(run).report.read_text(encoding="utf-8")


def test_a_choice_that_was_cut_off_ends_as_an_unbroken_one(place):
    unbroken = run_training(make_job(place, "mc", "epochs=2", out="unbroken")).run
    job = make_job(place, "mc", "epochs=2", "checkpoint_every_s=0", out="cut")
    run = prepare_run(job)
    with pytest.raises(Cut):
        train(make_fabric("cpu", 1, "fp32"), run.path, CutAt(9))
    resume_training(run.path)
    states = [read_state(RunFolder(r).state)["model"] for r in (unbroken, run.path)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


def test_a_trained_run_answers(trained):
    blank = answer_question(trained["fib"], "video7010", "a _____ dog jumps twice")
    assert blank.answer in COLORS
    choices = ["a black dog sings twice", "a red dog jumps twice", "a green dog waits twice"]
    assert answer_question(trained["mc"], "video7010", "which ?", choices).answer == choices[1]
