"""What extractors with a class token and patch tokens of clips share: windows, frames, outputs.

Data flow: frames -> windows or views of them (`inputs/clip_windows.py`) -> scaled and cropped to a
square (B, T, crop, crop, 3) -> (x / 255 - mean) / std, (B, 3, T, crop, crop) -> a network that
returns `cls` (B, C), `tokens` (B, 1 + T P, C) and `tokens_mean` (B, C), where P = (crop / 16)^2.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Names, Output
from vlpipe.extractors.inputs.clip_windows import (
    Frames,
    Indices,
    Spread,
    ViewSampler,
    WindowRule,
    WindowSampler,
    WindowTail,
)
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.samples import Sampler

PATCH = 16

Preset = Literal["kinetics", "charades"]
Place = Literal["start", "center", "end"]
TokenOutput = Literal["cls", "tokens", "tokens_mean"]


class ClipBackboneConfig(ExtractorConfig):
    """Which frames make a clip, how they are scaled, and which outputs are kept.

    preset: where settings come from that are not given: `kinetics` is the evaluation of the
        network's own code, `charades` that of "Video Transformers for Classification and
        Captioning" (2024).
    num_frames: of a clip.
    fps: frames a second; None keeps every frame of the source.
    window_s, stride_s, tail, spread: see `WindowRule`.
    views: None makes a row for every window; a number makes so many rows of the whole video, as
        the network's own code evaluates, whatever the windows are.
    resize: pixels of the shorter edge. crop: edge of the square, a multiple of 16. crop_at: which
        end of the longer edge it is taken from, or its centre.
    whole_frame: scale the whole picture to crop x crop instead, so that no part of it is cut off.
    mean, std: of red, green and blue in 0..1, subtracted and divided by.
    outputs: `cls` is the feature of the network's own name, `tokens` and `tokens_mean` that name
        and `_tokens` or `_tokens_mean`.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    preset: Preset = "kinetics"
    num_frames: int = Field(ge=1, le=64)
    fps: float | None = Field(gt=0)
    window_s: float = Field(gt=0, le=3600)
    stride_s: float = Field(gt=0)
    tail: WindowTail
    spread: Spread
    views: int | None = Field(default=None, ge=1, le=100)
    resize: PositiveInt
    crop: int = Field(ge=PATCH, multiple_of=PATCH)
    crop_at: Place = "center"
    whole_frame: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    outputs: Names[TokenOutput] = Field(default=("cls",), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, given: Any) -> Any:  # noqa: ANN401 - not yet validated
        if not isinstance(given, Mapping):
            return given
        return {**cls.presets.get(str(given.get("preset", "kinetics")), {}), **given}

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        if self.stride_s > self.window_s:
            raise ValueError(f"stride_s exceeds window_s, which is {self.window_s:g}")
        if self.crop > self.resize and not self.whole_frame:
            raise ValueError(f"crop exceeds resize, which is {self.resize}")
        if self.views is not None and self.fps is not None:
            raise ValueError("views are counted in frames of the source: they take fps=None")
        if min(self.std) <= 0:
            raise ValueError("std has to be above 0")
        return self


class ClipBackbone(Extractor):
    """A row for every window or view of a video; subclasses add the network and its files."""

    # At most 0.4 GB of activations at 16 frames; fewer leave a GPU waiting for the next kernel.
    batch_size = 4
    fractions_of_level: ClassVar[int]
    """Scaled frames keep 1/128 of a grey level where published code scales floats (128), and
    whole levels where it scales bytes (1)."""

    @classmethod
    @abstractmethod
    def feature(cls, config: ClipBackboneConfig) -> tuple[str, int]:
        """Name of the feature of the class token, and its width."""

    @abstractmethod
    def choose_views(self, num_frames: int, fps: float) -> list[Indices]:
        """Which of a video's frames make each of `config.views` clips."""

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(ClipBackboneConfig, config)
        edges = (settings.crop, settings.crop)
        # The decoder scales with antialiasing, which the published crops are made without.
        resize = Resize(size=edges) if settings.whole_frame else None
        return FrameRequest(fps=settings.fps, resize=resize)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(ClipBackboneConfig, config)
        name, width = cls.feature(settings)
        num_tokens = 1 + settings.num_frames * (settings.crop // PATCH) ** 2
        declared = {
            "cls": Output(name, "cls", (width,), ("channel",)),
            "tokens": Output(f"{name}_tokens", "tokens", (num_tokens, width), ("token", "channel")),
            "tokens_mean": Output(f"{name}_tokens_mean", "tokens_mean", (width,), ("channel",)),
        }
        return tuple(declared[output] for output in settings.outputs)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        settings = cast(ClipBackboneConfig, config)
        # Views do not depend on a video's length; Kinetics' videos have 10 s.
        return 1 / settings.stride_s if settings.views is None else settings.views / 10

    @property
    def settings(self) -> ClipBackboneConfig:
        """The configuration."""
        return cast(ClipBackboneConfig, self.spec.config)

    def sampler(self, info: MediaInfo) -> Sampler:
        settings = self.settings
        if settings.views is not None and info.video is not None:
            video = info.video
            promised = video.num_frames or round(video.duration_s * video.average_fps)
            views = self.choose_views(max(1, promised), video.average_fps)
            return ViewSampler(views, self.scale)
        rule = WindowRule(
            settings.window_s,
            settings.stride_s,
            settings.num_frames,
            settings.spread,
            settings.tail,
        )
        return WindowSampler(rule, self.scale)

    def scale(self, frames: Frames) -> Frames:
        """[T, crop, crop, 3] in 1 / fractions_of_level grey levels, from uint8 [T, H, W, 3].

        uint8 of whole levels, else int16.
        """
        settings, parts = self.settings, self.fractions_of_level
        dtype = np.uint8 if parts == 1 else np.int16
        if settings.whole_frame:
            return np.multiply(frames, parts, dtype=dtype)
        height, width = frames.shape[1:3]
        size = shorter_edge_to(settings.resize, height, width)
        top, left = (_crop_start(edge - settings.crop, settings.crop_at) for edge in size)
        scaled = np.empty((len(frames), settings.crop, settings.crop, 3), dtype)
        # One frame at a time: floats of a whole block of large frames would take gigabytes.
        for frame, row in zip(frames, scaled, strict=True):
            x = torch.from_numpy(frame).permute(2, 0, 1)[None].float()  # (1, 3, H, W)
            if size != (height, width):
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
            x = x[0, :, top : top + settings.crop, left : left + settings.crop]
            row[:] = x.mul(parts).round_().permute(1, 2, 0).numpy()
        return scaled

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        clips = torch.from_numpy(samples).to(self.device)  # (B, T, H, W, 3)
        x = clips.permute(0, 4, 1, 2, 3).float().div_(255 * self.fractions_of_level)
        mean = x.new_tensor(self.settings.mean).view(3, 1, 1, 1)
        std = x.new_tensor(self.settings.std).view(3, 1, 1, 1)
        return x.sub_(mean).div_(std)  # (B, 3, T, H, W)


def shorter_edge_to(edge: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) with the shorter of the two at `edge` and the other one rounded down."""
    if height <= width:
        return edge, math.floor(width / height * edge)
    return math.floor(height / width * edge), edge


def _crop_start(spare: int, place: Place) -> int:
    if place == "center":
        return math.ceil(spare / 2)
    return 0 if place == "start" else spare
