"""The commands train, evaluate, models and ask, as a user calls them."""

import json

import pytest
import typer
from made_training import TINY, make_dataset, make_store
from typer.testing import CliRunner

from vlpipe.pipelines.cli import ask, evaluate, models, train
from vlpipe.pipelines.training.sweep import run_sweep
from vlpipe.stores.errors import UsageError

SETTINGS = [word for change in (*TINY, "epochs=1") for word in ("--set", change)]

app = typer.Typer(pretty_exceptions_enable=False)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("ask")(ask.ask)
app.add_typer(models.app, name="models")


def call(*words):
    """The JSON that a command prints; its errors are raised."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    make_store(folder / "store", make_dataset(folder / "tables"))
    return folder


def train_words(place, task, out):
    return ["train", "masn", "--task", task, "--dataset", "tgif", "--root", place / "tables",
            "--store", place / "store", "--out", out, *SETTINGS]  # fmt: skip


@pytest.fixture(scope="module")
def trained(place):
    out = place / "action"
    return call(*train_words(place, "action", out), "--no-prefect", "--json"), out


def test_training_prints_its_figures(trained, place):
    result, out = trained
    assert result["run"] == str(out)
    assert set(result["metrics"]) == {"validation", "test"}
    table = call("evaluate", out)
    assert f"{result['metrics']['test']['accuracy']:.2f}" in table
    assert "predictions-test.tsv" in table


def test_a_finished_run_resumes_to_the_same(trained):
    result, out = trained
    assert call("train", "--resume", out, "--json") == result


def test_a_question_needs_candidates_and_gets_one_of_them(trained):
    _, out = trained
    words = ["ask", "gif50", "what is done 2 times ?", "--run", out]
    found = call(*words, "--choice", "jump", "--choice", "nod", "--json")
    assert found["answer"] in ("jump", "nod")
    assert len(found["details"]["scores"]) == 2
    with pytest.raises(UsageError, match="chooses among candidates"):
        call(*words)


def test_models_are_listed_and_shown():
    assert "masn" in {m["name"] for m in call("models", "ls", "--json")["models"]}
    shown = call("models", "show", "masn", "--json")
    assert shown["training"] == {"learning_rate": 1e-4, "batch_size": 32, "epochs": 100}
    assert {"task": "count", "dataset": "tgif", "metric": "mse", "value": 3.75,
            "source": "MASN"} in shown["published"]  # fmt: skip
    assert "features.SLOT" in call("models", "show", "masn")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "no model is named"),
        (["train", "masn"], "--task is missing"),
        (["train", "masn", "--resume", "x"], "takes everything from the run"),
        (["train", "--resume", "nowhere"], "is no run"),
        (["train", "--resume", "x", "--set", "epochs=3"], "keeps its settings, but for its device"),
        (["train", "--resume", "x", "--set", "device=gpu"], "device: .* 'gpu'"),
        (["evaluate", "nowhere"], "is no run"),
    ],
)
def test_wrong_use_is_named(words, message):
    with pytest.raises(UsageError, match=message):
        call(*words)


def test_a_sweep_trains_each_seed_once_and_tells_their_spread(place):
    out = place / "sweep"
    result = call(*train_words(place, "frameqa", out), "--seeds", "1,2", "--json")
    accuracies = [run["metrics"]["test"]["accuracy"] for run in result["runs"].values()]
    figures = result["figures"]["test"]["accuracy"]
    assert figures["mean"] == pytest.approx(sum(accuracies) / 2)
    assert (out / "seed-1" / "report.html").is_file()
    before = (out / "seed-1" / "checkpoints" / "best.safetensors").stat().st_mtime_ns
    assert call(*train_words(place, "frameqa", out), "--seeds", "1,2", "--json") == result
    assert (out / "seed-1" / "checkpoints" / "best.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UsageError, match="no numbers"):
        call(*train_words(place, "frameqa", out), "--seeds", "a,b")
    with pytest.raises(UsageError, match="must be different"):
        run_sweep(None, [3, 3])
