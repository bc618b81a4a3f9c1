"""I3D features of optical flow: a row for every 64 pairs of frames at 25 a second.

Paper: Quo Vadis, Action Recognition? (Carreira and Zisserman, 2017). Original code of the
features: v-iashin/video_features, branch `bmt` (PWC-Net: BMT, MDVC) and its HEAD (RAFT). Networks,
parameters and checkpoint layouts: `networks/i3d.py`, `networks/pwc.py`, `raft.py`; which frames
make a row: `inputs/stacks.py`; from flow to input: `inputs/flow_quantise.py`.

Data flow: frames at 25 fps, shorter edge 256, not cropped -> stacks (B, 65, H, W, 3) uint8 -> flow
of the 64 pairs (64, 2, H, W) on the whole frame, in its own pixels -> centre crop 224, levels
0..256, scaled, (B, 2, 64, 224, 224) -> `pooled` (B, 1024), `mixed_5c` (B, 1024, 8, 7, 7).

`pooled` is what BMT stores as NAME_flow.npy. Flow is ten times the work of I3D itself. It is
clamped at 20 pixels of the resized frame, so that another `resize` makes another feature, and so
does another flow network: never mix rows of PWC-Net and RAFT.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, cast

import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Output
from vlpipe.extractors.inputs.flow_quantise import flow_to_input
from vlpipe.extractors.inputs.stacks import StackConfig, StackSampler
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.networks.folded_norm import copy_sharing_tensors
from vlpipe.extractors.networks.i3d import (
    MIN_FRAMES,
    WIDTH,
    I3dNetwork,
    i3d_checkpoints,
    mixed_5c_shape,
)
from vlpipe.extractors.networks.i3d_inference import inference_form
from vlpipe.extractors.networks.pwc import PWC_CHECKPOINTS, PwcNetwork
from vlpipe.extractors.raft import RaftNetwork, raft_checkpoints
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

# Of video_features HEAD, which reads raft-sintel.pth; these are torchvision's port of that file.
RAFT_UPDATES = 20
RAFT_WEIGHTS = "C_T_SKHT_V1"

_FLOW_ROLES = {"pwc": "pwc_net", "raft": "raft_large"}


class I3dFlowConfig(StackConfig):
    """Which frames make a row, how flow is computed, and which layers are kept.

    flow: `pwc` as in BMT and MDVC, `raft` (large) as in video_features today.
    fps: frames a second; None keeps every frame of the source.
    stack_size, step_size: pairs of a row, and from the first of one row to that of the next.
    tail: `cycle` is the rule of BMT's features, `drop` that of video_features today.
    resize, crop: pixels of the shorter edge of the frames, then of a centred square of their flow.
    eps: of BatchNorm, 1e-5 in BMT and video_features, 1e-3 in TensorFlow and piergiaj's port.
    outputs: `pooled` is the feature `i3d_flow`, `mixed_5c` is `i3d_flow_mixed_5c`.
    """

    flow: Literal["pwc", "raft"] = "pwc"
    stack_size: int = Field(default=64, ge=MIN_FRAMES)
    resize: PositiveInt = 256
    crop: int = Field(default=224, ge=32)
    eps: float = Field(default=1e-5, gt=0)
    outputs: tuple[Literal["pooled", "mixed_5c"], ...] = Field(default=("pooled",), min_length=1)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        if self.crop > self.resize:
            raise ValueError(f"crop exceeds the shorter edge, resize={self.resize}")
        return self


class I3dFlowNetwork(nn.Module):
    """(B, T + 1, 3, H, W) RGB frames 0..255 -> dict of `pooled`, `mixed_5c`, `logits`."""

    def __init__(self, settings: I3dFlowConfig) -> None:
        super().__init__()
        self.crop = settings.crop
        self.flow = PwcNetwork() if settings.flow == "pwc" else RaftNetwork("large", RAFT_UPDATES)
        self.i3d = I3dNetwork(2, eps=settings.eps)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        # One stack at a time, and within it as many pairs as the flow network takes at once.
        inputs = [flow_to_input(self.flow.flow_of_stack(frames), self.crop) for frames in x]
        return cast(dict[str, Tensor], self.i3d(torch.stack(inputs)))  # of (B, 2, T, crop, crop)


@register("i3d_flow")
class I3dFlow(Extractor):
    """Features of flow stacks, (rows, 1024), and the map that they are pooled from."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = I3dFlowConfig
    # A stack is 64 pairs already.
    batch_size = 1
    gflop_per_sample: ClassVar[float] = 2512.0
    description: ClassVar[str] = "I3D (flow): a 1024-d row every 64 pairs at 25 fps, as in BMT"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {
            "i3d_flow": i3d_checkpoints("flow"),
            "pwc_net": PWC_CHECKPOINTS,
            "raft_large": raft_checkpoints("raft_large", RAFT_WEIGHTS),
        }

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        return ("i3d_flow", _FLOW_ROLES[cast(I3dFlowConfig, config).flow])

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(I3dFlowConfig, config)
        return FrameRequest(fps=settings.fps, resize=Resize(shorter_edge=settings.resize))

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(I3dFlowConfig, config)
        map_shape = mixed_5c_shape(settings.stack_size, settings.crop)
        declared = {
            "pooled": Output(cls.name, "pooled", (WIDTH,), ("channel",)),
            "mixed_5c": Output(
                f"{cls.name}_mixed_5c", "mixed_5c", map_shape, ("channel", "step", "y", "x")
            ),
        }
        return tuple(declared[name] for name in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        return super().samples_per_second(config) / cast(I3dFlowConfig, config).step_size

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return I3dFlowNetwork(cast(I3dFlowConfig, config))

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        net = cast(I3dFlowNetwork, network)
        net.i3d.initialise_untrained()
        if isinstance(net.flow, PwcNetwork):
            net.flow.initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        net = cast(I3dFlowNetwork, network)
        net.i3d.load(checkpoints["i3d_flow"], what="I3D for optical flow")
        net.flow.load(checkpoints["pwc_net" if isinstance(net.flow, PwcNetwork) else "raft_large"])

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        if role == "i3d_flow":
            I3dNetwork(2).load(checkpoint, what="I3D for optical flow")
        elif role == "pwc_net":
            PwcNetwork().load(checkpoint)
        else:
            RaftNetwork("large", RAFT_UPDATES).load(checkpoint)

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        rule = cast(I3dFlowConfig, self.spec.config).stack_rule()
        return StackSampler(rule, keep_look_ahead=True)

    def inference_form(self) -> nn.Module:
        network = copy_sharing_tensors(cast(I3dFlowNetwork, self.network))
        network.set_submodule("i3d", inference_form(network.i3d, self.spec))
        return network

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        frames = torch.from_numpy(samples).to(self.device)  # (B, T + 1, H, W, 3) uint8
        return frames.permute(0, 1, 4, 2, 3)  # (B, T + 1, 3, H, W)
