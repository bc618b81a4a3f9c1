"""Actions are learnt from windows that overlap, evaluated at a stride, written and shown."""

import json

import pytest
import typer
from made_actions import NAMES, NOBODY, TINY, make_job, make_place
from typer.testing import CliRunner

from vlpipe.pipelines.cli import evaluate, train
from vlpipe.pipelines.training.evaluation import evaluate_run
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.train import run_training
from vlpipe.stores.errors import UsageError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_place(tmp_path_factory.mktemp("actions"))


@pytest.fixture(scope="module")
def trained(place):
    return run_training(make_job(place, "epochs=12")).run


def test_actions_are_learnt_better_than_their_frequencies(trained):
    facts = RunFolder(trained).read_facts()
    result = facts["results"]["test"]
    assert result["metrics"]["mAP"] > 90
    assert result["baseline"]["mAP"] < 55
    history = RunFolder(trained).read_json("history.json")
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert facts["model_config"]["num_classes"] == len(NAMES)
    assert facts["model_config"]["width"] == 8
    assert evaluate_run(trained, "test").metrics == result["metrics"]


def test_predictions_have_the_form_of_the_benchmark(trained):
    lines = (trained / "predictions-test.txt").read_text().splitlines()
    records = RunFolder(trained).read_records("test")
    assert len(lines) == len(records) == 16
    for line, record in zip(lines, records, strict=True):
        video_id, *scores = line.split(" ")
        assert video_id == record["video_id"]
        assert [float(s) for s in scores] == pytest.approx(record["scores"])
        assert all(0 <= float(s) <= 1 for s in scores)
        assert len(scores) == len(NAMES)


def test_the_report_names_the_top_classes(trained):
    page = RunFolder(trained).report.read_text(encoding="utf-8")
    record = RunFolder(trained).read_records("test")[0]
    best, score = next(iter(record["best"].items()))
    assert f"{best} {score:.2f}" in page
    assert "(annotated)" in page
    assert "which actions happen in a video" in page


def test_all_tokens_are_read_where_they_are_stored(place):
    reducer = "model.reducer=weighted_token_wise"
    job = make_job(place, "features.clips=clips_tokens", reducer, "epochs=8", out="tokens")
    facts = RunFolder(run_training(job).run).read_facts()
    assert facts["model_config"]["num_tokens"] == 3
    assert facts["results"]["test"]["metrics"]["mAP"] > 80
    with pytest.raises(UsageError, match=r"reads all tokens of a clip.*one vector of 8") as caught:
        run_training(make_job(place, reducer, out="refused"))
    assert "features.clips=svt_tokens" in caught.value.hint
    assert not (place / "refused").exists()


def test_a_stride_that_is_not_stored_is_refused(place):
    with pytest.raises(UsageError, match="every 4 s are asked for, and the rows of video 'ID"):
        run_training(make_job(place, "task.stride_s=4", "epochs=1", out="stride"))


def test_the_commands_train_and_evaluate(place):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("train")(train.train)
    app.command("evaluate")(evaluate.evaluate)

    def call(*words):
        done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
        return json.loads(done.stdout)

    settings = [w for s in (*TINY, "epochs=2", "task.stride_s=6") for w in ("--set", s)]
    out = place / "commanded"
    result = call(
        "train", "videomamba_classifier", "--task", "classification", "--dataset", "charades",
        "--root", place / "tables", "--store", place / "store", "--out", out, *settings,
        "--no-prefect", "--json",
    )  # fmt: skip
    assert set(result["metrics"]["test"]) == {"mAP", "mAP/unlabelled_ranked"}
    again = call("evaluate", out, "--json")
    assert again["metrics"] == result["metrics"]["test"]
    assert NOBODY in (out / "predictions-test.txt").read_text()
