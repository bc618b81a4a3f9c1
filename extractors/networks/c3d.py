"""The C3D network: eight 3x3x3 convolutions, five pools and three linear layers.

Paper: Learning Spatiotemporal Features with 3D Convolutional Networks (Tran et al., 2015). Code:
facebook/C3D (Caffe). 80.0 million parameters with the 487 classes of Sports-1M.

Data flow: (B, 3, 16, 112, 112) -> conv1, pool1 1x2x2 (B, 64, 16, 56, 56) -> conv2, pool2
(B, 128, 8, 28, 28) -> conv3a, conv3b, pool3 (B, 256, 4, 14, 14) -> conv4a, conv4b, pool4
(B, 512, 2, 7, 7) -> conv5a, conv5b (B, 512, 2, 7, 7) -> pool5 (B, 512, 1, 4, 4) -> fc6, fc7
(B, 4096) -> fc8 (B, classes). ReLU follows all but fc8.

`conv5b` is handed out as (B, 1024, 7, 7), index 2 * channel + time: the reading of TGIF-QA's
loader of the flat map, and the likely one of GEAN's "7x7x1024".

pool5 halves 7 cells to 4. Caffe starts its windows at the first cell and cuts the last one; the
PyTorch and Keras ports put a cell of zeros on both sides, which moves every window by one.

Checkpoint layouts, all with `.weight` and `.bias`, weights as (out, in, time, y, x):
  conv1, conv2, conv3a, ..., conv5b, fc6, fc7, fc8       DavideA/c3d-pytorch
  features.0, .3, .6, .8, .11, .13, .16, .18, classifier.0, .3, .6    ucf101-caffe.pth, used by
                                                         jfzhang95/pytorch-video-recognition
  conv1a.conv, conv2a.conv, ..., fc6, fc7, without fc8   mmaction2
  conv1a, conv2a, ..., fc6-1, fc7-1, fc8-1               the Caffe model, tensor by tensor
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.networks.blank_linear import blank_linear
from vlpipe.extractors.weights.checkpoint import Checkpoint

NUM_FRAMES = 16
EDGE_PX = 112
WIDTH = 4096
CONV5B_CHANNELS = 1024
# Pixels of a cell of conv5b; fc6 takes the 7x7 cells of 112 pixels alone.
CELL_PX = 16
SPORTS_CLASSES = 487

Pool5 = Literal["caffe", "ports"]

# Convolutions of a stage, then the window and stride of the pool behind it.
_STAGES: tuple[tuple[dict[str, int], tuple[int, int, int]], ...] = (
    ({"conv1": 64}, (1, 2, 2)),
    ({"conv2": 128}, (2, 2, 2)),
    ({"conv3a": 256, "conv3b": 256}, (2, 2, 2)),
    ({"conv4a": 512, "conv4b": 512}, (2, 2, 2)),
    ({"conv5a": 512, "conv5b": 512}, (2, 2, 2)),
)

_ALIASES = {
    "conv1a": "conv1",
    "conv2a": "conv2",
    "fc6-1": "fc6",
    "fc7-1": "fc7",
    "fc8-1": "fc8",
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3a",
    "features.8": "conv3b",
    "features.11": "conv4a",
    "features.13": "conv4b",
    "features.16": "conv5a",
    "features.18": "conv5b",
    "classifier.0": "fc6",
    "classifier.3": "fc7",
    "classifier.6": "fc8",
    "cls_head.fc_cls": "fc8",
}


class C3dNetwork(nn.Module):
    """(B, 3, 16, 112, 112) -> dict of `fc6`, `conv5b` and, with a head, `logits`.

    Frames of another size give `conv5b` alone.
    """

    def __init__(self, pool5: Pool5 = "caffe") -> None:
        super().__init__()
        self.pool5 = pool5
        channels = 3
        for convolutions, _ in _STAGES:
            for name, width in convolutions.items():
                self.add_module(name, nn.Conv3d(channels, width, 3, padding=1))
                channels = width
        self.fc6 = blank_linear(512 * 4 * 4, WIDTH)
        self.fc7 = blank_linear(WIDTH, WIDTH)
        self.fc8: nn.Linear | None = nn.Linear(WIDTH, SPORTS_CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        conv5b = x
        for convolutions, window in _STAGES:
            for name in convolutions:
                x = self.get_submodule(name)(x).relu_()
            conv5b = x
            if convolutions is not _STAGES[-1][0]:
                x = F.max_pool3d(x, window)
        # (B, 512, 2, 7, 7) -> (B, 1024, 7, 7): time runs fastest.
        made = {"conv5b": conv5b.flatten(1, 2)}
        if tuple(x.shape[3:]) != (EDGE_PX // CELL_PX, EDGE_PX // CELL_PX):
            return made
        if self.pool5 == "caffe":
            x = F.max_pool3d(x, 2, ceil_mode=True)  # (B, 512, 1, 4, 4)
        else:
            x = F.max_pool3d(x, 2, padding=(0, 1, 1))  # (B, 512, 1, 4, 4)
        fc6 = self.fc6(x.flatten(1)).relu()  # (B, 4096)
        made["fc6"] = fc6
        if self.fc8 is not None:
            made["logits"] = self.fc8(self.fc7(fc6).relu())
        return made

    def initialise_untrained(self) -> None:
        """Draws weights that keep the size of the signal from layer to layer."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network from any of the layouts above; the class head follows the file."""
        state = {_own_name(key): value for key, value in checkpoint.state.items()}
        head = state.get("fc8.weight")
        if head is None:
            self.fc8 = None
        elif head.ndim == 2:
            self.fc8 = nn.Linear(WIDTH, len(head))
        checkpoint.load_into(self, state, what="C3D")


def _own_name(key: str) -> str:
    """The name here of a checkpoint's entry."""
    layer, _, kind = key.removeprefix("backbone.").rpartition(".")
    layer = layer.removesuffix(".conv")
    return f"{_ALIASES.get(layer, layer)}.{kind}"
