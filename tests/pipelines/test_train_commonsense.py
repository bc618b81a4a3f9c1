"""Training of VC R-CNN: recipe, exact resume, confounders, and a checkpoint that can be used."""

import json
import re
import shutil
import threading

import made_objects
import numpy as np
import pytest
import torch
import typer
from made_media import make_video
from tensorboardX.proto import event_pb2
from typer.testing import CliRunner

from vlpipe.extractors import create_extractor
from vlpipe.extractors.commonsense import Commonsense
from vlpipe.extractors.networks.vc_intervention import CausalPredictor, Confounders
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork, load_causal
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.pipelines.cli import train_commonsense as command
from vlpipe.pipelines.commonsense_training.confounders import (
    ConfounderSums,
    read_confounders,
    write_confounders,
)
from vlpipe.pipelines.commonsense_training.images import NOT_FLIPPED, RegionDataset, join
from vlpipe.pipelines.commonsense_training.job import (
    CommonsenseSettings,
    parse_commonsense_settings,
)
from vlpipe.pipelines.commonsense_training.loop import Unwatched, build_modules, restore_modules
from vlpipe.pipelines.commonsense_training.network import (
    CommonsenseLearner,
    CommonsenseModules,
    make_optimiser,
    set_rate,
)
from vlpipe.pipelines.commonsense_training.train import (
    prepare_commonsense,
    resume_commonsense_training,
    run_commonsense_training,
    starting_modules,
)
from vlpipe.pipelines.commonsense_training.weights import (
    published_state,
)
from vlpipe.pipelines.training.data import EpochBatches
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.state import read_state
from vlpipe.stores.datasets.coco_instances import read_instances
from vlpipe.stores.errors import UsageError, VlpipeError


@pytest.fixture
def small(monkeypatch):
    made_objects.make_networks_small(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    made_objects.make_objects(folder)
    return folder


@pytest.fixture(scope="module")
def confounders(tmp_path_factory):
    """A drawn dictionary of the four classes, in the published layout."""
    folder = tmp_path_factory.mktemp("confounders")
    torch.manual_seed(3)
    dictionary, prior = torch.zeros(80, 1024), torch.zeros(80)
    dictionary[:4], prior[:4] = torch.rand(4, 1024), torch.tensor([0.4, 0.3, 0.2, 0.1])
    write_confounders(folder, Confounders(dictionary, prior))
    return {"dictionary": folder / "dictionary.npy", "prior": folder / "prior.npy"}


class StopAt(Unwatched):
    """Sets an event after so many steps."""

    def __init__(self, step):
        self.at, self.event = step, threading.Event()

    def on_step(self, step, total):
        if step == self.at:
            self.event.set()


def states_equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(small, data, confounders, tmp_path):
    whole = run_commonsense_training(made_objects.make_job(data, tmp_path / "whole", **confounders))
    assert not whole.was_interrupted
    job = made_objects.make_job(data, tmp_path / "parts", **confounders)
    observer = StopAt(2)  # in the middle of an epoch of three batches
    stopped = run_commonsense_training(job, observer=observer, stop=observer.event)
    assert stopped.was_interrupted
    assert stopped.step == 2
    facts = RunFolder(job.out).read_facts()
    assert facts["status"] == "interrupted"
    assert not (job.out / "model_final.pth").exists()
    observer = StopAt(4)  # and again, in the second epoch
    assert resume_commonsense_training(job.out, observer=observer, stop=observer.event).step == 4
    RunFolder(job.out).change_device("cuda")
    resumed = resume_commonsense_training(job.out, device="cpu")
    assert resumed.figures == whole.figures
    states = [Checkpoint.read(o.checkpoints[1]).state for o in (whole, resumed)]
    assert states_equal(*states)
    histories = [json.loads((o.run / "history.json").read_text()) for o in (whole, resumed)]
    assert histories[0] == histories[1]
    assert [row["step"] for row in histories[0]] == [1, 2, 3, 4, 5]
    # A finished run is only read.
    assert resume_commonsense_training(job.out).figures == whole.figures


def test_it_learns(small, data, confounders, tmp_path):
    # Drawn weights make vectors of pixels' size, which no rate of learning fits.
    modules, _ = starting_modules(made_objects.make_job(data, tmp_path / "none"))
    modules.network.body.bn1.weight.mul_(1 / 300)
    state = published_state(modules.network, modules.causal)
    torch.save({"model": state}, tmp_path / "start.pth")
    job = made_objects.make_job(
        data, tmp_path / "run", "iterations=24", "learning_rate=0.002", "lower_at=[20]",
        weights=str(tmp_path / "start.pth"), **confounders,
    )  # fmt: skip
    outcome = run_commonsense_training(job)
    history = json.loads((job.out / "history.json").read_text())
    for figure in ("loss", "loss_self", "loss_context"):
        assert outcome.figures[figure] < 0.5 * history[0][figure]
    events = list((job.out / "tensorboard").iterdir())
    assert len(events) == 1
    found = _tags(events[0])
    assert {"loss", "loss_self", "loss_context", "accuracy", "learning_rate"} <= found


def _tags(path):
    """Names of the curves in an event file: records of length, checksum, bytes, checksum."""
    data, tags = path.read_bytes(), set()
    while data:
        length = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + length])
        tags |= {value.tag for value in event.summary.value}
        data = data[16 + length :]
    return tags


def test_stem_first_stage_and_normalisation_stay_as_they_are(small, data, confounders, tmp_path):
    job = made_objects.make_job(data, tmp_path / "run", **confounders)
    prepare_commonsense(job)
    before = read_state(RunFolder(job.out).state)["network"]
    resume_commonsense_training(job.out)
    after = read_state(RunFolder(job.out).state)["network"]
    same = {key for key in before if torch.equal(before[key], after[key])}
    for key in before:
        is_fixed = key.startswith(("body.conv1", "body.layer1")) or ".bn" in key
        is_fixed |= "downsample.1" in key or key.startswith("body.bn1")
        # Small boxes are on one level; biases of the others have neither gradient nor decay.
        if not re.fullmatch(r"pyramid\.layer_blocks\.[123]\.0\.bias", key):
            assert (key in same) == is_fixed, key


def test_the_recipe_of_the_authors_is_the_default(small):
    settings = CommonsenseSettings()
    rates = [settings.rate(step) for step in (0, 250, 500, 479_999, 480_000, 640_000)]
    assert rates == pytest.approx([0.0025 / 3, 0.0025 * 2 / 3, 0.0025, 0.0025, 0.00025, 0.000025])
    job_settings = CommonsenseSettings(depth=50, causal_width=8)
    with torch.device("meta"):
        modules = _modules(job_settings)
    learner = CommonsenseLearner(modules, Confounders(torch.zeros(80, 1024), torch.zeros(80)))
    weights, biases = make_optimiser(learner, job_settings).param_groups
    assert (weights["weight_decay"], biases["weight_decay"]) == (1e-4, 0)
    assert weights["momentum"] == 0.9
    assert {p.ndim for p in biases["params"]} == {1}
    assert {p.ndim for p in weights["params"]} == {2, 4}


def _modules(settings):
    return CommonsenseModules(VcRcnnNetwork(settings.depth), CausalPredictor(settings.causal_width))


def test_levels_without_boxes_have_gradients_of_zero(small):
    learner = CommonsenseLearner(
        _modules(CommonsenseSettings(depth=50, causal_width=8)),
        Confounders(torch.rand(80, 1024), torch.full((80,), 1 / 80)),
    )
    boxes = [torch.tensor([[2.0, 2.0, 30.0, 30.0], [20.0, 20.0, 60.0, 60.0]])]
    made = learner(torch.randn(1, 3, 64, 64), boxes, [torch.tensor([1, 2])])
    made["loss"].backward()
    trained = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in trained.values())
    assert not trained["network.pyramid.layer_blocks.3.0.weight"].grad.any()
    assert trained["network.pyramid.layer_blocks.0.0.weight"].grad.any()


def test_confounders_are_computed_from_the_data_and_resumed(small, data, tmp_path):
    job = made_objects.make_job(data, tmp_path / "run", "iterations=1")
    stop = threading.Event()

    class StopEarly(Unwatched):
        def on_confounders(self, done, total):
            if done == 2:
                stop.set()

    outcome = run_commonsense_training(job, observer=StopEarly(), stop=stop)
    assert outcome.was_interrupted
    partial = read_state(job.out / "checkpoints" / "confounders.pt")
    assert partial["num_images"] == 2
    assert not resume_commonsense_training(job.out).was_interrupted
    found = Confounders.read(job.out / "dictionary.npy", job.out / "prior.npy")
    # The same at once, from all features.
    modules, _ = starting_modules(job)
    features, labels = _features(modules.network, data, job.settings)
    wanted = Confounders.of_features(features, labels)
    assert torch.allclose(found.prior, wanted.prior)
    assert found.prior[:4].tolist() == pytest.approx([0.25] * 4)
    size = wanted.dictionary.norm()
    assert size > 0
    assert (found.dictionary - wanted.dictionary).norm() <= 1e-3 * size
    background = np.load(job.out / "dictionary.npy")[0]
    assert not background.any()
    assert json.loads((job.out / "categories.json").read_text()) == list(made_objects.LABELS)


def _features(network, data, settings):
    chosen = read_instances(data / "instances.json").images
    images = RegionDataset(chosen, data / "images", settings)
    found = []
    network.eval()
    for n in range(len(images)):
        batch = join([images[NOT_FLIPPED, n]])
        with torch.inference_mode():
            found.append(network.regions(network.maps(batch.images), batch.boxes))
    return torch.cat(found), torch.cat([images[NOT_FLIPPED, n].labels for n in range(len(images))])


def test_sums_make_the_confounders_of_all_features():
    features, labels = torch.rand(10, 1024), torch.tensor([0, 5, 5, 7, 0, 0, 7, 5, 5, 79])
    sums = ConfounderSums.empty()
    for part in (slice(0, 4), slice(4, 10)):
        sums.add(features[part], labels[part], 1)
    found, wanted = sums.confounders(), Confounders.of_features(features, labels)
    assert torch.allclose(found.dictionary, wanted.dictionary, atol=1e-6)
    assert torch.allclose(found.prior, wanted.prior)


def test_a_dictionary_of_another_label_space_is_refused(data, confounders, tmp_path):
    instances = read_instances(data / "instances.json")
    found = read_confounders(*confounders.values(), None, instances)
    names = tmp_path / "names.txt"
    names.write_text("blue\ngreen\nred\ngold\n")
    turned = read_confounders(*confounders.values(), names, instances)
    # Its rows 0 to 3 are those of blue, green, red and gold.
    for label, row in enumerate((2, 0, 3, 1)):
        assert torch.equal(turned.dictionary[label], found.dictionary[row])
        assert turned.prior[label] == pytest.approx(float(found.prior[row]))
    names.write_text("blue\ngreen\nred\nsilver\n")
    with pytest.raises(UsageError, match="'gold'"):
        read_confounders(*confounders.values(), names, instances)
    coco = Confounders(torch.ones(80, 1024), torch.full((80,), 1 / 80))
    write_confounders(tmp_path, coco)
    with pytest.raises(UsageError, match=r"knows class 79.*only 4 categories"):
        read_confounders(tmp_path / "dictionary.npy", tmp_path / "prior.npy", None, instances)
    coco.prior[0] = 0.5
    write_confounders(tmp_path, coco)
    with pytest.raises(UsageError, match=r"sum to 1\.4875"):
        read_confounders(tmp_path / "dictionary.npy", tmp_path / "prior.npy", None, instances)
    (tmp_path / "prior.npy").write_bytes(b"none")
    with pytest.raises(UsageError, match=r"prior\.npy: not arrays"):
        read_confounders(tmp_path / "dictionary.npy", tmp_path / "prior.npy", None, instances)
    coco.prior[0] = 1 / 80
    coco.dictionary[1:] = 0
    write_confounders(tmp_path, coco)
    with pytest.raises(UsageError, match=r"no vector and prior for 3 classes.*1 \(blue\)"):
        read_confounders(tmp_path / "dictionary.npy", tmp_path / "prior.npy", None, instances)


def test_more_categories_than_classes_are_refused(data, tmp_path):
    content = json.loads((data / "instances.json").read_text())
    content["categories"] += [{"id": 100 + n, "name": str(n)} for n in range(77)]
    shutil.copytree(data, tmp_path / "d")
    made_objects.write_instances(tmp_path / "d", content)
    with pytest.raises(UsageError, match="81 categories"):
        prepare_commonsense(made_objects.make_job(tmp_path / "d", tmp_path / "run"))


def test_what_is_wrong_is_said_before_anything_is_made(small, data, confounders, tmp_path):
    shutil.copytree(data, tmp_path / "d")
    (tmp_path / "d" / "images" / "0.png").unlink()
    job = made_objects.make_job(tmp_path / "d", tmp_path / "run", **confounders)
    with pytest.raises(UsageError, match=r"1 of 6 images.*0\.png"):
        prepare_commonsense(job)
    job = made_objects.make_job(data, tmp_path / "run", "min_objects=3", **confounders)
    with pytest.raises(UsageError, match="6 images"):
        prepare_commonsense(job)
    with pytest.raises(ValueError, match="both or neither"):
        made_objects.make_job(data, tmp_path / "run", prior=confounders["prior"])
    assert not (tmp_path / "run").exists()


def test_annotations_that_change_under_a_run_are_named(small, data, confounders, tmp_path):
    shutil.copytree(data, tmp_path / "d")
    job = made_objects.make_job(tmp_path / "d", tmp_path / "run", **confounders)
    prepare_commonsense(job)
    job.instances.write_text(job.instances.read_text() + " ")
    with pytest.raises(UsageError, match=r"instances\.json is not what"):
        resume_commonsense_training(job.out)


def test_a_diverged_training_says_so_and_keeps_the_checkpoint(small, data, confounders, tmp_path):
    job = made_objects.make_job(
        data, tmp_path / "run", "learning_rate=1e6", "warmup_iterations=0", "iterations=8",
        **confounders,
    )  # fmt: skip
    with pytest.raises(VlpipeError, match="diverged"):
        run_commonsense_training(job)
    assert "progress" not in read_state(RunFolder(job.out).state)


def test_a_trained_checkpoint_makes_features_of_a_video(data, confounders, tmp_path):
    job = made_objects.make_job(data, tmp_path / "run", "iterations=1", **confounders)
    outcome = run_commonsense_training(job)
    for path in outcome.checkpoints:
        checkpoint = Checkpoint.read(path)
        Commonsense.check_checkpoint("vc_rcnn", checkpoint)
        assert load_causal(checkpoint).Wy.weight.shape == (8, 1024)
    boxes = tmp_path / "boxes"
    boxes.mkdir()
    (boxes / "clip.json").write_text(
        json.dumps({"seconds": [0, 0], "labels": [1, 2], "boxes": [[0, 0, 20, 20], [9, 9, 40, 40]]})
    )
    clip = make_video(tmp_path / "clip.mp4", seconds=0.4, size=(64, 48))
    extractor = create_extractor(
        "commonsense", weights={"vc_rcnn": outcome.checkpoints[0]}, depth=50, shorter_edge=64,
        longer_edge=96, fps=5, boxes="given_boxes",
        source_settings={"given_boxes": {"folder": boxes}},
    )  # fmt: skip
    made = extractor.extract(clip)
    state = read_state(RunFolder(job.out).state)
    trained = VcRcnnNetwork(50)
    trained.load_state_dict(state["network"])
    own = extractor.network.state_dict()
    assert states_equal({k: own[k] for k in own}, trained.state_dict())
    assert made["commonsense"].rows.shape == (2, 1024)


@pytest.fixture
def app():
    made = typer.Typer()
    made.command("train-commonsense", epilog=command.EXAMPLE)(command.train_commonsense)
    return made


def test_the_command_trains_and_resumes(small, data, confounders, tmp_path, app):
    out = tmp_path / "run"
    words = ["--instances", data / "instances.json", "--images", data / "images"]
    words += ["--weights", "untrained", "--dictionary", confounders["dictionary"]]
    words += ["--prior", confounders["prior"], "--out", out, "--json", "--no-prefect"]
    for change in ("depth=50", "causal_width=8", "shorter_edge=64", "longer_edge=96",
                   "iterations=2", "device=cpu"):  # fmt: skip
        words += ["--set", change]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    outcome = json.loads(done.stdout)
    assert outcome["step"] == 2
    assert outcome["checkpoints"] == [
        str(out / "model_final.pth"), str(out / "model_final.safetensors")]  # fmt: skip
    assert "step 2 of 2" in done.stderr
    again = CliRunner().invoke(app, ["--resume", str(out)])
    assert again.exit_code == 0
    assert "model_final.pth" in again.stdout
    refused = CliRunner().invoke(app, ["--resume", str(out), "--weights", "untrained"])
    assert isinstance(refused.exception, UsageError)
    missing = CliRunner().invoke(app, [])
    assert "--instances is missing" in str(missing.exception)


def test_settings_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(UsageError, match="epochs"):
        parse_commonsense_settings(None, ["epochs=3"])
    path = tmp_path / "recipe.toml"
    path.write_text("depth = 50\nlower_at = [10, 20]\n")
    found = parse_commonsense_settings(path, ["lower_at=[5]"])
    assert (found.depth, found.lower_at) == (50, (5,))


@pytest.mark.slow
def test_two_devices_share_the_images(data, confounders, tmp_path):
    job = made_objects.make_job(
        data, tmp_path / "run", "iterations=1", "batch_size=1", "devices=2", **confounders
    )
    path = prepare_commonsense(job)
    start = read_state(RunFolder(path).state)
    outcome = resume_commonsense_training(path)
    assert outcome.step == 1
    wanted = _step_by_mean_gradient(job, start)
    found = read_state(RunFolder(path).state)["network"]
    for key in ("fc7.weight", "cls_score.weight", "body.layer2.0.conv1.weight"):
        change = wanted[key] - start["network"][key]
        assert change.norm() > 0
        assert (found[key] - wanted[key]).norm() <= 1e-2 * change.norm(), key
    with pytest.raises(VlpipeError, match="2 devices"):
        _resume_on_one_device(outcome)


def _step_by_mean_gradient(job, start):
    """The weights after a step in which each of two devices saw one image."""
    modules = build_modules(job)
    restore_modules(modules, start)
    found = Confounders.read(job.out / "dictionary.npy", job.out / "prior.npy")
    learner = CommonsenseLearner(modules, found)
    images = RegionDataset(
        read_instances(job.instances).images, job.images, job.settings
    )  # fmt: skip
    for rank in (0, 1):
        order = EpochBatches(len(images), 1, seed=job.settings.seed, rank=rank, world_size=2)
        ((index,), *_) = order
        batch = join([images[0, index]])
        (learner(batch.images, batch.boxes, batch.labels)["loss"] / 2).backward()
    optimiser = make_optimiser(learner, job.settings)
    set_rate(optimiser, job.settings.rate(0))
    optimiser.step()
    return modules.network.state_dict()


def _resume_on_one_device(outcome):
    run = RunFolder(outcome.run)
    facts = run.read_facts()
    facts["job"]["settings"] |= {"devices": 1, "iterations": 4}
    run.write_json("run.json", facts)
    resume_commonsense_training(outcome.run)
