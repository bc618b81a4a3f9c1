"""Heads on the features of a frozen video transformer: SVT or VideoMamba, trained on Charades.

Report: Video Transformers for Classification and Captioning (LENSV7, 2024). Code:
sykoravojtech/VideoMamba_SVT_VideoUnderstanding (MIT).
Checkpoint layout: `head.mlp.N.layer.0.*`, `head.classifier.*`, `head.reducer.*`; checkpoints of a
whole network have `encoder.*` besides, and those with weighted classes `loss_func.pos_weight`.
Parameters with 157 classes: SVT (512, 512) 474,269; VideoMamba (1024, 1024) 751,773.

Data flow (N clips, P tokens, C channels): class token (N, C), or all tokens (N, P, C) -> reducer:
the class token or a mean over tokens (N, C), or a number for each token (N, P) -> Linear, ReLU and
dropout for each hidden layer -> `logits` (N, classes), of which sigmoid makes scores.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.models.model import Model, ModelConfig, PublishedResult
from vlpipe.models.published_files import fill, without_parallel_prefix
from vlpipe.models.registry import register
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

Reducer = Literal["class_token", "average", "weighted_token_wise", "weighted_hidden_wise"]

_HEAD = "head."
_NOT_READ = ("encoder.", "loss_func.")
_SOURCE = "Video Transformers for Classification and Captioning"


class ClipClassifierConfig(ModelConfig):
    """Sizes of the head, and what it makes of many tokens.

    num_classes: given by the task. width, num_tokens: given by the features.
    layers: hidden layers as the published configurations list them: the first entry counts for
        nothing, so that (512, 512) is one hidden layer of 512. One entry: a linear map alone.
    dropout: behind each hidden layer. layer_norm: between it and the ReLU before it.
    reducer: `class_token`; or of rows of all tokens `average`, their mean, `weighted_token_wise`,
        their mean with a learnt weight for each, or `weighted_hidden_wise`, a learnt number for
        each token, of which the hidden layers read all.
    """

    num_classes: PositiveInt = 157
    width: PositiveInt
    num_tokens: PositiveInt = 1
    layers: tuple[PositiveInt, ...] = Field(min_length=1)
    dropout: float = Field(default=0.7, ge=0, lt=1)
    layer_norm: bool = False
    reducer: Reducer = "class_token"


class SvtClassifierConfig(ClipClassifierConfig):
    """As ClipClassifierConfig, with the sizes for SVT."""

    width: PositiveInt = 768
    layers: tuple[PositiveInt, ...] = Field(default=(512, 512), min_length=1)


class VideoMambaClassifierConfig(ClipClassifierConfig):
    """As ClipClassifierConfig, with the sizes for VideoMamba middle."""

    width: PositiveInt = 576
    layers: tuple[PositiveInt, ...] = Field(default=(1024, 1024), min_length=1)


class HiddenLayer(nn.Module):
    """(N, in) -> (N, out)."""

    def __init__(self, num_in: int, num_out: int, dropout: float, *, layer_norm: bool) -> None:
        super().__init__()
        norm = [nn.LayerNorm(num_out)] if layer_norm else []
        self.layer = nn.Sequential(
            nn.Linear(num_in, num_out), nn.ReLU(), *norm, nn.Dropout(dropout)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layer(x))


class ClassToken(nn.Module):
    """(N, C) as it is, of (N, P, C) the first token: (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.ndim == 2 else x[:, 0]


class MeanToken(nn.Module):
    """(N, P, C) -> (N, C), the mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)


class WeightedTokens(nn.Module):
    """(N, P, C) -> (N, C), the mean over tokens with a learnt weight for each, at first 1."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, num_tokens, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight * x).mean(dim=1)


class NumberOfToken(nn.Module):
    """(N, P, C) -> (N, P), a learnt linear map of each token to one number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x))[..., 0]


class ClassificationHead(nn.Module):
    """(N, C) or (N, P, C) -> (N, classes); entries as published, without `head.`."""

    def __init__(self, c: ClipClassifierConfig) -> None:
        super().__init__()
        self.reducer = _reducer(c)
        size = c.num_tokens if c.reducer == "weighted_hidden_wise" else c.width
        hidden = []
        for out in c.layers[1:]:
            hidden.append(HiddenLayer(size, out, c.dropout, layer_norm=c.layer_norm))
            size = out
        self.mlp = nn.Sequential(*hidden)
        self.classifier = nn.Linear(size, c.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(self.mlp(self.reducer(x))))


def _reducer(c: ClipClassifierConfig) -> nn.Module:
    if c.reducer == "weighted_token_wise":
        return WeightedTokens(c.num_tokens)
    if c.reducer == "weighted_hidden_wise":
        return NumberOfToken(c.width)
    return MeanToken() if c.reducer == "average" else ClassToken()


class ClipClassifier(Model):
    """A head over one slot, `clips`; a registered one for each transformer is below."""

    code: ClassVar[str] = "https://github.com/sykoravojtech/VideoMamba_SVT_VideoUnderstanding"
    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__(config, task)
        self.config = cast(ClipClassifierConfig, config)
        self.head = ClassificationHead(self.config)

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        *tokens, width = row_shapes["clips"]
        reducer = cast(ClipClassifierConfig, config).reducer
        if not tokens and reducer != "class_token":
            feature = cls.slots["clips"].feature
            raise UsageError(
                f"model.reducer={reducer} reads all tokens of a clip, and the rows are one vector "
                f"of {width}",
                hint=f"extract with outputs=cls,tokens, then --set features.clips={feature}_tokens",
            )
        return {"width": width, "num_tokens": tokens[0] if tokens else 1}

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """`clips`, float32 [T, C] or [T, P, C], and `spans`, float64 [T, 2] seconds: the rows that
        overlap the window."""
        spans = torch.from_numpy(features["clips"].spans).double()
        prepared = super().prepare(config, features, window_s)
        if window_s is not None:
            spans = spans[(spans[:, 1] > window_s[0]) & (spans[:, 0] < window_s[1])]
        return prepared | {"spans": spans}

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """clips: (N, C) or (N, P, C) -> `logits` (N, classes)."""
        return {"logits": self.head(clips)}

    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Heads with or without `head.` before their entries; the number of classes follows."""
        found = {
            key.removeprefix(_HEAD): value
            for key, value in without_parallel_prefix(state).items()
            if not key.startswith(_NOT_READ)
        }
        bias = found.get("classifier.bias")
        if bias is not None and bias.ndim == 1 and len(bias) != self.config.num_classes:
            self.config = self.config.model_copy(update={"num_classes": len(bias)})
            self.head.classifier = nn.Linear(self.head.classifier.in_features, len(bias))
        fill(self.head, found, what="a head of SVT or VideoMamba on Charades")

    def published_state(self) -> dict[str, Tensor] | None:
        return {f"{_HEAD}{key}": value.clone() for key, value in self.head.state_dict().items()}


def _slots(feature: str) -> Mapping[str, FeatureSlot]:
    told = "a clip a row: its class token, or all its tokens"
    return MappingProxyType({"clips": FeatureSlot(feature, told, row_shapes=("C", "tokens C"))})


def _published(*figures: tuple[float, str]) -> tuple[PublishedResult, ...]:
    return tuple(
        PublishedResult(
            "classification", "charades", "mAP/unlabelled_ranked", value, f"{_SOURCE}, {how}"
        )
        for value, how in figures
    )


@register("svt_classifier")
class SvtClassifier(ClipClassifier):
    """On clips of 8 frames; see the top of the file."""

    description: ClassVar[str] = "SVT, frozen, with a head (2024): actions of videos"
    Config: ClassVar[type[ModelConfig]] = SvtClassifierConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = _slots("svt")
    # 128 clips a step in the published configuration, some 28 videos.
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-4, "batch_size": 28, "epochs": 300}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = _published(
        (24.87, "windows of 6 s every 6 s"),
        (25.01, "every 3 s"),
        (19.23, "all tokens"),
    )


@register("videomamba_classifier")
class VideoMambaClassifier(ClipClassifier):
    """On clips of 16 frames; see the top of the file."""

    description: ClassVar[str] = "VideoMamba, frozen, with a head (2024): actions of videos"
    Config: ClassVar[type[ModelConfig]] = VideoMambaClassifierConfig
    slots: ClassVar[Mapping[str, FeatureSlot]] = _slots("videomamba_middle")
    # 512 clips a step in the published configuration, some 230 videos.
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-5, "batch_size": 230, "epochs": 400}
    )
    published_results: ClassVar[tuple[PublishedResult, ...]] = _published(
        (29.38, "windows of 11 s every 11 s"),
        (29.82, "every 3 s"),
        (29.60, "every 6 s"),
        (24.57, "all tokens"),
    )
