"""VideoMamba's features of clips: the class token of tiny, small or middle.

Paper: VideoMamba: State Space Model for Efficient Video Understanding (Li et al., 2024). Code:
OpenGVLab/VideoMamba. Network, parameters and checkpoint layouts: `networks/videomamba.py`; frames,
windows and outputs: `clip_backbone.py`.

Data flow: 16 frames of a window -> shorter edge 224, bilinear without antialiasing and rounded as
OpenCV does, centre crop 224 -> ImageNet's mean and deviation, (B, 3, 16, 224, 224) -> `cls`
(B, C), `tokens` (B, 3137, C), C = 192, 384 or 576: token 1 + 196 frame + patch.

The published evaluation takes one frame of each of 16 segments of a whole video of 10 s: views=1,
or views=4 with crop_at=start, center and end for its 4 x 3 clips. Windows of 10 s serve videos of
any length.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from pydantic import Field
from torch import nn

from vlpipe.extractors.clip_backbone import ClipBackbone, ClipBackboneConfig
from vlpipe.extractors.extractor import ExtractorConfig
from vlpipe.extractors.inputs.clip_windows import Indices, spread_over_segments
from vlpipe.extractors.networks.videomamba import (
    SHAPES,
    Variant,
    VideoMambaNetwork,
    find_variant,
)
from vlpipe.extractors.registry import register
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

_KINETICS = {
    "num_frames": 16,
    "fps": None,
    "window_s": 10.0,
    "stride_s": 10.0,
    "tail": "keep",
    "spread": "segments",
    "resize": 224,
    "crop": 224,
    "whole_frame": False,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
_CHARADES = {
    "fps": 1.5,
    "window_s": 11.0,
    "stride_s": 11.0,
    "tail": "drop",
    "spread": "ends",
    "whole_frame": True,
    "eps": 1e-6,
}


class VideoMambaConfig(ClipBackboneConfig):
    """As ClipBackboneConfig, and which network.

    variant: the feature is called `videomamba_tiny`, `videomamba_small` or `videomamba_middle`.
    eps: of RMSNorm, 1e-5 in VideoMamba; 1e-6 in the experiments on Charades.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kinetics": _KINETICS,
        "charades": _KINETICS | _CHARADES,
    }

    variant: Variant = "middle"
    eps: float = Field(default=1e-5, gt=0)


@register("videomamba")
class VideoMamba(ClipBackbone):
    """Class token, (rows, 192, 384 or 576), all tokens, and the mean of the patches' tokens."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = VideoMambaConfig
    # Of middle, with its scan; tiny takes 41 and its scan.
    gflop_per_sample: ClassVar[float] = 485.0
    fractions_of_level: ClassVar[int] = 1
    description: ClassVar[str] = "VideoMamba: a 576-d row (middle) per 16 frames of 10 s"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        base = "https://huggingface.co/OpenGVLab/VideoMamba/resolve/main"
        files: list[tuple[Variant, str, int]] = [
            ("middle", "m16_k400_f16", 16),
            ("small", "s16_k400_f16", 16),
            ("tiny", "t16_k400_f16", 16),
            ("middle", "m16_k400_f8", 8),
            ("small", "s16_k400_f8", 8),
            ("tiny", "t16_k400_f8", 8),
            ("middle", "m16_k400_f32", 32),
            ("small", "s16_k400_f32", 32),
            ("tiny", "t16_k400_f32", 32),
            ("middle", "m16_k400_mask_pt_f8", 8),
        ]
        return {
            "videomamba": [
                PublishedCheckpoint(
                    name=f"videomamba_{stem}",
                    filename=f"videomamba_{stem}_res224.pth",
                    url=f"{base}/videomamba_{stem}_res224.pth",
                    licence="Apache-2.0",
                    settings={"variant": variant, "num_frames": num_frames},
                )
                for variant, stem, num_frames in files
            ]
        }

    @classmethod
    def feature(cls, config: ClipBackboneConfig) -> tuple[str, int]:
        variant = cast(VideoMambaConfig, config).variant
        return f"{cls.name}_{variant}", SHAPES[variant].width

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(VideoMambaConfig, config)
        return VideoMambaNetwork(settings.variant, num_frames=settings.num_frames, eps=settings.eps)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(VideoMambaNetwork, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(VideoMambaNetwork, network).load(checkpoints["videomamba"])

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        VideoMambaNetwork(find_variant(checkpoint.state) or "middle").load(checkpoint)

    def choose_views(self, num_frames: int, fps: float) -> list[Indices]:
        del fps
        count = self.settings.views or 1
        return [
            spread_over_segments(num_frames, self.settings.num_frames, view, count)
            for view in range(count)
        ]
