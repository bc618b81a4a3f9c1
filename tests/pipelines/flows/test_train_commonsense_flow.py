"""The Prefect flow of VC R-CNN's training: the core's checkpoint, carried on from where it was."""

import threading

import made_objects
import torch

from vlpipe.extractors.networks.vc_intervention import Confounders
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.pipelines.commonsense_training.confounders import write_confounders
from vlpipe.pipelines.commonsense_training.train import run_commonsense_training


def test_the_flow_makes_the_checkpoint_of_the_core_and_carries_runs_on(tmp_path, monkeypatch):
    from vlpipe.pipelines.train_commonsense_flow import run_commonsense_as_flow, train_commonsense

    made_objects.make_networks_small(monkeypatch)
    data = tmp_path / "objects"
    made_objects.make_objects(data, num_images=4)
    write_confounders(tmp_path, Confounders(torch.ones(80, 1024), torch.full((80,), 1 / 80)))
    names = tmp_path / "names.txt"
    names.write_text("\n".join([*made_objects.LABELS, *(f"other {n}" for n in range(76))]))
    files = {"dictionary": tmp_path / "dictionary.npy", "prior": tmp_path / "prior.npy"}
    files["dictionary_names"] = names
    core, flow = (
        made_objects.make_job(data, tmp_path / name, "iterations=2", **files)
        for name in ("core", "flow")
    )
    wanted = run_commonsense_training(core)
    stop = threading.Event()
    stop.set()
    stopped = run_commonsense_as_flow(flow, stop=stop)
    assert (stopped.was_interrupted, stopped.step) == (True, 1)
    outcome = train_commonsense(flow)
    assert outcome["step"] == 2
    one, other = (Checkpoint.read(path).state for path in (
        wanted.checkpoints[1], flow.out / "model_final.safetensors"))  # fmt: skip
    assert all(torch.equal(one[key], other[key]) for key in one)
