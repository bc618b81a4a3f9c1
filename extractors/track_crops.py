"""How each person track looks: the mean vector of some of its crops, a row a track.

The plain way to tell persons apart over clips, beside `track_faces` and `body_parts` (CiSIN's
tables compare with ResNet-50 on whole persons: Yu et al., ECCV 2020). It needs neither face nor key
points, and takes any figure that has a track. Reads `person_tracks` and the same frames.

Data flow: of each track up to `max_crops` boxes, evenly spread over its frames, cut at whole pixels
and scaled to crop x crop -> (K, 3, crop, crop), normalised -> ResNet's `pool5` (K, D) -> mean over
the K: `look` (M, D), of length 1 unless `normalise` is off, `track` (M), `count` (M), which is K.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt

from vlpipe.extractors.extractor import ExtractorConfig, Inferred, Output
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.people.person_pictures import (
    PersonPicturesConfig,
    PersonPicturesExtractor,
    PersonPicturesSampler,
    cut_person,
)
from vlpipe.extractors.people.rows import MadeRows, gather_rows
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sample, Sampler

_WIDTHS = {"resnet18": 512, "resnet34": 512}
_WIDE = 2048


class TrackCropsConfig(PersonPicturesConfig):
    """Which network sees which crops.

    fps: frames a second, as in `person_tracks`. network: of torchvision.
    crop: pixels of the edges that crops are scaled to, whatever their shape.
    inset: share of a box's edges that is left out on each side, where the background shows.
    max_crops: of a track. normalise: scale the means to length 1.
    """

    network: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = "resnet50"
    inset: float = Field(default=0.0, ge=0, lt=0.5)
    max_crops: PositiveInt = 8
    normalise: bool = True


@register("track_crops")
class TrackCrops(PersonPicturesExtractor):
    """The looks of tracks; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = TrackCropsConfig
    batch_size = 8
    # Some four crops of 4.1 each at 224 pixels.
    gflop_per_sample: ClassVar[float] = 16.4
    description: ClassVar[str] = (
        "ResNet vectors of person tracks: the mean over crops, a row a track"
    )
    networks = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        width = _WIDTHS.get(cast(TrackCropsConfig, config).network, _WIDE)
        return (
            Output(cls.name, "look", (width,), ("channel",)),
            Output(f"{cls.name}_id", "track", (), (), "int32"),
            Output(f"{cls.name}_count", "count", (), (), "int32"),
        )

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        settings = cast(TrackCropsConfig, self.spec.config)
        return _CropSampler(settings)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """One row a track; see `Extractor.infer`."""
        return gather_rows(self, [self._look(sample) for sample in samples])

    def _look(self, sample: Sample) -> MadeRows:
        track, crops = cast(tuple[int, npt.NDArray[np.uint8]], sample.context)
        size = self.batch_size
        vectors = [
            self.run_network(self.to_input(crops[first : first + size]))["pool5"].float()
            for first in range(0, len(crops), size)
        ]
        look = torch.cat(vectors).mean(dim=0)
        if cast(TrackCropsConfig, self.spec.config).normalise:
            look = F.normalize(look, dim=0)
        rows: dict[str, npt.NDArray[Any]] = {
            "look": look.cpu().numpy()[None],
            "track": np.array([track], np.int32),
            "count": np.array([len(crops)], np.int32),
        }
        return MadeRows(rows, np.array([sample.span], np.float64))


def inner_box(box: npt.NDArray[np.float32], inset: float) -> npt.NDArray[np.float32]:
    """float32 [4]: x1, y1, x2, y2 without that share of the edges on each side."""
    margins = inset * (box[2:] - box[:2])
    return np.concatenate([box[:2] + margins, box[2:] - margins]).astype(np.float32)


class EvenlySpread:
    """At most so many of the items that are added, evenly spread over them, the first among.

    Kept are those whose numbers are multiples of a step, which doubles when they get too many.
    """

    def __init__(self, most: int) -> None:
        self.items: list[npt.NDArray[np.uint8]] = []
        self._most, self._step, self._added = most, 1, 0

    def wants_next(self) -> bool:
        """Whether the next item is one to keep."""
        return self._added % self._step == 0

    def add(self, item: npt.NDArray[np.uint8] | None) -> None:
        """The next item; None if it is not wanted."""
        if item is not None and self.wants_next():
            if len(self.items) == self._most:
                self.items = self.items[::2]
                self._step *= 2
            if self.wants_next():
                self.items.append(item)
        self._added += 1


class _CropSampler(PersonPicturesSampler):
    """At the end of the video one sample a track, with its id and crops [K, crop, crop, 3].

    They are its context: of data of several shapes batches would be filled in another order.
    """

    def __init__(self, settings: TrackCropsConfig) -> None:
        super().__init__()
        self._settings = settings
        self._crops: dict[int, EvenlySpread] = {}

    def look(
        self,
        frame: npt.NDArray[np.uint8],
        rows: Mapping[str, npt.NDArray[Any]],
        largest: Sequence[int],
    ) -> None:
        del largest
        for row, track in enumerate(rows["track"].tolist()):
            kept = self._crops.setdefault(track, EvenlySpread(self._settings.max_crops))
            crop = None
            if kept.wants_next():
                box = inner_box(rows["boxes"][row], self._settings.inset)
                crop, _ = cut_person(frame, box, rows["keypoints"][row], self._settings.crop)
            kept.add(crop)

    def finish(self) -> Sequence[Sample]:
        return [
            Sample(np.empty(0, np.uint8), summary.span, (track, np.stack(self._crops[track].items)))
            for track, summary in self.summaries.by_id().items()
        ]
