"""PWC-Net flow as a stored feature: a row per pair of neighbouring frames.

Paper, code, checkpoint layouts and data flow: `networks/pwc.py`. Rows and their times:
`frame_pairs.py`. Stored at one exact size; features of I3D on flow come from `i3d_flow`, which
computes its own flow of the whole frame in the video's aspect.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

from torch import nn

from vlpipe.extractors.extractor import ExtractorConfig
from vlpipe.extractors.frame_pairs import FlowExtractor, OfPairs
from vlpipe.extractors.networks.pwc import PWC_CHECKPOINTS, PwcNetwork
from vlpipe.extractors.registry import register
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint


@register("pwc")
class Pwc(FlowExtractor):
    """Flow of PWC-Net, (rows, 2, H, W) in pixels."""

    version: ClassVar[int] = 1
    gpu_batch_size: ClassVar[int | None] = 64
    gflop_per_sample: ClassVar[float] = 24.0
    description: ClassVar[str] = "PWC-Net: optical flow (2 x 256 x 256) from each frame to the next"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {"pwc_net": PWC_CHECKPOINTS}

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        return OfPairs(PwcNetwork())

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(PwcNetwork, cast(OfPairs, network).network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(PwcNetwork, cast(OfPairs, network).network).load(checkpoints["pwc_net"])
