"""The gaze network learns from tables and features where people look, cut off and carried on."""

import numpy as np
import pytest
import torch
from cut_training import Cut, CutAt
from made_gaze import make_job

from vlpipe.pipelines.training.evaluation import evaluate_run
from vlpipe.pipelines.training.loop import make_fabric, train
from vlpipe.pipelines.training.material import prepare_run, survey_job
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.state import read_state
from vlpipe.pipelines.training.train import resume_training, run_training
from vlpipe.pipelines.training.what_is_read import changes_between, what_is_read


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("gaze")


def test_what_is_lit_is_looked_at(place):
    run = run_training(make_job(place, "epochs=8")).run
    result = RunFolder(run).read_facts()["results"]["test"]
    figures, baseline = result["metrics"], result["baseline"]
    assert figures["CC"] > 0.8 > baseline["CC"] + 0.3
    assert figures["sAUC"] > 0.8 > baseline["sAUC"] + 0.2
    assert figures["AUC"] > 0.9
    assert figures["CC"] == pytest.approx((figures["CC/hollywood2"] + figures["CC/other"]) / 2)
    # Nobody looked at the last row of each of the six clips, in either.
    assert figures["frames_without_gaze"] == baseline["frames_without_gaze"] == 6
    assert figures["frames"] == baseline["frames"]
    history = RunFolder(run).read_json("history.json")
    assert history[-1]["loss"] < history[0]["loss"] - 1
    again = evaluate_run(run, "test")
    assert again.metrics == figures
    with np.load(again.predictions) as found:
        assert list(found["clip"]) == [f"clip{n}" for n in range(22, 28)]
        assert found["map"].shape == (found["num_rows"].sum(), 49, 49)
        assert np.allclose(found["map"].sum(axis=(1, 2)), 1, atol=1e-3)
        assert len(found["frames/other"]) + len(found["frames/hollywood2"]) == figures["frames"]
        assert (found["num_subjects"][found["frames/other"]] == 3).all()
        num_frames = len(found["frames/other"])
        assert found["others/other"].shape == (num_frames, min(10, num_frames - 1))
    report = RunFolder(run).report.read_text(encoding="utf-8")
    assert "frames_without_gaze" in report
    assert "0.588 (RGP, Hollywood2)" in report


def test_a_retraining_sees_every_sample(tmp_path):
    job = make_job(tmp_path, num_clips=12)
    table = tmp_path / "tables" / "gaze.tsv"
    later = [f"hollywood2\tclip00\tada\t{50 + n / 500}\t9\t9\t1\n" for n in range(2000)]
    with table.open("a") as file:
        file.writelines(later)
    before = what_is_read(survey_job(job))
    assert changes_between(before, what_is_read(survey_job(job))) == ()
    table.write_text(table.read_text().replace(later[1000], later[1000].replace("\t9\t", "\t8\t")))
    assert changes_between(before, what_is_read(survey_job(job))) == (
        "train: 6 examples became 6 (others)",
    )


def test_a_run_that_was_cut_off_ends_as_an_unbroken_one(place):
    unbroken = run_training(make_job(place, "epochs=1", out="unbroken")).run
    job = make_job(place, "epochs=1", "checkpoint_every_s=0", out="cut")
    run = prepare_run(job)
    with pytest.raises(Cut):
        train(make_fabric("cpu", 1, "fp32"), run.path, CutAt(3))
    resume_training(run.path)
    states = [read_state(RunFolder(r).state)["model"] for r in (unbroken, run.path)]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key
