"""Retraining: nothing without new data, a fair comparison, and a link that turns for the better."""

import json
import threading

import pytest
import torch
from made_training import make_dataset, make_job, make_store

from vlpipe.pipelines.cli import run as run_command
from vlpipe.pipelines.training import devices
from vlpipe.pipelines.training.retraining import RetrainingJob, compare_runs, retrain
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.runs_folder import RunsFolder, promote_run, read_notes
from vlpipe.stores import Features, FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, UsageError

# Of 48 training examples these have no features at first.
LATE = tuple(f"gif{n}" for n in range(40, 48))


@pytest.fixture
def folder(tmp_path):
    """Tables, and a store that lacks some of their videos."""
    truth = make_dataset(tmp_path / "tables")
    make_store(tmp_path / "store", truth, without=LATE)
    return tmp_path


def retraining_job(folder, *changes, **fields):
    job = make_job(folder, "count", "epochs=1", *changes, out="runs")
    return RetrainingJob(**job.model_dump() | fields)


def add_late_videos(folder):
    """The rows of another store of the same truth, into the one that lacks them."""
    full = make_store(folder / "full", make_dataset(folder / "tables"))
    with FeatureStore.open(folder / "store") as store:
        definitions = [store[name].info.definition for name in ("clips", "objects")]
        with store.writer(definitions) as writer:
            for name in LATE:
                read = {f: full[f].read(name, with_spans=True) for f in ("clips", "objects")}
                writer.add(name, {f: Features(*found) for f, found in read.items()})


@pytest.mark.slow
def test_new_data_are_learnt_and_only_a_better_run_is_promoted(folder):
    job = retraining_job(folder)
    first = retrain(job)
    runs = RunsFolder(job.out)
    assert (first.verdict, first.run, first.current) == (
        "promoted", job.out / "run-0001", job.out / "run-0001",
    )  # fmt: skip

    # Nothing new: nothing is done. A video that no example is about is nothing new either.
    before = sorted(path.name for path in job.out.iterdir())
    assert retrain(job).verdict == "unchanged"
    with FeatureStore.open(folder / "store") as store:
        rows = Features(*store["clips"].read("gif0", with_spans=True))
        with store.writer([store["clips"].info.definition]) as writer:
            writer.add("unasked", {"clips": rows})
    again = retrain(job)
    assert (again.verdict, again.run, again.current) == ("unchanged", None, first.run)
    assert "run-0001" in again.reason
    assert sorted(path.name for path in job.out.iterdir()) == before

    # New videos, and a network that may learn nothing: refused.
    add_late_videos(folder)
    worse = retrain(retraining_job(folder, "learning_rate=1e-9"))
    assert worse.verdict == "refused"
    assert worse.comparison.gain <= 0
    assert "train: 40 examples became 48" in worse.changes
    assert "feature clips: 56 videos became 64" in worse.changes
    assert any(change.startswith("setting learning_rate") for change in worse.changes)
    assert runs.current.path.samefile(first.run)
    assert "not better than run-0001; mse on" in worse.reason

    # One that learns longer: promoted. Both were compared on what neither had learnt.
    better = retrain(retraining_job(folder, "epochs=6"))
    assert better.verdict == "promoted"
    assert better.comparison.gain > 0
    assert runs.current.path.samefile(better.run)
    old, new = (RunFolder(r).read_json("splits.json")["ids"] for r in (first.run, better.run))
    assert set(old["validation"]) <= set(new["validation"])
    assert set(old["train"]) <= set(new["train"])
    assert better.comparison.num_examples == len(new["validation"])
    assert read_notes(RunFolder(better.run))["verdict"] == "promoted"
    turns = [json.loads(line) for line in (job.out / "promotions.jsonl").read_text().splitlines()]
    assert [(t["before"], t["run"]) for t in turns] == [
        (None, "run-0001"),
        ("run-0001", "run-0003"),
    ]

    # The bar can be higher, and a generation that is gone cannot be asked.
    assert compare_runs(RunFolder(better.run), RunFolder(better.run)).gain == 0
    greedy = retrain(retraining_job(folder, "epochs=6", min_gain=100.0, force=True))
    assert (greedy.verdict, greedy.changes) == (
        "refused", ("asked for although nothing has changed",),
    )  # fmt: skip


@pytest.mark.slow
def test_what_was_stopped_is_carried_on_unless_the_data_have_changed(folder):
    job = retraining_job(folder, "epochs=2")
    stop = threading.Event()
    stop.set()
    stopped = retrain(job, stop=stop)
    assert (stopped.verdict, stopped.current) == ("interrupted", None)
    carried_on = retrain(job)
    assert (carried_on.verdict, carried_on.run) == ("promoted", stopped.run)

    job = retraining_job(folder, "epochs=3")
    stopped = retrain(job, stop=stop)
    add_late_videos(folder)
    fresh = retrain(job)
    assert fresh.run == stopped.run.with_name("run-0003")


def test_a_run_that_cannot_begin_is_not_carried_on(folder, monkeypatch):
    def refuse(name):
        raise EnvironmentLacks(f"there is no {name}")

    job = retraining_job(folder, "device=cuda")
    with monkeypatch.context() as patched:
        patched.setattr(devices, "open_device", refuse)
        with pytest.raises(EnvironmentLacks, match="no cuda"):
            retrain(job)
    assert not list(RunsFolder(job.out).runs())
    # One that was stopped goes on on the device that is asked for now.
    stop = threading.Event()
    stop.set()
    stopped = retrain(retraining_job(folder), stop=stop)
    RunFolder(stopped.run).change_device("cuda")
    with monkeypatch.context() as patched:
        patched.setattr(devices, "open_device", torch.device)
        carried_on = retrain(retraining_job(folder))
    assert (carried_on.run, carried_on.verdict) == (stopped.run, "promoted")
    assert RunFolder(stopped.run).job().settings.device == "cpu"


def test_a_folder_is_one_training_and_one_retraining_at_a_time(folder, capsys):
    job = retraining_job(folder)
    with RunsFolder(job.out).locked(), pytest.raises(UsageError, match="another retraining"):
        retrain(job)
    stop = threading.Event()
    stop.set()
    run = retrain(job, stop=stop).run
    other = RetrainingJob(**job.model_dump() | {"task": "frameqa"})
    with pytest.raises(UsageError, match="holds runs of count of tgif"):
        retrain(other)
    with pytest.raises(UsageError, match="cannot be promoted: its status is 'interrupted'"):
        promote_run(RunFolder(run), "by hand")
    assert run_command(["promote", str(run)]) == 2
    assert "hint: vlpipe train --resume" in capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_retrain_and_promote(folder, capsys):
    job = retraining_job(folder)
    settings = [
        word
        for key, value in job.settings.model_dump(mode="json", exclude_defaults=True).items()
        for word in ("--set", f"{key}={json.dumps(value)}")
    ]
    command = [
        *("retrain", "masn", "--task", "count", "--dataset", "tgif"),
        *("--root", str(job.root), "--store", job.store, "--out", str(job.out)),
        *(*settings, "--json"),
    ]
    assert run_command(command) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "promoted"
    assert run_command(command) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "unchanged"
    assert run_command([*command, "--force"]) == 0
    forced = json.loads(capsys.readouterr().out)
    assert forced["verdict"] == "refused"  # the same numbers again
    assert run_command(["promote", forced["run"], "--reason", "to see it"]) == 0
    assert "run-0002" in capsys.readouterr().out
    # What takes a run takes the link.
    assert run_command(["evaluate", f"{job.out}/current", "--split", "test", "--json"]) == 0
    assert "run-0002" in json.loads(capsys.readouterr().out)["predictions"]
