"""What the networks of timm and open_clip have in common: one vector for every frame.

How frames are scaled belongs to the checkpoint; a member of a family has it as the defaults of its
settings, so that it is part of the provenance.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, create_model, model_validator
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Output
from vlpipe.extractors.family import feature_name_of
from vlpipe.extractors.inputs.frame_normalisation import normalise_frames
from vlpipe.extractors.media import FrameRequest, MediaInfo, MediaRequest, Resize
from vlpipe.extractors.media.requests import Interpolation
from vlpipe.extractors.samples import FrameSampler, Sampler
from vlpipe.stores.errors import UsageError

Rgb = tuple[float, float, float]

Config = TypeVar("Config", bound=ExtractorConfig)


class ImageTowerConfig(ExtractorConfig):
    """Which frames, and how they are scaled; the defaults are those of the network's weights.

    fps, max_frames: frames a second (None: every frame of the source), at most so many of them,
        equidistant.
    resize, crop: pixels of the shorter edge, or height and width; then of a centred square.
    interpolation: of the scaling, by Pillow.
    mean, std: of red, green and blue in 0..1.
    """

    fps: float | None = Field(default=None, gt=0)
    max_frames: PositiveInt | None = None
    resize: PositiveInt | tuple[PositiveInt, PositiveInt] = 224
    crop: PositiveInt = 224
    interpolation: Interpolation = "bicubic"
    mean: Rgb = (0.5, 0.5, 0.5)
    std: Rgb = (0.5, 0.5, 0.5)

    @model_validator(mode="after")
    def _crop_fits(self) -> Self:
        edge = self.resize if isinstance(self.resize, int) else min(self.resize)
        if self.crop > edge:
            raise ValueError(f"crop exceeds the shorter edge, resize={self.resize}")
        return self


class ImageTower(Extractor):
    """A row for every frame: the output `output_key` of the network, (width,)."""

    version: ClassVar[int] = 1
    member: ClassVar[str]
    """Its name within the family."""

    width: ClassVar[int]
    output_key: ClassVar[str]
    gpu_batch_size: ClassVar[int | None] = 128

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        settings = cast(ImageTowerConfig, config)
        size, way = settings.resize, settings.interpolation
        return FrameRequest(
            fps=settings.fps,
            max_frames=settings.max_frames,
            resize=Resize(shorter_edge=size, interpolation=way)
            if isinstance(size, int)
            else Resize(size=size, interpolation=way),
            center_crop=settings.crop,
            crop_rounding="round",
        )

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (Output(feature_name_of(cls.name), cls.output_key, (cls.width,), ("channel",)),)

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return FrameSampler()

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        settings = cast(ImageTowerConfig, self.spec.config)
        frames = torch.from_numpy(samples).to(self.device)  # (B, H, W, 3) uint8
        return normalise_frames(frames, settings.mean, settings.std)  # (B, 3, H, W)


def make_config(base: type[Config], member: str, defaults: Mapping[str, Any]) -> type[Config]:
    """`base` with other defaults."""
    fields: dict[str, Any] = {
        # Limits on values stay with the annotation.
        name: (base.model_fields[name].rebuild_annotation(), value)
        for name, value in defaults.items()
    }
    return create_model(f"{base.__name__}_{member}", __base__=base, __doc__=base.__doc__, **fields)


def square_edge(size: Any, network: str) -> int:  # noqa: ANN401 - of a library's own description
    """The edge of the square frames that a network takes; UsageError if they are not square."""
    edges = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(edges) != 2 or edges[0] != edges[1] or not isinstance(edges[0], int):
        raise UsageError(f"{network} takes frames of {size} pixels; only square ones are made here")
    return edges[0]


def measure(network: nn.Module, key: str, edge: int) -> tuple[tuple[int, ...], float]:
    """Shape of the row `key` that a network makes of one square frame, and the GFLOP it costs.

    network: on the device `meta`, where it has shapes and no numbers, so that this takes no time.
    """
    network.eval().requires_grad_(False)
    frame = torch.empty(1, 3, edge, edge, device="meta")
    with FlopCounterMode(display=False) as counter:
        made: dict[str, Tensor] = network(frame)
    return tuple(made[key].shape[1:]), counter.get_total_flops() / 1e9
