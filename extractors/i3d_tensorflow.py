"""I3D in TensorFlow: the variables of the checkpoints in deepmind/kinetics-i3d.

`RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w`, `.../batch_norm/beta`, ..., and under `Flow/` for the
other stream. Kernels are (time, height, width, in, out), statistics (1, 1, 1, 1, channels). The
normalisation has no scale, so that its weight here is 1, and eps 1e-3. Mixed_5b names the second
convolution of its Branch_2 `Conv3d_0a_3x3`, every other block `Conv3d_0b_3x3`.
"""

import re

from vlpipe.extractors.networks.i3d import KINETICS_CLASSES, I3dNetwork
from vlpipe.extractors.weights.foreign.layout import (
    TENSORFLOW_IGNORED,
    ForeignLayout,
    Origin,
    Shape,
    Variables,
    register_layout,
    shapes_of,
)

EPS = 1e-3

_SIGNATURE = "Conv3d_1a_7x7/conv_3d/w"
_HEAD = "Logits/Conv3d_0c_1x1"
_UNITS = {
    "branch_0": "Branch_0/Conv3d_0a_1x1",
    "branch_1.0": "Branch_1/Conv3d_0a_1x1",
    "branch_1.1": "Branch_1/Conv3d_0b_3x3",
    "branch_2.0": "Branch_2/Conv3d_0a_1x1",
    "branch_2.1": "Branch_2/Conv3d_0b_3x3",
    "branch_3.1": "Branch_3/Conv3d_0b_1x1",
}
_KINDS = {
    "conv3d.weight": "conv_3d/w",
    "conv3d.bias": "conv_3d/b",
    "batch3d.weight": "batch_norm/gamma",
    "batch3d.bias": "batch_norm/beta",
    "batch3d.running_mean": "batch_norm/moving_mean",
    "batch3d.running_var": "batch_norm/moving_variance",
}


def _origin(entry: str) -> Origin:
    unit, layer, kind = entry.rsplit(".", 2)
    kind = f"{layer}.{kind}"
    if unit == "conv3d_0c_1x1":
        name = _HEAD
    elif found := re.fullmatch(r"mixed_(\d[a-z])\.(.+)", unit):
        name = f"Mixed_{found[1]}/{_UNITS[found[2]]}"
    else:
        name = unit.capitalize()
    if name == "Mixed_5b/Branch_2/Conv3d_0b_3x3":
        name = "Mixed_5b/Branch_2/Conv3d_0a_3x3"
    return Origin(
        f"{name}/{_KINDS[kind]}",
        axes=(4, 3, 0, 1, 2) if kind == "conv3d.weight" else None,
        default=1.0 if kind == "batch3d.weight" else None,
    )


def _register(role: str, title: str, channels: int) -> None:
    def entries(variables: Variables) -> dict[str, Shape]:
        bias = variables.get(f"{_HEAD}/conv_3d/b")
        num_classes = KINETICS_CLASSES if bias is None else max(1, bias.size)
        return shapes_of(lambda: I3dNetwork(channels, num_classes=num_classes))

    register_layout(
        ForeignLayout(
            role=role,
            title=title,
            signature=_SIGNATURE,
            entries=entries,
            origin=_origin,
            fits=lambda kernel: kernel.ndim == 5 and kernel.shape[3] == channels,
            ignored=TENSORFLOW_IGNORED,
            settings={"eps": EPS},
        )
    )


_register("i3d_rgb", "TensorFlow's I3D, RGB stream", channels=3)
_register("i3d_flow", "TensorFlow's I3D, flow stream", channels=2)
