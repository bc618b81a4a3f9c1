"""Image embeddings of CLIP and its kin: `clip:ViT-B-32`.

Papers: Learning Transferable Visual Models From Natural Language Supervision (Radford et al.,
2021), Sigmoid Loss for Language Image Pre-Training (Zhai et al., 2023) and those of the other
networks of the library, mlfoundations/open_clip (MIT), whose names are used. Only image towers are
built.

Data flow: frames (B, H, W, 3) uint8, scaled as the weights want it -> (B, 3, E, E) -> `embedding`
(B, D), projected into the space that images and texts share, not divided by its norm.

Checkpoint layouts: open_clip's, of the whole model (`visual.conv1.weight`, ...) or its image tower
alone; for plain vision transformers also transformers' (`vision_model.embeddings.
class_embedding`, ..., `visual_projection.weight`). Entries of the text tower are passed over. The
files at OpenAI are programs, not tensors: take open_clip's or transformers' conversion.

OpenAI's weights, and a few others, were trained with x * sigmoid(1.702 x) for GELU
(quick_gelu=true): no entry of the file tells, and without it the embeddings are wrong. A checkpoint
that is added by name brings the setting.
"""

import re
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

# transformers' names of the layers of a vision transformer.
_TRANSFORMERS_NAMES = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


class ClipTowerConfig(ImageTowerConfig):
    """As ImageTowerConfig, and the activation that the weights were trained with.

    quick_gelu: x * sigmoid(1.702 x) in place of GELU, as for OpenAI's weights.
    """

    quick_gelu: bool = False


class ClipTowerNetwork(nn.Module):
    """(B, 3, E, E) normalised frames -> dict of `embedding` (B, D)."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"embedding": _first(self.visual(x))}


class ClipTower(ImageTower):
    """Image embeddings of one network of open_clip."""

    Config: ClassVar[type[ExtractorConfig]] = ClipTowerConfig
    output_key: ClassVar[str] = "embedding"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {cls.name: _published(cls.name, cls.member)}

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        settings = cast(ClipTowerConfig, config)
        return ClipTowerNetwork(_build(cls.member, settings.quick_gelu, settings.crop))

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        checkpoint = checkpoints[cls.name]
        state = dict(checkpoint.state)
        if any(key.startswith("vision_model.") for key in state):
            state = from_transformers(state)
        elif any(key.startswith("visual.") for key in state):
            state = {
                key.removeprefix("visual."): value
                for key, value in state.items()
                if key.startswith("visual.")
            }
        visual = cast(ClipTowerNetwork, network).visual
        checkpoint.load_into(visual, state, what=f"open_clip {cls.member}, image tower")


@register_family("clip")
class ClipFamily(ExtractorFamily):
    """Every network that open_clip knows by name."""

    description: ClassVar[str] = "image towers of CLIP, SigLIP and kin (open_clip): a row per frame"
    where_listed: ClassVar[str] = "`open_clip.list_models()` in Python lists the names"

    @classmethod
    def members(cls) -> Sequence[str]:
        return _members()

    @classmethod
    def member_of_checkpoint(cls, checkpoint: str) -> str:
        return checkpoint.rpartition(".")[0] or checkpoint

    @classmethod
    def make(cls, member: str) -> type[Extractor]:
        about = _open_clip().get_model_config(member)
        edge = square_edge(about["vision_cfg"].get("image_size", 224), f"open_clip's {member}")
        tags = _tags(member)
        defaults = {"crop": edge, "quick_gelu": bool(about.get("quick_gelu", False))}
        defaults |= _frame_settings(tags[0][1] if tags else {}, edge, member)
        with torch.device("meta"):
            network = ClipTowerNetwork(_build(member, quick_gelu=False, edge=edge))
        shape, gflop = measure(network, ClipTower.output_key, edge)
        return type(
            f"Clip_{member}",
            (ClipTower,),
            {
                "member": member,
                "Config": make_config(ClipTowerConfig, member, defaults),
                "width": shape[0],
                "gflop_per_sample": gflop,
                "description": f"open_clip {member}: a row per frame, embedding {shape[0]}-d",
                "__doc__": f"Image embeddings of open_clip's {member}.",
            },
        )


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of an image tower of transformers by open_clip's names; those of texts are left out.

    Queries, keys and values of a layer become one tensor, in that order; the projection (D, W) is
    transposed.
    """
    made: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if key == "visual_projection.weight":
            made["proj"] = value.T.contiguous()
        if not key.startswith("vision_model.") or key.endswith(".position_ids"):
            continue
        name = key.removeprefix("vision_model.")
        for theirs, ours in _TRANSFORMERS_NAMES.items():
            name = name.replace(theirs, ours)
        found = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
        if found:
            thirds.setdefault(f"{found[1]}.attn.in_proj_{found[3]}", {})[found[2]] = value
        else:
            made[name] = value
    for name, parts in thirds.items():
        made[name] = torch.cat([parts[letter] for letter in "qkv" if letter in parts])
    return made


def _first(made: Tensor | Sequence[Tensor]) -> Tensor:
    # Some towers hand out the tokens as well.
    return made if isinstance(made, Tensor) else made[0]


def _open_clip() -> "ModuleType":
    # Importing it takes seconds.
    return import_library("open_clip", "clip", "a network `clip:NAME`")


@cache
def _members() -> tuple[str, ...]:
    return tuple(sorted(_open_clip().list_models()))


@cache
def _tags(member: str) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """The published weights of a network, by tag, and how frames are scaled for each."""
    library = _open_clip()
    tags = library.list_pretrained_tags_by_model(member)
    return tuple((tag, library.get_pretrained_cfg(member, tag)) for tag in tags)


def _build(member: str, quick_gelu: bool, edge: int) -> nn.Module:
    library = _open_clip()
    about = library.get_model_config(member)
    vision = {**about["vision_cfg"], "image_size": edge}
    if "timm_model_name" in vision:
        vision["timm_model_pretrained"] = False
    settings = library.CLIPVisionCfg(**vision)
    # The public way builds the text tower too, which for some networks asks the hub for its layout.
    visual = library.model._build_vision_tower(about["embed_dim"], settings, quick_gelu)
    return cast(nn.Module, visual)


def _published(name: str, member: str) -> list[PublishedCheckpoint]:
    checkpoints = []
    native = _open_clip().get_model_config(member)
    edge = square_edge(native["vision_cfg"].get("image_size", 224), f"open_clip's {member}")
    for tag, about in _tags(member):
        hub = about.get("hf_hub", "").strip("/")
        url = f"{_HUB}/{hub}" if hub else about.get("url", "")
        if not url.startswith("https://"):
            continue
        quick_gelu = bool(about.get("quick_gelu", native.get("quick_gelu", False)))
        checkpoints.append(
            PublishedCheckpoint(
                f"{name}.{tag}",
                "open_clip_model.safetensors" if hub else url.rpartition("/")[2],
                url,
                "stated on its page",
                settings={"quick_gelu": quick_gelu, **_frame_settings(about, edge, member)},
            )
        )
    return checkpoints or [
        PublishedCheckpoint(
            name, "open_clip_model.safetensors", f"{_HUB}/models", "stated on its page"
        )
    ]


def _frame_settings(about: Mapping[str, Any], edge: int, member: str) -> dict[str, Any]:
    """The settings that stand for open_clip's own transform."""
    library = _open_clip()
    interpolation, mode = (
        about.get("interpolation", "bicubic"),
        about.get("resize_mode", "shortest"),
    )
    if interpolation not in get_args(Interpolation) or mode not in ("shortest", "squash"):
        raise UsageError(
            f"open_clip's {member} wants frames scaled by {interpolation}, mode {mode}; known here "
            f"are {', '.join(get_args(Interpolation))}, and the modes shortest and squash"
        )
    return {
        "resize": edge if mode == "shortest" else (edge, edge),
        "interpolation": interpolation,
        "mean": tuple(about.get("mean", library.OPENAI_DATASET_MEAN)),
        "std": tuple(about.get("std", library.OPENAI_DATASET_STD)),
    }
