"""What a training of VC R-CNN starts from, and the published layout that it ends in.

A start is a checkpoint of VC R-CNN or of another detector of maskrcnn-benchmark, of which all that
fits is taken, or a residual network of ImageNet in Caffe's form: the MSRA models as Caffe2 pickled
them (`R-101.pkl`: `conv1_w`, `res2_0_branch2a_w`, `res2_0_branch2a_bn_s`, ...) or with the names of
detectron2 and maskrcnn-benchmark (`stem.conv1.weight`, `res2.0.conv1.weight`, `layer1.0...`).
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.vc_intervention import CausalPredictor
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork, load_causal, own_key
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.extractors.weights.foreign.array_pickle import read_array_pickle
from vlpipe.extractors.weights.source import UNTRAINED

_CAUSAL = "roi_heads.box.causal_predictor."
_BRANCHES = {"2a": "1", "2b": "2", "2c": "3"}


def starting_weights(network: VcRcnnNetwork, causal: CausalPredictor, weights: str) -> list[str]:
    """Fills both as a training begins; the parts that were taken from `weights` come back.

    What is not taken is drawn: the layers of detection as maskrcnn-benchmark draws them.
    Raises WeightsMissing or WeightsRejected for a file without a residual network of that depth.
    """
    _draw_heads(network)
    if weights == UNTRAINED:
        network.initialise_untrained()
        return []
    checkpoint = _read(Path(weights))
    if any(key.startswith(_CAUSAL) for key in checkpoint.state):
        network.load(checkpoint)
        causal.load_state_dict(_causal_of(checkpoint, causal))
        return ["body", "pyramid", "fc6", "fc7", "cls_score", "causal_predictor"]
    state = {_start_key(key): value for key, value in checkpoint.state.items()}
    body = {k.removeprefix("body."): v for k, v in state.items() if k.startswith("body.")}
    if "conv1.weight" not in body:
        raise WeightsRejected(
            f"{checkpoint.path}: no residual network in Caffe's form is in it",
            hint="give MSRA's R-50.pkl or R-101.pkl, or a checkpoint of VC R-CNN; torchvision's "
            "have their strides elsewhere and expect other pixels",
        )
    checkpoint.load_into(
        network.body, _with_statistics(network.body, body), what=f"ResNet-{network.depth}"
    )
    taken = ["body"]
    for part in ("pyramid", "fc6", "fc7"):
        module = getattr(network, part)
        own = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        if own:
            checkpoint.load_into(module, own, what=f"VC R-CNN's {part}")
            taken.append(part)
    return taken


def published_state(network: VcRcnnNetwork, causal: CausalPredictor) -> dict[str, Tensor]:
    """All entries under the names of `model_final.pth`, on the CPU."""
    state = {published_key(key): value for key, value in network.state_dict().items()}
    state |= {f"{_CAUSAL}{key}": value for key, value in causal.state_dict().items()}
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def save_published(folder: Path, state: Mapping[str, Tensor], iteration: int) -> tuple[Path, Path]:
    """Writes `model_final.pth` and `model_final.safetensors`, each as a whole."""
    paths = folder / "model_final.pth", folder / "model_final.safetensors"
    for path in paths:
        temporary = path.with_name(f".{path.name}")
        if path.suffix == ".pth":
            torch.save({"model": dict(state), "iteration": iteration}, temporary)
        else:
            save_file(dict(state), temporary)
        temporary.replace(path)
    return paths


def published_key(key: str) -> str:
    """The published name of an entry of VcRcnnNetwork; `own_key` is its inverse."""
    found = re.fullmatch(r"pyramid\.(inner|layer)_blocks\.(\d)\.0\.(.+)", key)
    if found:
        return f"backbone.fpn.fpn_{found[1]}{int(found[2]) + 1}.{found[3]}"
    if key.startswith(("body.conv1.", "body.bn1.")):
        return f"backbone.body.stem.{key.removeprefix('body.')}"
    if key.startswith("body."):
        return f"backbone.{key}"
    part = "predictor" if key.startswith("cls_score.") else "feature_extractor"
    return f"roi_heads.box.{part}.{key}"


def _read(path: Path) -> Checkpoint:
    if path.suffix != ".pkl" or not path.is_file():
        return Checkpoint.read(path)
    arrays, _ = read_array_pickle(path)
    # Own memory: arrays out of a file are read-only, and torch warns of those.
    return Checkpoint(path, {name: torch.tensor(array) for name, array in arrays.items()})


def _causal_of(checkpoint: Checkpoint, causal: CausalPredictor) -> dict[str, Tensor]:
    found = load_causal(checkpoint)
    width, wanted = len(found.Wy.weight), len(causal.Wy.weight)
    if width != wanted:
        raise WeightsRejected(
            f"{checkpoint.path}: the causal head is {width} wide, and causal_width is {wanted}",
            hint=f"--set causal_width={width}",
        )
    return found.state_dict()


def _draw_heads(network: VcRcnnNetwork) -> None:
    for layer in (network.fc6, network.fc7):
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(layer.bias)
    nn.init.normal_(network.cls_score.weight, std=0.01)
    nn.init.zeros_(network.cls_score.bias)


def _start_key(key: str) -> str:
    """A name of any of the layouts above in the network's own; "" for what is not needed."""
    if key.startswith(("backbone.fpn.", "roi_heads.box.feature_extractor.")):
        return own_key(key)
    key = re.sub(r"^backbone\.(body|bottom_up)\.", "", key)
    if key.startswith(("stem.", "res2.", "res3.", "res4.", "res5.", "layer")):
        return own_key(f"backbone.body.{key}")
    found = re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])(_bn)?_([wsb])", key)
    if found:
        stage, block, branch, norm, kind = found.groups()
        where = f"body.layer{int(stage) - 1}.{block}."
        place = "1" if norm else "0"
        layer = f"downsample.{place}" if branch == "1" else (
            f"{'bn' if norm else 'conv'}{_BRANCHES[branch]}")  # fmt: skip
        return f"{where}{layer}.{'bias' if kind == 'b' else 'weight'}"
    stem = {
        "conv1_w": "conv1.weight", "res_conv1_bn_s": "bn1.weight", "res_conv1_bn_b": "bn1.bias"
    }  # fmt: skip
    return f"body.{stem[key]}" if key in stem else ""


def _with_statistics(body: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with mean 0 and variance 1 where a file has them folded into scale and shift."""
    wanted = body.state_dict()
    if any("running_" in key for key in state):
        return state
    return state | {
        key: torch.full_like(value, float(key.endswith("running_var")))
        for key, value in wanted.items()
        if "running_" in key
    }
