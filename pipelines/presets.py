"""Sets of features named after what reads them: `vlpipe extract --for bmt`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from vlpipe.stores.errors import UsageError


@dataclass(frozen=True, slots=True)
class Preset:
    """Extractors and their settings. source: where the paper or its code says so."""

    features: tuple[str, ...]
    source: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_STACKS_OF_24 = {"stack_size": 24, "step_size": 24}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "bmt": Preset(
            ("i3d_rgb", "i3d_flow", "vggish"),
            "v-iashin/BMT: stacks of 64 frames at 25 fps with PWC-Net flow, raw VGGish",
        ),
        "mdvc": Preset(
            ("i3d_rgb", "i3d_flow", "vggish"),
            "v-iashin/MDVC: stacks of 24 frames at 25 fps, the span of a VGGish row",
            {"i3d_rgb": _STACKS_OF_24, "i3d_flow": _STACKS_OF_24},
        ),
        "jsfusion": Preset(
            ("resnet152", "vggish"),
            "JSFusion: at most 40 equidistant frames, VGGish after PCA",
            {"resnet152": {"max_frames": 40}, "vggish": {"postprocess": "pca"}},
        ),
        "ct-san": Preset(
            ("resnet152",),
            "CT-SAN: the last map of at most 40 equidistant frames",
            {"resnet152": {"max_frames": 40, "outputs": ("pool5", "res5c")}},
        ),
    }
)


def find_preset(name: str) -> Preset:
    """The preset of that name; UsageError lists all."""
    if name not in PRESETS:
        raise UsageError(
            f"no features are named after {name!r}", hint=f"--for {', '.join(PRESETS)}"
        )
    return PRESETS[name]
