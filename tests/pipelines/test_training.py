"""Training: what a run leaves, that it can be cut off anywhere, and that wrong input is named."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from cut_training import Cut, CutAt
from made_training import make_dataset, make_job, make_store

from vlpipe.pipelines.answering import answer_question
from vlpipe.pipelines.training import devices
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.evaluation import evaluate_run
from vlpipe.pipelines.training.job import parse_settings
from vlpipe.pipelines.training.loop import Silent, make_fabric, train
from vlpipe.pipelines.training.material import open_material, prepare_run
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.pipelines.training.schedule import LearningRate
from vlpipe.pipelines.training.state import read_state
from vlpipe.pipelines.training.train import resume_training, run_training
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, UsageError, VlpipeError
from vlpipe.stores.exchange import export_features

TESTS = Path(__file__).parent.parent
# Two epochs of six steps, the second with an incomplete group of batches.
SHORT = ("epochs=2", "accumulate=2", "validation_share=0.2", "checkpoint_every_s=0")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tables and a store."""
    folder = tmp_path_factory.mktemp("training")
    make_store(folder / "store", make_dataset(folder / "tables"))
    return folder


@pytest.fixture(scope="module")
def unbroken(place):
    return run_training(make_job(place, "count", *SHORT, out="unbroken"))


def without_times(history):
    return [
        {k: v for k, v in row.items() if k not in ("examples_per_s", "data_wait_share")}
        for row in history
    ]


def assert_same_run(one, other):
    """The two runs have the same curves, weights and figures to the last bit."""
    histories = [without_times(RunFolder(r).read_json("history.json")) for r in (one, other)]
    assert histories[0] == histories[1]
    states = [read_state(RunFolder(r).state) for r in (one, other)]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key]), key
    results = [RunFolder(r).read_facts()["results"] for r in (one, other)]
    assert results[0]["test"]["metrics"] == results[1]["test"]["metrics"]


def test_a_run_leaves_everything_behind(unbroken):
    run = RunFolder(unbroken.run)
    facts = run.read_facts()
    assert facts["status"] == "finished"
    assert facts["store"]["version"] == FeatureStore.open(facts["store"]["url"]).version
    assert set(facts["store"]["features"]) == {"clips", "objects"}
    assert facts["job"]["settings"]["seed"] == 999
    assert len(facts["code"]["source_sha256"]) == 64
    ids = run.read_json("splits.json")["ids"]
    assert {name: len(of) for name, of in ids.items()} == {
        "train": 38, "validation": 10, "test": 16,
    }  # fmt: skip
    assert not set(ids["train"]) & set(ids["validation"])
    assert len((run.path / "predictions-test.tsv").read_text().splitlines()) == 17
    value = unbroken.evaluated["test"].metrics["mse"]
    assert (run.checkpoints / f"Count_{value:.2f}.pth").is_file()
    assert list((run.path / "tensorboard").iterdir())


def test_the_report_stands_alone(unbroken):
    text = (unbroken.run / "report.html").read_text(encoding="utf-8")
    assert "how many times does it happen ?" in text
    assert "3.75 (MASN, tgif)" in text
    assert text.count("<svg") == 2
    for outside in ("http://", "https://", "<script", "@import", "url("):
        assert outside not in text


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_cut_at_any_step_ends_as_if_it_had_not_been(place, unbroken, step):
    job = make_job(place, "count", *SHORT, out=f"cut-{step}")
    with pytest.raises(Cut):
        run_training(job, observer=CutAt(step))
    torch.rand(7)  # whatever the process did in between
    resume_training(job.out)
    assert_same_run(unbroken.run, job.out)


def test_a_killed_process_is_carried_on_from_its_last_checkpoint(place, unbroken):
    job = make_job(place, "count", *SHORT, out="killed")
    prepare_run(job)
    code = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from pathlib import Path\n"
        "from vlpipe.pipelines.training.loop import Silent, make_fabric, train\n"
        "class Kill(Silent):\n"
        "    def on_step(self, progress, num_batches):\n"
        "        if progress.step == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"train(make_fabric('cpu', 1, 'fp32'), Path({str(job.out)!r}), Kill())\n"
    )
    # Bits are those of so many threads.
    count = str(torch.get_num_threads())
    threads = os.environ | {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}
    done = subprocess.run(
        [sys.executable, "-c", code], env=threads, capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr
    assert read_state(RunFolder(job.out).state)["progress"]["step"] == 3
    resume_training(job.out)
    assert_same_run(unbroken.run, job.out)


def test_stopping_keeps_the_step_and_resuming_a_finished_run_changes_nothing(place, unbroken):
    stop = threading.Event()

    class StopAtOnce(Silent):
        def on_step(self, progress, num_batches):
            stop.set()

    job = make_job(place, "count", *SHORT, out="stopped")
    outcome = run_training(job, observer=StopAtOnce(), stop=stop)
    assert outcome.was_interrupted
    assert RunFolder(job.out).read_facts()["status"] == "interrupted"
    assert read_state(RunFolder(job.out).state)["progress"]["step"] == 1
    resume_training(job.out)
    assert_same_run(unbroken.run, job.out)
    before = RunFolder(job.out).best.read_bytes()
    resume_training(job.out)
    assert RunFolder(job.out).best.read_bytes() == before


def test_a_tiny_network_learns_what_the_features_say(place):
    changes = ("epochs=16", "learning_rate=0.003", "model.hidden=32", "model.dropout_scale=0",
               "model.initialisation=he", "model.mask_last_position=false")  # fmt: skip
    outcome = run_training(make_job(place, "frameqa", *changes, out="learns"))
    found = outcome.evaluated["test"]
    assert found.metrics["accuracy"] > 80
    assert found.baseline["accuracy"] < 50


def test_evaluation_repeats_the_run_and_knows_its_splits(unbroken):
    again = evaluate_run(unbroken.run, "test")
    assert again.metrics == unbroken.evaluated["test"].metrics
    assert evaluate_run(unbroken.run, "train").num_examples == 38
    with pytest.raises(UsageError, match=r"no examples of the split 'val'; it has: train"):
        evaluate_run(unbroken.run, "val")


def test_a_question_is_answered_about_a_video_of_the_store(unbroken):
    found = answer_question(unbroken.run, "gif50", "how many times does it happen ?")
    assert 1 <= int(found.answer) <= 10
    with pytest.raises(UsageError, match="neither a video of"):
        answer_question(unbroken.run, "nowhere.mp4", "how many ?")


def test_later_changes_of_the_store_and_the_tables_are_seen(tmp_path):
    job = make_job(tmp_path, "count", *SHORT)
    run = prepare_run(job)
    store = FeatureStore.open(job.store)
    store.delete(["gif0"])
    assert "gif0" in open_material(run).store["clips"]  # the run's snapshot
    table = job.root / "Train_count_question.csv"
    lines = table.read_bytes().splitlines(keepends=True)
    table.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UsageError, match=r"1 (train|validation) examples .* are not in"):
        open_material(run)


def test_examples_without_features_are_left_out_and_counted(tmp_path):
    truth = make_dataset(tmp_path / "tables")
    make_store(tmp_path / "store", truth, without=("gif3", "gif60"))
    facts = prepare_run(make_job(tmp_path)).read_facts()
    assert facts["left_out"] == {"train": ["COUNT3"], "test": ["COUNT60"]}


def test_no_features_at_all_is_a_usage_error(tmp_path):
    truth = make_dataset(tmp_path / "tables")
    make_store(tmp_path / "store", truth, without=[t["name"] for t in truth[:-1]])
    with pytest.raises(UsageError, match="none of the 48 train examples") as caught:
        prepare_run(make_job(tmp_path))
    assert "vlpipe extract" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epoch=3", "epoch: Extra inputs"),
        ("epochs=none", "epochs"),
        ("novalue", "no setting"),
        ("features.sound=vggish", "no slot 'sound'"),
        ("features.appearance_global=none", "needs a feature"),
        ("model.hidden=3", "multiple of 2"),
        ("task.words=3", "task 'count'"),
        ("features.appearance_global=resnet999", "resnet999"),
    ],
)
def test_a_wrong_setting_is_named(place, change, message):
    with pytest.raises(UsageError, match=message):
        prepare_run(make_job(place, "count", change, out="never"))
    assert not (place / "never").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("init_from=nowhere.pth", VlpipeError, "nowhere.pth"),
        ("word_vectors=nowhere.txt", VlpipeError, "nowhere.txt"),
        ("device=cuda", EnvironmentLacks, "cuda"),
        ("features.appearance_local=clips", UsageError, "rows of clips are .*'appearance_local'"),
        ("features.appearance_global=objects", UsageError, "'appearance_global' .* takes A or A x"),
    ],
)
def test_a_run_that_cannot_begin_leaves_no_folder(place, monkeypatch, change, error, message):
    def refuse(name):
        if name == "cuda":
            raise EnvironmentLacks("there is no cuda")
        return torch.device(name)

    monkeypatch.setattr(devices, "open_device", refuse)
    job = make_job(place, "count", *SHORT, change, out="not-begun")
    with pytest.raises(error, match=message):
        run_training(job)
    assert not job.out.exists()
    # A folder that was there before stays, also behind a link.
    job.out.mkdir()
    link = place / "link"
    link.symlink_to(job.out)
    with pytest.raises(error, match=message):
        run_training(job.model_copy(update={"out": link}))
    assert list(job.out.iterdir()) == []
    link.unlink()
    job.out.rmdir()


def test_a_run_goes_on_on_another_device(place, monkeypatch):
    def refuse(name):
        raise EnvironmentLacks(f"there is no {name}")

    run = prepare_run(make_job(place, "count", *SHORT, "device=cuda", out="moved"))
    with monkeypatch.context() as patched:
        patched.setattr(devices, "open_device", refuse)
        with pytest.raises(EnvironmentLacks, match="no cuda"):
            resume_training(run.path)
    resume_training(run.path, device="cpu")
    assert run.job().settings.device == "cpu"
    assert run.read_facts()["status"] == "finished"


def test_what_a_run_has_learnt_is_kept_when_it_cannot_go_on(place, monkeypatch):
    job = make_job(place, "count", *SHORT, out="kept")

    def fail(*_, **__):
        raise EnvironmentLacks("the disk of the figures is full")

    monkeypatch.setattr("vlpipe.pipelines.training.train.evaluate_run", fail)
    with pytest.raises(EnvironmentLacks):
        run_training(job)
    assert RunFolder(job.out).state.is_file()


def test_devices_are_named_and_counted(monkeypatch):
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="there is no device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(EnvironmentLacks, match="'cuda:97' cannot be used here"):
        choose_device("cuda:97")
    # As on a machine with one GPU.
    monkeypatch.setattr(devices, "open_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("cuda").type == "cuda"
    with pytest.raises(EnvironmentLacks, match="2 GPUs are asked for, and there are 1 here"):
        choose_device("cuda", 2)


def test_settings_come_from_a_file_and_changes_stand_above_it(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text('epochs = 3\n[model]\nhidden = 64\nclip_choice = "mean"\n')
    found = parse_settings(path, ["model.hidden=32", "learning_rate=1e-3"])
    assert (found.epochs, found.learning_rate) == (3, 1e-3)
    assert found.model == {"hidden": 32, "clip_choice": "mean"}
    path.write_text("epochs = 0\n")
    with pytest.raises(UsageError, match=r"small\.toml and --set: epochs: .* \(found 0\)"):
        parse_settings(path)
    path.write_text("epochs = ")
    with pytest.raises(UsageError, match="not TOML"):
        parse_settings(path)


def test_a_folder_with_something_in_it_is_left_alone(place, unbroken):
    with pytest.raises(UsageError, match="is there already") as caught:
        prepare_run(make_job(place, "count", out="unbroken"))
    assert "--resume" in caught.value.hint


def test_a_run_may_begin_with_the_weights_of_another(place, unbroken):
    job = make_job(place, "count", "epochs=1", f"init_from={unbroken.run}", out="from")
    model = open_material(prepare_run(job)).build_model()
    wanted, _ = load_model(RunFolder(unbroken.run).best)
    assert all(torch.equal(v, wanted.state_dict()[k]) for k, v in model.state_dict().items())


def test_words_of_another_task_are_taken_over_by_word(place, unbroken):
    job = make_job(place, "frameqa", f"init_from={unbroken.run}", out="other-words")
    material = open_material(prepare_run(job))
    found, words = material.build_model().word_embedding.weight, list(material.task.words())
    source, task = load_model(RunFolder(unbroken.run).best)
    known = list(task.words())
    assert torch.equal(found[words.index("it")], source.words.weight[known.index("it")])
    assert "color" not in known
    assert words.index("it") != known.index("it")


def test_word_vectors_fill_the_words_that_they_have(place, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    vectors = tmp_path / "glove.txt"
    vectors.write_text("many " + "0.5 " * 8 + "\n")
    job = make_job(place, "count", f"word_vectors={vectors}", out="words")
    material = open_material(prepare_run(job))
    words = material.build_model().word_embedding.weight
    assert words[material.task.words().index("many")].tolist() == [0.5] * 8
    vectors.write_text("many 1 2\n")
    with pytest.raises(UsageError, match=r"have 2 numbers.*takes 8"):
        material.build_model()


def test_a_loss_that_is_no_number_stops_the_training(place):
    job = make_job(place, "count", "epochs=1", "learning_rate=1e30", out="diverged")
    with pytest.raises(VlpipeError, match="diverged") as caught:
        run_training(job)
    assert "learning_rate" in caught.value.hint


def test_early_stopping_waits_for_patience(place):
    job = make_job(place, "count", "epochs=30", "patience=2", "learning_rate=1e-9", out="early")
    run = prepare_run(job)
    assert train(make_fabric("cpu", 1, "fp32"), run.path)
    assert len(run.read_json("history.json")) == 3  # the first is best, two are waited for


@pytest.mark.parametrize(
    ("schedule", "epochs", "wanted"),
    [
        ("constant", (0, 7, 90), (1, 1, 1)),
        ("step", (0, 5, 10, 45), (0.2, 1, 0.1, 1e-4)),
        ("cosine", (0, 5, 100), (0.2, 1, 0)),
        ("plateau", (0, 5, 50), (0.2, 1, 1)),
    ],
)
def test_schedules(schedule, epochs, wanted):
    rate = LearningRate(1.0, schedule, 100, 5, is_higher_better=True)
    assert [rate.rate(epoch) for epoch in epochs] == pytest.approx(wanted)


def test_a_plateau_lowers_the_rate_after_three_epochs_without_gain():
    rate = LearningRate(1.0, "plateau", 100, 0, is_higher_better=False)
    for figure in (5.0, 4.0, 4.0, 4.1, 4.2):
        rate.validated(figure)
        assert rate.rate(9) == 1.0
    rate.validated(4.3)
    assert rate.rate(9) == pytest.approx(0.1)
    again = LearningRate(1.0, "plateau", 100, 0, is_higher_better=False)
    again.restore(json.loads(json.dumps(rate.state())))
    assert again == rate


def test_one_hdf5_file_serves_as_the_store(place, unbroken):
    with FeatureStore.open(place / "store") as store:
        export_features(store, "vlpipe-hdf5", place / "one")
    job = make_job(place, "count", *SHORT, out="one-run")
    outcome = run_training(job.model_copy(update={"store": str(place / "one/features.hdf5")}))
    assert_same_run(outcome.run, unbroken.run)
    assert evaluate_run(outcome.run, "test").metrics == unbroken.evaluated["test"].metrics


def test_workers_give_the_same_batches(place, unbroken):
    run = prepare_run(make_job(place, "count", *SHORT, "workers=1", out="workers"))
    train(make_fabric("cpu", 1, "fp32"), run.path)
    wanted = without_times(RunFolder(unbroken.run).read_json("history.json"))
    assert without_times(run.read_json("history.json")) == wanted


def test_validation_by_video_shares_no_video_with_training(tmp_path):
    job = make_job(tmp_path, "count", "validation_by=video", "validation_share=0.3")
    material = open_material(prepare_run(job))
    videos = {
        name: {clip.video_id for example in examples for clip in example.clips}
        for name, examples in material.splits.items()
    }
    assert videos["train"]
    assert videos["validation"]
    assert not videos["train"] & videos["validation"]
