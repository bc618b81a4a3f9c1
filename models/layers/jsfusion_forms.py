"""What tells JSFusion's networks apart: the thesis's, and those of yj-yu/lsmdc, by task."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
import torch.nn.functional as F

from vlpipe.models.layers.joint_fusion import Activation

RETRIEVAL, CHOICE, BLANK = "retrieval", "mc", "fib"
_LEAKY = partial(F.leaky_relu, negative_slope=0.2)


@dataclass(frozen=True, slots=True)
class Form:
    """What tells the thesis's network and the public ones of three tasks apart.

    widths: see the Config. joins: of x_v and of x_w the input itself. has_signal: sinusoids on the
    frames. sign: of the score.
    """

    widths: tuple[int, ...]
    dropout: float
    joins: tuple[bool, bool] = (True, True)
    has_signal: bool = False
    has_video_norm: bool = False
    has_attention_norm: bool = False
    conv_activation: Activation | None = None
    gate_activation: Activation | None = None
    score_activation: Activation = torch.tanh
    has_score_norm: bool = False
    sign: int = 1
    is_of_frames: bool = False


_WIDTHS = (512, 512, 256, 256, 256, 128)
FORMS: Mapping[tuple[str, str], Form] = MappingProxyType(
    {
        ("thesis", RETRIEVAL): Form(_WIDTHS, 0.5),
        ("thesis", CHOICE): Form(_WIDTHS, 0.5),
        ("thesis", BLANK): Form((1024, 2048, 1024, 1024, 1024, 1024), 0.2),
        ("public", RETRIEVAL): Form(
            _WIDTHS, 0.5, joins=(True, False), has_attention_norm=True, conv_activation=_LEAKY,
            score_activation=_LEAKY, has_score_norm=True,
        ),
        ("public", CHOICE): Form(
            _WIDTHS, 0.5, joins=(True, False), has_signal=True, has_video_norm=True,
            has_attention_norm=True, conv_activation=torch.tanh, gate_activation=torch.tanh,
            has_score_norm=True, sign=-1,
        ),
        ("public", BLANK): Form(
            (1024,) * 6, 0.5, joins=(False, False), has_signal=True, has_attention_norm=True,
            conv_activation=torch.tanh, gate_activation=torch.tanh, is_of_frames=True,
        ),
    }
)  # fmt: skip
