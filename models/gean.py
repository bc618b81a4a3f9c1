"""GEAN, the half that predicts gaze: RGP, a recurrent network from C3D maps to maps of gaze.

Paper: Supervising Neural Attention Models for Video Captioning by Human Gaze Data (Yu et al., CVPR
2017, arXiv 1707.06029). Code: yj-yu/Recurrent_Gaze_Prediction (TensorFlow 1, MIT).
Checkpoint layouts: state dicts with the names of the formulas (`proj`, `rcn`, `deconv1` ...,
`out`), and the public TensorFlow variables by their own names, as arrays.
3,011,469 parameters.

Data flow (B sequences of T frames): C3D maps (B, T, 1024, 7, 7) -> 1x1 convolution (B, T, 512, 7,
7) -> recurrent unit of 3x3 convolutions (B, T, 128, 7, 7) -> transposed convolutions (64, 23, 23),
(32, 49, 49), (12, 49, 49) -> 1x1 convolution -> `logits` (B, T, 49, 49) -> softmax over the 2,401
cells -> `map`.

The public code's update gate has the opposite meaning, and it puts a norm before the transposed
convolutions whose statistics stay at mean 0 and variance 1: that norm is not here.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.gaze_maps import GRID
from vlpipe.models.layers.gated_recurrent_units import ConvolutionalGru, PlainGru, UpdateGate
from vlpipe.models.layers.sequences import real_positions
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.published_layouts.gean import from_tensorflow, is_tensorflow
from vlpipe.models.registry import register
from vlpipe.stores import Features

_LOG = logging.getLogger(__name__)
_EDGE = 7  # of the C3D map

Network = Literal["rgp", "c3d_conv", "c3d_gru"]


class GeanConfig(ModelConfig):
    """Sizes, the form of the update gate, and the networks of the thesis's tables.

    network: `rgp`; `c3d_conv`, no recurrence: maps are made of the projected C3D map; `c3d_gru`,
        the projected map (32 channels) is read flat by a GRU of 1617 units, then a linear layer.
    update_gate: `thesis`, h = (1 - z) h + z c; `keep`, h = z h + (1 - z) c, as in the public code.
        Weights trained with one are wrong with the other.
    feature_channels: of the C3D map, given by the features.
    projected, hidden: channels of the projected map and of the state; None: 512 and 128, for
        `c3d_gru` 32 and 1617. `c3d_conv` has no state.
    channels: of the maps between the transposed convolutions.
    dropout: of the logits, in training.
    """

    network: Network = "rgp"
    update_gate: UpdateGate = "thesis"
    feature_channels: PositiveInt = 1024
    projected: PositiveInt | None = None
    hidden: PositiveInt | None = None
    channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 32, 12)
    dropout: float = Field(default=0.0, ge=0, lt=1)


def _published(dataset: str, *values: float) -> tuple[PublishedResult, ...]:
    names = ("Sim", "CC", "sAUC", "AUC")
    return tuple(
        PublishedResult("gaze", dataset, name, value, "RGP")
        for name, value in zip(names, values, strict=True)
    )


@register("gean")
class Gean(Model):
    """The gaze network of GEAN; see the top of the file."""

    description: ClassVar[str] = "GEAN (CVPR 2017): where people look in a clip (RGP)"
    code: ClassVar[str] = "https://github.com/yj-yu/Recurrent_Gaze_Prediction"
    tasks: ClassVar[tuple[str, ...]] = ("gaze",)
    Config: ClassVar[type[ModelConfig]] = GeanConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType(
        {
            "c3d": FeatureSlot(
                "c3d_conv5b",
                "C3D maps of the 16 frames that end at each fifth frame",
                row_shapes=(f"C {_EDGE} {_EDGE}",),
            )
        }
    )
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        # 28 sequences in the public code; a clip of VAS, 15 s, makes two.
        {"learning_rate": 1e-4, "batch_size": 14}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = (
        *_published("VAS", 0.483, 0.586, 0.702, 0.912),
        *_published("Hollywood2", 0.478, 0.588, 0.682, 0.924),
    )

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        c = self.config = cast(GeanConfig, config)
        is_flat = c.network == "c3d_gru"
        projected = c.projected or (32 if is_flat else 512)
        hidden = c.hidden or (1617 if is_flat else 128)
        self.proj = nn.Linear(c.feature_channels, projected)  # a 1x1 convolution
        self.dropout = nn.Dropout(c.dropout)
        if is_flat:
            self.gru = PlainGru(projected * _EDGE**2, hidden, c.update_gate)
            self.out = nn.Linear(hidden, GRID**2)
            return
        if c.network == "rgp":
            self.rcn = ConvolutionalGru(projected, hidden, c.update_gate)
        first, second, third = c.channels
        num_in = hidden if c.network == "rgp" else projected
        self.deconv1 = nn.ConvTranspose2d(num_in, first, 5, stride=3, bias=False)
        self.deconv2 = nn.ConvTranspose2d(first, second, 5, stride=2, bias=False)
        self.deconv3 = nn.ConvTranspose2d(second, third, 7, padding=3, bias=False)
        self.out = nn.Linear(third, 1)  # a 1x1 convolution

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        return {"feature_channels": row_shapes["c3d"][0]}

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """c3d: float32 (T, C, 7, 7); row_s: float64 (T, 2), the seconds of each row. The task cuts
        both into sequences."""
        prepared = super().prepare(config, features, window_s)
        spans = np.asarray(features["c3d"].spans, np.float64)
        if window_s is not None:
            start_s, end_s = window_s
            spans = spans[(spans[:, 1] > start_s) & (spans[:, 0] < end_s)]
        return prepared | {"row_s": torch.from_numpy(spans)}

    def forward(self, *, c3d: Tensor, c3d_length: Tensor | None = None) -> dict[str, Tensor]:
        """Maps of gaze for every frame.

        c3d: float (B, T, 1024, 7, 7), or (T, 1024, 7, 7) of one clip. c3d_length: int (B,), how
        many frames are real, from the first on; None: all.

        Returns, without B if c3d has none: `logits` float32 (B, T, 49, 49); `map` float32 of that
        shape, which sums to 1 for every frame; both are 0 where padded. With a recurrent network
        also `hidden_last`, its state after the last real frame, (B, 128, 7, 7) or (B, 1617).
        """
        is_single = c3d.ndim == 4
        if is_single:
            c3d = c3d[None]
        x = self.proj(c3d.float().movedim(2, -1)).movedim(-1, 2)  # (B, T, 512, 7, 7)
        state: Tensor | None = None
        if self.config.network == "c3d_gru":
            state = self.gru(x.flatten(2))  # (B, T, 1617)
            logits = self.out(state).view(*x.shape[:2], GRID, GRID)  # (B, T, 49, 49)
        else:
            if self.config.network == "rgp":
                x = state = self.rcn(x)  # (B, T, 128, 7, 7)
            logits = self._enlarged(x.flatten(0, 1)).view(*x.shape[:2], GRID, GRID)
        logits = self.dropout(logits.float())
        maps = logits.flatten(-2).softmax(dim=-1).view_as(logits)
        outputs = {"logits": logits, "map": maps}
        if c3d_length is not None:
            length = c3d_length.to(c3d.device).reshape(len(c3d))
            is_real = real_positions(length, c3d.shape[1])[..., None, None]
            outputs = {name: value * is_real for name, value in outputs.items()}
            last = length.clamp(min=1) - 1
        else:
            last = torch.full((len(c3d),), c3d.shape[1] - 1, device=c3d.device)
        if state is not None:
            outputs["hidden_last"] = state[torch.arange(len(c3d), device=c3d.device), last]
        return {name: value[0] for name, value in outputs.items()} if is_single else outputs

    def _enlarged(self, x: Tensor) -> Tensor:
        """(N, C, 7, 7) -> (N, 49, 49)."""
        x = self.deconv1(x)  # (N, 64, 23, 23)
        x = self.deconv2(x)  # (N, 32, 49, 49)
        x = self.deconv3(x)  # (N, 12, 49, 49)
        return cast(Tensor, self.out(x.movedim(1, -1))).squeeze(-1)

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Reads the formulas' names, and the public code's TensorFlow variables; see
        `published_layouts/gean.py`. These belong to update_gate="keep"."""
        state = without_parallel_prefix(state)
        if is_tensorflow(state) and self.config.update_gate != "keep":
            _LOG.warning(
                "the checkpoint has the names of the public code, whose update gate says how much "
                "of the state stays; this network was made with update_gate=thesis, which reads "
                "it the other way round"
            )
        fill(
            self,
            from_tensorflow(state),
            what=f"GEAN's gaze network ({self.config.network})",
        )

    def published_state(self) -> dict[str, Tensor]:
        """The weights by the formulas' names."""
        return {key: value.detach().cpu() for key, value in self.state_dict().items()}
