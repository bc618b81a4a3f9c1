"""I3D-ResNet50 in Caffe2: the blobs of facebookresearch/video-nonlocal-net's pickles.

`conv1_w`, `res_conv1_bn_s`, `res2_0_branch2a_w`, ..., `pred_b`, and with non-local blocks
`nonlocal_conv3_1_theta_w`, .... Stage L is `layer` L - 1 here; axes are in torch's order. Of a
normalisation, s is the weight, b the bias, rm the running mean and riv, whatever its name says, the
running variance. `..._momentum` are the optimiser's, `lr` and `model_iter` the solver's.
"""

import re

from torch import nn

from vlpipe.extractors.i3d_resnet50 import KINETICS_CLASSES, WIDTH, I3dResNet50Network
from vlpipe.extractors.weights.foreign.layout import (
    ForeignLayout,
    Origin,
    Shape,
    Variables,
    register_layout,
    shapes_of,
)

_KINDS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
_FIXED = {
    "conv1.weight": "conv1_w",
    **{f"bn1.{kind}": f"res_conv1_bn_{letter}" for kind, letter in _KINDS.items()},
    "fc.weight": "pred_w",
    "fc.bias": "pred_b",
}


def _origin(entry: str) -> Origin:
    if entry in _FIXED:
        return Origin(_FIXED[entry])
    found = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)\.(\w+)", entry)
    if found is None:
        raise ValueError(f"no blob is known for the entry {entry}")
    stage, block, unit, kind = int(found[1]) + 1, found[2], found[3], found[4]
    if unit.startswith("nl."):
        base = f"nonlocal_conv{stage}_{block}_{unit.removeprefix('nl.')}"
        is_normalisation = unit == "nl.bn"
    elif unit.startswith("downsample."):
        is_normalisation = unit == "downsample.1"
        base = f"res{stage}_{block}_branch1" + ("_bn" if is_normalisation else "")
    else:
        is_normalisation = unit.startswith("bn")
        letter = "abc"[int(unit[-1]) - 1]
        base = f"res{stage}_{block}_branch2{letter}" + ("_bn" if is_normalisation else "")
    return Origin(f"{base}_{_KINDS[kind] if is_normalisation else kind[0]}")


def _entries(variables: Variables) -> dict[str, Shape]:
    bias = variables.get("pred_b")
    num_classes = KINETICS_CLASSES if bias is None else max(1, bias.size)

    def build() -> nn.Module:
        network = I3dResNet50Network(non_local=any(k.startswith("nonlocal_") for k in variables))
        network.fc = nn.Linear(WIDTH, num_classes)
        return network

    return shapes_of(build)


register_layout(
    ForeignLayout(
        role="i3d_resnet50",
        title="Caffe2's I3D-ResNet50",
        signature="res_conv1_bn_riv",
        entries=_entries,
        origin=_origin,
        ignored=re.compile(r"(.*/)?(lr|model_iter|.*_momentum)"),
    )
)
