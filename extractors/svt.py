"""SVT's features of clips: the class token of a ViT-B/16 with divided space-time attention.

Paper: Self-supervised Video Transformer (Ranasinghe et al., 2022). Code: kahnchana/svt. Network,
parameters and checkpoint layout: `networks/svt.py`; frames, windows and outputs:
`clip_backbone.py`.

Data flow: 8 frames of a window -> shorter edge 256, bilinear without antialiasing, centre crop 224
-> (x / 255 - 0.45) / 0.225, (B, 3, 8, 224, 224) -> `cls` (B, 768), `tokens` (B, 1569, 768): token
1 + 8 patch + frame.

The published evaluation of a video takes one span of 256/30 s (8 frames, 32 apart at 30 fps):
views=1. Windows of that length serve videos of any length. Its three crops are resize=224 with
crop_at=start, center and end.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from torch import nn

from vlpipe.extractors.clip_backbone import ClipBackbone, ClipBackboneConfig
from vlpipe.extractors.extractor import ExtractorConfig
from vlpipe.extractors.inputs.clip_windows import Indices, spread_over_span
from vlpipe.extractors.networks.svt import WIDTH, SvtNetwork, TimeResize
from vlpipe.extractors.registry import register
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

SPAN_S = 8 * 32 / 30

_KINETICS = {
    "num_frames": 8,
    "fps": None,
    "window_s": SPAN_S,
    "stride_s": SPAN_S,
    "tail": "keep",
    "spread": "ends",
    "resize": 256,
    "crop": 224,
    "whole_frame": False,
    "mean": (0.45, 0.45, 0.45),
    "std": (0.225, 0.225, 0.225),
}
_CHARADES = {"fps": 1.5, "window_s": 6.0, "stride_s": 6.0, "tail": "drop", "whole_frame": True}


class SvtConfig(ClipBackboneConfig):
    """As ClipBackboneConfig, and what becomes of the checkpoint's 8 times for other num_frames.

    time_resize: `nearest` (0, 0, 1, 1, ...) is SVT's, `tile` (0, 1, ..., 0, 1, ...) the start that
        the captioning experiments of 2024 train on from. A checkpoint with times of its own for
        num_frames is used as it is.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "kinetics": _KINETICS,
        "charades": _KINETICS | _CHARADES,
    }

    time_resize: TimeResize = "nearest"


@register("svt")
class Svt(ClipBackbone):
    """Class token, (rows, 768), all tokens, and the mean of the patches' tokens."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = SvtConfig
    gflop_per_sample: ClassVar[float] = 392.0
    fractions_of_level: ClassVar[int] = 128
    description: ClassVar[str] = "SVT ViT-B/16: a 768-d row per 8 frames of 8.5 s"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        filename = "kinetics400_vitb_ssl.pth"
        base = "https://github.com/kahnchana/svt/releases/download/v1.0"
        return {
            "svt": [PublishedCheckpoint("svt_vitb_k400", filename, f"{base}/{filename}", "MIT")]
        }

    @classmethod
    def feature(cls, config: ClipBackboneConfig) -> tuple[str, int]:
        del config
        return cls.name, WIDTH

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return SvtNetwork(time_resize=cast(SvtConfig, config).time_resize)

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        cast(SvtNetwork, network).initialise_untrained()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        cast(SvtNetwork, network).load(checkpoints["svt"])

    def choose_views(self, num_frames: int, fps: float) -> list[Indices]:
        count = self.settings.views or 1
        span = self.settings.window_s * fps
        spare = max(num_frames - span, 0.0)
        return [
            spread_over_span(spare * view / count, span, num_frames, self.settings.num_frames)
            for view in range(count)
        ]
