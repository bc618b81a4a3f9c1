"""GoogLeNet as it was trained in Caffe: biases and local response norms, no BatchNorm.

Paper: Going Deeper with Convolutions (Szegedy et al., 2015). Code: BVLC/caffe,
`models/bvlc_googlenet` (ImageNet), and the models of the Places databases (MIT). 7.0 million
parameters with 1000 classes. torchvision's GoogLeNet is another network: BatchNorm instead of
biases, 3x3 where this one has 5x5.

Data flow, for 224 or 227 pixels: BGR minus the mean (B, 3, H, W) -> conv1, pool1, norm1
(B, 64, 56 or 57, ...) -> conv2, norm2, pool2 (B, 192, 28, 28) -> inception 3a, 3b, pool3
(B, 480, 14, 14) -> 4a to 4e, pool4 (B, 832, 7, 7) -> 5a, `inception_5b` (B, 1024, 7, 7) -> `pool5`
(B, 1024), its mean -> loss3/classifier (B, classes). Pools count a partial window at the end.

Checkpoint layout: the Caffe model's layers, tensor by tensor: `conv1/7x7_s2.weight` (out, in, y,
x), `conv1/7x7_s2.bias`, ..., `inception_3a/5x5_reduce.weight`, ..., `loss3/classifier.bias`; `_`
may stand for `/`. The heads of training, `loss1/...` and `loss2/...`, are passed over. The
published .caffemodel files are protocol buffers: any converter that keeps these names will do.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.weights.checkpoint import Checkpoint

WIDTH = 1024

# Block: 1x1; 1x1 and 3x3; 1x1 and 5x5; 1x1 after the pool. A stage ends in a pool but the last.
_STAGES: tuple[dict[str, tuple[int, int, int, int, int, int]], ...] = (
    {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64)},
    {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)},
)


class CaffeGoogLeNet(nn.Module):
    """(B, 3, H, W) BGR minus the mean -> dict of `inception_5b`, `pool5`, `logits`."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self._add("conv1/7x7_s2", 3, 64, 7, stride=2)
        self._add("conv2/3x3_reduce", 64, 64, 1)
        self._add("conv2/3x3", 64, 192, 3)
        channels = 192
        for stage in _STAGES:
            for name, (plain, reduce3, out3, reduce5, out5, proj) in stage.items():
                block = f"inception_{name}"
                self._add(f"{block}/1x1", channels, plain, 1)
                self._add(f"{block}/3x3_reduce", channels, reduce3, 1)
                self._add(f"{block}/3x3", reduce3, out3, 3)
                self._add(f"{block}/5x5_reduce", channels, reduce5, 1)
                self._add(f"{block}/5x5", reduce5, out5, 5)
                self._add(f"{block}/pool_proj", channels, proj, 1)
                channels = plain + out3 + out5 + proj
        self.add_module("loss3/classifier", nn.Linear(WIDTH, num_classes))

    def _add(self, name: str, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(inputs, outputs, size, stride, padding=size // 2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = _pool(self._convolve("conv1/7x7_s2", x))  # (B, 64, H/4, W/4)
        x = self._convolve("conv2/3x3_reduce", _normalise(x))
        x = _pool(_normalise(self._convolve("conv2/3x3", x)))  # (B, 192, H/8, W/8)
        for stage in _STAGES:
            for name in stage:
                x = self._mix(f"inception_{name}", x)
            if stage is not _STAGES[-1]:
                x = _pool(x)
        pool5 = x.mean(dim=(2, 3))  # (B, 1024)
        logits = self.get_submodule("loss3/classifier")(pool5)
        return {"inception_5b": x, "pool5": pool5, "logits": logits}

    def _convolve(self, name: str, x: Tensor) -> Tensor:
        made: Tensor = self.get_submodule(name)(x).relu_()
        return made

    def _mix(self, block: str, x: Tensor) -> Tensor:
        branches = [
            self._convolve(f"{block}/1x1", x),
            self._convolve(f"{block}/3x3", self._convolve(f"{block}/3x3_reduce", x)),
            self._convolve(f"{block}/5x5", self._convolve(f"{block}/5x5_reduce", x)),
            self._convolve(f"{block}/pool_proj", F.max_pool2d(x, 3, stride=1, padding=1)),
        ]
        return torch.cat(branches, dim=1)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network from the layout above; the class head follows the file."""
        own = {name.replace("/", "_"): name for name in self.state_dict()}
        state = {}
        for key, value in checkpoint.state.items():
            plain = key.replace("/", "_")
            if not plain.startswith(("loss1_", "loss2_")):
                state[own.get(plain, key)] = value
        head = state.get("loss3/classifier.weight")
        if head is not None and head.ndim == 2:
            self.add_module("loss3/classifier", nn.Linear(WIDTH, len(head)))
        checkpoint.load_into(self, state, what="Caffe's GoogLeNet")


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)


def _normalise(x: Tensor) -> Tensor:
    return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
