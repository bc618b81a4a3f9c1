"""Frame features of any image network of timm: `timm:resnet50.a1_in1k`.

Library: huggingface/pytorch-image-models (timm, Apache-2.0), which names the paper of each network.
A name is an architecture, or an architecture and the tag of its weights; without a tag timm's first
one counts. Checkpoint layout: timm's own, as published on the Hugging Face hub under
`timm/NAME` (model.safetensors); the class head is passed over.

Data flow: frames (B, H, W, 3) uint8, scaled as timm's description of the weights says (crop share,
interpolation, mean, standard deviation; all of it in the settings) -> (B, 3, E, E) -> `pooled`
(B, D), what timm makes with num_classes=0. D, E and the cost are taken from the network itself.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

import torch
from torch import Tensor, nn

from vlpipe.extractors.extractor import Extractor, ExtractorConfig
from vlpipe.extractors.family import ExtractorFamily, import_library
from vlpipe.extractors.image_tower import (
    ImageTower,
    ImageTowerConfig,
    make_config,
    measure,
    square_edge,
)
from vlpipe.extractors.media.requests import Interpolation
from vlpipe.extractors.registry import register_family
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from types import ModuleType

_HUB = "https://huggingface.co"


class TimmFeatures(nn.Module):
    """(B, 3, E, E) normalised frames -> dict of `pooled` (B, D)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"pooled": self.body(x)}


class TimmBackbone(ImageTower):
    """Frame features of one network of timm."""

    Config: ClassVar[type[ExtractorConfig]] = ImageTowerConfig
    output_key: ClassVar[str] = "pooled"
    about: ClassVar[Mapping[str, Any]]
    """timm's description of the weights (`pretrained_cfg`)."""

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        hub_id = cls.about.get("hf_hub_id") or "timm"
        filename = cls.about.get("hf_hub_filename") or "model.safetensors"
        licence = cls.about.get("license") or "stated on its page"
        return {
            cls.name: [PublishedCheckpoint(cls.name, filename, f"{_HUB}/{hub_id}", licence)],
        }

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(ImageTowerConfig, config)
        native = cast(ImageTowerConfig, cls.Config()).crop
        # Positions are counted when such a network is built; others take any size.
        is_fixed = cls.about.get("fixed_input_size", False)
        sizes = {"img_size": settings.crop} if is_fixed and settings.crop != native else {}
        return TimmFeatures(_build(cls.member, **sizes))

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        heads = cls.about.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        checkpoint = checkpoints[cls.name]
        body = cast(TimmFeatures, network).body
        wanted = body.state_dict()
        state = {
            key: value
            for key, value in checkpoint.state.items()
            if key in wanted or key.rpartition(".")[0] not in heads
        }
        checkpoint.load_into(body, state, what=f"timm {cls.member}")


@register_family("timm")
class TimmFamily(ExtractorFamily):
    """Every image network that timm knows by name."""

    description: ClassVar[str] = "image networks of timm: a row per frame, pooled"
    where_listed: ClassVar[str] = "`timm.list_pretrained()` in Python lists the names"

    @classmethod
    def members(cls) -> Sequence[str]:
        return _members()

    @classmethod
    def make(cls, member: str) -> type[Extractor]:
        timm = _timm()
        with torch.device("meta"):
            network = TimmFeatures(_build(member))
        about = dict(cast(Any, network.body).pretrained_cfg)
        frames = timm.data.resolve_data_config(pretrained_cfg=about)
        defaults = _frame_settings(frames, member)
        shape, gflop = measure(network, TimmBackbone.output_key, defaults["crop"])
        if len(shape) != 1:
            raise UsageError(
                f"timm's {member} gives maps of {shape} and no vector for a frame",
                hint="choose another network of `timm:`",
            )
        return type(
            f"Timm_{member}",
            (TimmBackbone,),
            {
                "member": member,
                "about": about,
                "Config": make_config(ImageTowerConfig, member, defaults),
                "width": shape[0],
                "gflop_per_sample": gflop,
                "description": f"timm {member}: a row per frame, pooled {shape[0]}-d",
                "__doc__": f"Frame features of timm's {member}.",
            },
        )


def _timm() -> "ModuleType":
    # Importing it takes seconds.
    return import_library("timm", "timm", "a network `timm:NAME`")


@cache
def _members() -> tuple[str, ...]:
    timm = _timm()
    return tuple(sorted({*timm.list_models(), *timm.list_pretrained()}))


def _build(member: str, **sizes: int) -> nn.Module:
    # Without weights timm reaches for no network connection.
    return cast(nn.Module, _timm().create_model(member, pretrained=False, num_classes=0, **sizes))


def _frame_settings(frames: Mapping[str, Any], member: str) -> dict[str, Any]:
    """The settings that stand for timm's own evaluation transform."""
    edge = square_edge(frames["input_size"][1:], f"timm's {member}")
    interpolation, mode = frames["interpolation"], frames["crop_mode"]
    if interpolation not in get_args(Interpolation) or mode not in ("center", "squash"):
        raise UsageError(
            f"timm's {member} wants frames scaled by {interpolation}, crop mode {mode}; known here "
            f"are {', '.join(get_args(Interpolation))}, and the crop modes center and squash"
        )
    scaled = math.floor(edge / frames["crop_pct"])
    return {
        "resize": scaled if mode == "center" else (scaled, scaled),
        "crop": edge,
        "interpolation": interpolation,
        "mean": tuple(frames["mean"]),
        "std": tuple(frames["std"]),
    }
