"""Vectors of body parts: what ResNet sees at the key points of a track's largest box.

Stage 2.5 of CiSIN (Yu et al., ECCV 2020; code: yj-yu/CiSIN). Reads `person_tracks` and the same
frames.

Data flow: the largest box of each track, cut at whole pixels and scaled to 224 x 224 ->
(M, 3, 224, 224), normalised -> the last map of ResNet (M, 2048, 7, 7) -> its vector at the cell
of each key point, cell = floor(6.99 x place in the box): `parts` (M, 17, 2048), `visible`
(M, 17), `keypoints` (M, 17, 3) as x, y in the box, 0 to 1, and confidence, `track` (M).

A key point is visible if its confidence exceeds 0.3 and it lies within the box; invisible ones
have zeros for a vector. x counts columns and y rows: the published code takes its first number for
the row.

CiSIN trains this ResNet on. For that `outputs=parts,image` keeps the picture as well.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
from pydantic import Field
from torch import Tensor

from vlpipe.extractors.extractor import ExtractorConfig, Inferred, Names, Output
from vlpipe.extractors.media import MediaInfo
from vlpipe.extractors.people.detectors import NUM_KEYPOINTS
from vlpipe.extractors.people.person_pictures import (
    PersonPicturesConfig,
    PersonPicturesExtractor,
    PersonPicturesSampler,
    Points,
    cut_person,
)
from vlpipe.extractors.people.rows import MadeRows, gather_rows
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Sample, Sampler

_WIDTH = 2048


class BodyPartsConfig(PersonPicturesConfig):
    """Which network, and what counts as visible.

    fps: frames a second, as in `person_tracks`.
    network: of torchvision; resnet50 in CiSIN.
    crop: pixels of the edges of the picture of a person.
    min_confidence: above which a key point is visible.
    outputs: `parts` are the features named after the extractor, `image` adds `body_parts_image`.
    """

    network: Literal["resnet50", "resnet101", "resnet152"] = "resnet50"
    min_confidence: float = Field(default=0.3, ge=0, le=1)
    outputs: Names[Literal["parts", "image"]] = Field(default=("parts",), min_length=1)


@register("body_parts")
class BodyParts(PersonPicturesExtractor):
    """Vectors at key points; all outputs share the row index (track)."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = BodyPartsConfig
    batch_size = 8
    gflop_per_sample: ClassVar[float] = 8.2
    description: ClassVar[str] = "ResNet vectors at the key points of person tracks: a row a track"
    networks = ("resnet50", "resnet101", "resnet152")

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        settings = cast(BodyPartsConfig, config)
        keypoints = ((NUM_KEYPOINTS, 3), ("keypoint", "x_y_confidence"), "float32")
        declared = {
            "parts": (
                Output(cls.name, "parts", (NUM_KEYPOINTS, _WIDTH), ("keypoint", "channel")),
                Output(f"{cls.name}_visible", "visible", (NUM_KEYPOINTS,), ("keypoint",), "uint8"),
                Output(f"{cls.name}_keypoints", "keypoints", *keypoints),
                Output(f"{cls.name}_id", "track", (), (), "int32"),
            ),
            "image": (
                Output(
                    f"{cls.name}_image",
                    "image",
                    (settings.crop, settings.crop, 3),
                    ("y", "x", "rgb"),
                    "uint8",
                ),
            ),
        }
        return tuple(output for name in settings.outputs for output in declared[name])

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return _PersonSampler(cast(BodyPartsConfig, self.spec.config).crop)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """One row a person; see `Extractor.infer`."""
        made: list[MadeRows] = []
        for start in range(0, len(samples), self.batch_size):
            part = list(samples[start : start + self.batch_size])
            filled = part + [part[-1]] * (self.batch_size - len(part))
            maps = self.run_network(self.to_input(np.stack([s.data for s in filled])))["res5c"]
            made += [self._rows_of(s, m) for s, m in zip(part, maps.float().cpu(), strict=False)]
        return gather_rows(self, made)

    def _rows_of(self, sample: Sample, res5c: Tensor) -> MadeRows:
        person = cast(_Person, sample.context)
        settings = cast(BodyPartsConfig, self.spec.config)
        visible = find_visible(person.keypoints, settings.min_confidence)
        parts = vectors_at(res5c.numpy(), person.keypoints) * visible[:, None]
        rows: dict[str, npt.NDArray[Any]] = {
            "parts": parts[None],
            "visible": visible[None].astype(np.uint8),
            "keypoints": person.keypoints[None],
            "track": np.array([person.track], np.int32),
            "image": sample.data[None],
        }
        return MadeRows(rows, np.array([sample.span], np.float64))


def find_visible(keypoints: Points, min_confidence: float) -> npt.NDArray[np.bool_]:
    """bool [17]: key points [17, 3] as shares of the box that are sure enough and within it."""
    places = keypoints[:, :2]
    return np.asarray(
        (keypoints[:, 2] > min_confidence) & ((places >= 0) & (places <= 1)).all(axis=1)
    )


def cells_of(places: npt.NDArray[np.floating], num_cells: int) -> npt.NDArray[np.int64]:
    """int64, the cell 0 .. num_cells - 1 of places 0 .. 1 along an edge: floor(6.99 p) of 7.

    Places outside are taken to the nearest cell.
    """
    cells = np.floor((num_cells - 0.01) * np.asarray(places, np.float64))
    return np.clip(cells, 0, num_cells - 1).astype(np.int64)


def vectors_at(res5c: npt.NDArray[np.float32], keypoints: Points) -> npt.NDArray[np.float32]:
    """float32 [17, C]: the vectors of a map [C, rows, columns] at key points [17, 3]."""
    rows = cells_of(keypoints[:, 1], res5c.shape[1])
    columns = cells_of(keypoints[:, 0], res5c.shape[2])
    return np.ascontiguousarray(res5c[:, rows, columns].T)


@dataclass(frozen=True, slots=True)
class _Person:
    track: int
    keypoints: Points


class _PersonSampler(PersonPicturesSampler):
    """At the end of the video one sample a track: the picture of its largest box."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self._edge = edge
        self._pictures: dict[int, tuple[npt.NDArray[np.uint8], Points]] = {}

    def look(
        self,
        frame: npt.NDArray[np.uint8],
        rows: Mapping[str, npt.NDArray[Any]],
        largest: Sequence[int],
    ) -> None:
        for row in largest:
            self._pictures[int(rows["track"][row])] = cut_person(
                frame, rows["boxes"][row], rows["keypoints"][row], self._edge
            )

    def finish(self) -> Sequence[Sample]:
        samples = []
        for track, summary in self.summaries.by_id().items():
            picture, keypoints = self._pictures[track]
            samples.append(Sample(picture, summary.span, _Person(track, keypoints)))
        return samples
