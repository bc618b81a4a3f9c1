"""What extractors ask of a video: frames at a rate and size, or audio at a rate."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

Interpolation = Literal["bilinear", "bicubic", "nearest"]
CropRounding = Literal["floor", "round", "ceil"]

# As ffmpeg parses a rate given as a decimal number.
_MAX_RATE_DENOMINATOR = 1_001_000
_MAX_EDGE_PX = 16_384


@dataclass(frozen=True, slots=True)
class Resize:
    """A rule for scaling frames, in Pillow's 8-bit resampling (torchvision's on PIL images).

    shorter_edge: pixels of the shorter edge; the other becomes `int(shorter_edge * long / short)`,
        as in torchvision and video_features.
    size: (height, width) exactly, without regard to the aspect. One of the two is given.
    only_shrink, only_enlarge: leave frames alone that are already at most, or at least, so large
        (both edges of `size`; the shorter edge of `shorter_edge`).
    """

    shorter_edge: int | None = None
    size: tuple[int, int] | None = None
    interpolation: Interpolation = "bilinear"
    only_shrink: bool = False
    only_enlarge: bool = False

    def __post_init__(self) -> None:
        if (self.shorter_edge is None) == (self.size is None):
            raise ValueError("Resize takes either shorter_edge or size")
        if self.size is not None:
            height, width = self.size
            object.__setattr__(self, "size", (int(height), int(width)))
        edges = (self.shorter_edge,) if self.size is None else self.size
        if not all(isinstance(e, int) and 1 <= e <= _MAX_EDGE_PX for e in edges):
            raise ValueError(f"Resize to {edges}: edges are 1 to {_MAX_EDGE_PX} pixels")
        if self.interpolation not in ("bilinear", "bicubic", "nearest"):
            raise ValueError(f"Resize.interpolation is {self.interpolation!r}")
        if self.only_shrink and self.only_enlarge:
            raise ValueError("Resize: only_shrink and only_enlarge exclude each other")

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of a frame of the given height and width after scaling."""
        if self.size is not None:
            target_h, target_w = self.size
            if self.only_shrink and height <= target_h and width <= target_w:
                return height, width
            if self.only_enlarge and height >= target_h and width >= target_w:
                return height, width
            return target_h, target_w
        assert self.shorter_edge is not None
        short, long = min(height, width), max(height, width)
        edge = self.shorter_edge
        if (self.only_shrink and short <= edge) or (self.only_enlarge and short >= edge):
            return height, width
        other = int(edge * long / short)
        return (edge, other) if height <= width else (other, edge)


@dataclass(frozen=True, slots=True)
class FrameRequest:
    """A request for RGB frames; the fields apply in the order in which they stand here.

    fps: None gives every source frame. A rate gives one frame per slot [k/fps, (k+1)/fps) through
        the time stamps, repeating and dropping frames as ffmpeg's `fps` filter does (round=near).
    max_frames: at most so many, those at the integers of `linspace(0, n, max_frames, endpoint
        False)` when there are n > max_frames (JSFusion, CT-SAN).
    center_crop: edge of a centred square in pixels; smaller frames are padded with zeros as
        torchvision's CenterCrop does.
    crop_rounding: where the square starts when (edge - crop) is odd: `floor` (I3D), `round` (half
        to even: torchvision's CenterCrop), `ceil` (TimeSformer).
    """

    fps: float | Fraction | None = None
    max_frames: int | None = None
    resize: Resize | None = None
    center_crop: int | None = None
    crop_rounding: CropRounding = "floor"

    def __post_init__(self) -> None:
        if self.fps is not None and not 0.001 <= self.fps <= 1000:
            raise ValueError(f"FrameRequest.fps is {self.fps}; expected 0.001 to 1000")
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"FrameRequest.max_frames is {self.max_frames}; expected 1 or more")
        if self.center_crop is not None and not 1 <= self.center_crop <= _MAX_EDGE_PX:
            raise ValueError(f"FrameRequest.center_crop is {self.center_crop}")
        if self.crop_rounding not in ("floor", "round", "ceil"):
            raise ValueError(f"FrameRequest.crop_rounding is {self.crop_rounding!r}")

    @property
    def rate(self) -> Fraction | None:
        """The rate as an exact fraction, None for every source frame."""
        if self.fps is None:
            return None
        return Fraction(self.fps).limit_denominator(_MAX_RATE_DENOMINATOR)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of what comes of a frame of the given height and width."""
        if self.center_crop is not None:
            return self.center_crop, self.center_crop
        return self.resize.output_size(height, width) if self.resize else (height, width)


@dataclass(frozen=True, slots=True)
class AudioRequest:
    """A request for mono float32 samples in [-1, 1) at `sample_rate` Hz."""

    sample_rate: int = 16_000

    def __post_init__(self) -> None:
        if not 1000 <= self.sample_rate <= 384_000:
            raise ValueError(f"AudioRequest.sample_rate is {self.sample_rate} Hz")


MediaRequest = FrameRequest | AudioRequest


def request_to_json(request: MediaRequest) -> dict[str, Any]:
    """The request as a JSON object, for the way to the child and for provenance."""
    if isinstance(request, AudioRequest):
        return {"kind": "audio", "sample_rate": request.sample_rate}
    rate, resize = request.rate, request.resize
    return {
        "kind": "frames",
        "fps": None if rate is None else [rate.numerator, rate.denominator],
        "max_frames": request.max_frames,
        "resize": None
        if resize is None
        else {
            "shorter_edge": resize.shorter_edge,
            "size": None if resize.size is None else list(resize.size),
            "interpolation": resize.interpolation,
            "only_shrink": resize.only_shrink,
            "only_enlarge": resize.only_enlarge,
        },
        "center_crop": request.center_crop,
        "crop_rounding": request.crop_rounding,
    }


def request_from_json(fields: dict[str, Any]) -> MediaRequest:
    """The request that `request_to_json` described."""
    fields = dict(fields)
    if fields.pop("kind") == "audio":
        return AudioRequest(**fields)
    if (fps := fields["fps"]) is not None:
        fields["fps"] = Fraction(fps[0], fps[1])
    if (resize := fields["resize"]) is not None:
        size = resize["size"]
        fields["resize"] = Resize(**{**resize, "size": None if size is None else tuple(size)})
    return FrameRequest(**fields)
