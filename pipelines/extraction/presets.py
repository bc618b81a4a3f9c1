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


# Windows as the experiments of 2024 evaluate them; training reads those that do not overlap.
_CHARADES_WINDOWS = {"preset": "charades", "fps": None, "stride_s": 3.0, "tail": "keep"}

_STACKS_OF_24 = {"stack_size": 24, "step_size": 24}

# One frame in five, from the first that has 15 before it.
_GEAN_FRAMES = {"frame_step": 5, "first_frame": 15}

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
        "masn": Preset(
            ("resnet152", "objects", "i3d_resnet50", "objects_motion"),
            "ahjeongseo/MASN-pytorch: 10 objects and a clip of 8 frames, every 4th frame at 6 fps; "
            "rate and clips are the best reading of published files, not published themselves",
            {
                "resnet152": {"fps": 6, "frame_step": 4},
                "objects": {"fps": 6, "frame_step": 4, "min_boxes": 10, "max_boxes": 10},
                "i3d_resnet50": {"fps": 6, "anchor_step": 4, "whole_frame": True},
                "objects_motion": {"fps": 6, "frame_step": 4, "boxes_per_frame": 10},
            },
        ),
        "cisin": Preset(
            ("person_tracks", "person_track_table", "track_faces", "body_parts", "track_motion"),
            "CiSIN: tracks of persons at 24 fps with faces, body parts and motion of each",
        ),
        "iperceive_videoqa": Preset(
            ("objects",),
            "Kim et al. 2020 on TVQA: regions of a frame in two seconds; how many is not published",
            {"objects": {"fps": 3, "frame_step": 6, "max_boxes": 20}},
        ),
        "gean": Preset(
            ("googlenet_places", "c3d", "googlenet"),
            "GEAN: one frame in five; scene, motion of the 16 frames before it, fovea",
            {
                "googlenet_places": _GEAN_FRAMES,
                "c3d": {"align": "past", "anchor_step": 5, "outputs": ("conv5b",)},
                "googlenet": {
                    **_GEAN_FRAMES,
                    "resize": (227, 227),
                    "crop": 227,
                    "outputs": ("inception_5b",),
                },
            },
        ),
        "tgif-qa": Preset(
            ("resnet152", "c3d"),
            "YunseokJANG/tgif-qa: every frame, and the 16 frames around it",
            {
                "resnet152": {"outputs": ("pool5", "res5c")},
                "c3d": {"align": "centre", "anchor_step": 1, "outputs": ("fc6", "conv5b")},
            },
        ),
        "tapm": Preset(
            ("resnet152", "i3d_rgb"),
            "TAPM on LSMDC: frames at 3 fps, I3D at 24 fps",
            {"resnet152": {"fps": 3}, "i3d_rgb": {"fps": 24}},
        ),
        "svt_classifier": Preset(
            ("svt",),
            "Video Transformers for Classification and Captioning: 8 frames of 6 s, every 3 s",
            {"svt": _CHARADES_WINDOWS},
        ),
        "videomamba_classifier": Preset(
            ("videomamba",),
            "Video Transformers for Classification and Captioning: 16 frames of 11 s, every 3 s",
            {"videomamba": _CHARADES_WINDOWS},
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
