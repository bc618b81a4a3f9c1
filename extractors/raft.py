"""RAFT flow as a stored feature: a row per pair of neighbouring frames.

Paper: RAFT: Recurrent All-Pairs Field Transforms for Optical Flow (Teed and Deng, 2020). Code:
torchvision, whose checkpoint layout is read (`feature_encoder.convnormrelu.0.weight`, ...); its
`V1` weights are ports of princeton-vl/RAFT. Large 5.3, small 1.0 million parameters.

Data flow: two RGB images (B, 3, H, W), 0..255 -> 2 x / 255 - 1, edges repeated on both sides to the
next multiples of 8 -> features (B, 256, H/8, W/8), all products of the two maps -> a recurrent unit
improves the flow `num_updates` times -> `flow` (B, 2, H, W) in pixels from the first image to the
second, u (x, to the right) before v (y, down).

RAFT and PWC-Net give different flow, and I3D different features on top: never mix their rows.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from vlpipe.extractors.extractor import ExtractorConfig, Output
from vlpipe.extractors.frame_pairs import FlowConfig, FlowExtractor, OfPairs
from vlpipe.extractors.registry import register
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

RaftModel = Literal["large", "small"]

GRAIN = 8
# The network halves its maps of an eighth of the image three times and needs two cells at least.
MIN_EDGE_PX = 128


class RaftNetwork(nn.Module):
    """Two RGB images (B, 3, H, W) 0..255, uint8 or float -> dict of `flow`; see the file's top."""

    def __init__(self, model: RaftModel, num_updates: int) -> None:
        super().__init__()
        self.role = f"raft_{model}"
        self.raft: nn.Module = get_model(self.role, weights=None)
        self.num_updates = num_updates

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        height, width = first.shape[2:]
        left, _, top, _ = _pads(height, width)
        flow = self._flow_padded(first, second)
        return {"flow": flow[:, :, top : top + height, left : left + width]}

    def flow_of_stack(self, frames: Tensor, *, pairs_at_once: int = 4) -> Tensor:
        """(T, 2, H', W') flow between neighbours of RGB frames (T + 1, 3, H, W).

        H', W': the multiples of 8 that the frames are padded to. video_features crops the centre
        for I3D from the padded flow, half a pad away from that of the frame.
        """
        starts = range(0, len(frames) - 1, pairs_at_once)
        pairs = [
            (frames[:-1][s : s + pairs_at_once], frames[1:][s : s + pairs_at_once]) for s in starts
        ]
        return torch.cat([self._flow_padded(first, second) for first, second in pairs])

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network; WeightsRejected for a checkpoint of another one."""
        checkpoint.load_into(self.raft, what=f"torchvision {self.role}")

    def _flow_padded(self, first: Tensor, second: Tensor) -> Tensor:
        pads = _pads(*first.shape[2:])
        one, two = (
            F.pad(x.float().mul(2 / 255).sub_(1), pads, mode="replicate") for x in (first, second)
        )
        # The network returns the flow after every update.
        flows: list[Tensor] = self.raft(one, two, num_flow_updates=self.num_updates)
        return flows[-1].float()


def _pads(height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels to the left, right, top and bottom; the smaller half comes first."""
    down, across = (max(-edge % GRAIN, MIN_EDGE_PX - edge) for edge in (height, width))
    return across // 2, across - across // 2, down // 2, down - down // 2


def raft_checkpoints(role: str, default: str | None = None) -> tuple[PublishedCheckpoint, ...]:
    """torchvision's checkpoints of `raft_large` or `raft_small`.

    default: the weights that come first (`C_T_SKHT_V1`); None for torchvision's own default.
    """
    entries = get_model_weights(role)
    first = default or entries.DEFAULT.name
    made = []
    for weights in sorted(entries, key=lambda entry: entry.name != first):
        filename = weights.url.rpartition("/")[2]
        made.append(
            PublishedCheckpoint(
                name=f"{role}_{weights.name.lower()}",
                filename=filename,
                url=weights.url,
                licence="BSD-3-Clause",
                sha256=filename.removesuffix(".pth").rpartition("-")[2],
            )
        )
    return tuple(made)


class RaftConfig(FlowConfig):
    """Frames as in `FlowConfig`, and which network.

    model: the feature is called `raft_large` or `raft_small`.
    num_updates: of the recurrent unit; 12 in torchvision, 20 in video_features.
    """

    model: RaftModel = "large"
    num_updates: PositiveInt = 12


@register("raft")
class Raft(FlowExtractor):
    """Flow of RAFT, (rows, 2, H, W) in pixels."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = RaftConfig
    gflop_per_sample: ClassVar[float] = 104.0
    description: ClassVar[str] = "RAFT: optical flow (2 x 256 x 256) from each frame to the next"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {role: raft_checkpoints(role) for role in ("raft_large", "raft_small")}

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        return (f"raft_{cast(RaftConfig, config).model}",)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(RaftConfig, config)
        name = f"{cls.name}_{settings.model}"
        return (Output(name, "flow", (2, *settings.size), ("uv", "y", "x")),)

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(RaftConfig, config)
        return OfPairs(RaftNetwork(settings.model, settings.num_updates))

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        raft = cast(RaftNetwork, cast(OfPairs, network).network)
        raft.load(checkpoints[raft.role])

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        RaftNetwork("small" if role == "raft_small" else "large", 1).load(checkpoint)
