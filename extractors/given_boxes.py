"""Boxes that are known already: from files, one for each video, in place of a detector's.

`commonsense.boxes=given_boxes` and other readers of boxes take them as they take those of a
detector. A folder holds `NAME.npz` or `NAME.json` for every video file `NAME.*`, with these arrays,
in JSON as lists:

| array | shape | holds |
|---|---|---|
| `boxes` | (N, 4) | x1, y1, x2, y2 in pixels of the source frame |
| `labels` | (N,) | integers, of whatever label space made them |
| `seconds` or `frames` | (N,) | when: seconds from the start, or numbers of source frames, from 0 |

Rows: the boxes of one time belong together. A frame has those of the time nearest to its own start
(of two, the earlier), if that is no further away than `within_s`; else it has none. Boxes keep the
order of the file, and their numbers: what lies outside the frame or has no area stays, and the
reader says what becomes of it. A video without a file fails; a file without boxes gives no rows.

| key | feature | row | holds |
|---|---|---|---|
| boxes | `given_boxes` | (4,) float32 | as in the file |
| labels | `given_boxes_labels` | () int32 | as in the file |
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Inferred, Names, Output
from vlpipe.extractors.media import FrameBlock, FrameRequest, MediaInfo, MediaRequest
from vlpipe.extractors.regions.timed_boxes import (
    TimedBoxes,
    find_file,
    read_boxes,
    sha256_of_folder,
)
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint
from vlpipe.stores.errors import EnvironmentLacks

Key = Literal["boxes", "labels"]
_PARTS: dict[Key, tuple[str, tuple[int, ...], tuple[str, ...], str]] = {
    "boxes": ("given_boxes", (4,), ("corner",), "float32"),
    "labels": ("given_boxes_labels", (), (), "int32"),
}


class GivenBoxesConfig(ExtractorConfig):
    """Where the boxes are, and for which frames they are wanted.

    folder: with NAME.npz or NAME.json for each video NAME.*. folder_sha256 follows from the names
        and contents of its files, so that changed boxes make new features.
    fps: frames a second; None keeps every frame of the source.
    within_s: how far a given time may be from the start of a frame; None is half its length.
    max_boxes: of one time; a file with more is refused, since readers hold them all in memory.
    """

    folder: Path | None = Field(default=None, exclude=True)
    folder_sha256: str = ""
    fps: float | None = Field(default=2.0, gt=0)
    within_s: float | None = Field(default=None, ge=0)
    max_boxes: PositiveInt = 1000
    outputs: Names[Key] = Field(default=tuple(_PARTS), min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _hash_folder(cls, given: Any) -> Any:  # noqa: ANN401 - whatever the caller passes
        if isinstance(given, Mapping) and given.get("folder"):
            return {**given, "folder_sha256": sha256_of_folder(Path(given["folder"]))}
        return given


class Frame(nn.Module):
    """There is nothing to compute."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """No outputs: rows come from files."""
        del x
        return {}


class GivenBoxSampler:
    """One sample a frame, without its picture; the context holds boxes and labels."""

    def __init__(
        self, given: TimedBoxes, *, fps: float | None, within_s: float | None, info: MediaInfo
    ) -> None:
        self._given, self._fps, self._within_s = given, fps, within_s
        assert info.video is not None
        self._rate, self._start_s = info.video.average_fps, info.video.start_s

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, FrameBlock):
            raise TypeError(f"expected frames, got {type(block).__name__}")
        made = []
        for number, (start, end) in enumerate(block.spans.tolist(), block.first_frame):
            found = self._boxes_of(number, start, end)
            made.append(Sample(np.zeros(1, np.uint8), (start, end), found))
        return made

    def _boxes_of(
        self, number: int, start: float, end: float
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        within = (end - start) / 2 if self._within_s is None else self._within_s
        if not self._given.is_numbered:
            return self._given.near(start, within)
        if self._fps is None:
            return self._given.near(number, within * self._rate if self._within_s else 0.0)
        return self._given.near((start - self._start_s) * self._rate, within * self._rate)

    def finish(self) -> Sequence[Sample]:
        return []


@register("given_boxes")
class GivenBoxes(Extractor):
    """Boxes and labels from files: see the file's top."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[ExtractorConfig]] = GivenBoxesConfig
    gflop_per_sample: ClassVar[float] = 1e-6
    rows_keep_span: ClassVar[bool] = True
    description: ClassVar[str] = "boxes and labels from a folder of files, in place of a detector"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        return {}

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        return FrameRequest(fps=cast(GivenBoxesConfig, config).fps)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        made = []
        for key in cast(GivenBoxesConfig, config).outputs:
            name, shape, dimensions, dtype = _PARTS[key]
            made.append(Output(name, key, shape, dimensions, dtype))
        return tuple(made)

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        del config
        return Frame()

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        del network, checkpoints

    def sampler(self, info: MediaInfo) -> Sampler:
        settings = cast(GivenBoxesConfig, self.spec.config)
        if settings.folder is None:
            raise EnvironmentLacks(
                "given_boxes has no boxes: no folder of files is named",
                hint="--set given_boxes.folder=DIR",
            )
        given = read_boxes(find_file(settings.folder, info.path), settings.max_boxes)
        is_variable = info.video is not None and info.video.is_variable_rate
        if given.is_numbered and settings.fps is not None and is_variable:
            raise MediaError(
                "unreadable",
                f"{info.path}: its frame rate varies, and its boxes have numbers of frames",
                hint="give seconds, or set given_boxes.fps=null",
            )
        return GivenBoxSampler(given, fps=settings.fps, within_s=settings.within_s, info=info)

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        del info
        return None if num_rows else "no_objects"

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples)

    def infer(self, samples: Sequence[Sample]) -> Inferred:
        """Rows of N frames: the boxes of each, one frame after the other."""
        found: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = [s.context for s in samples]
        parts = {
            "boxes": [np.zeros((0, 4), np.float32), *(boxes for boxes, _ in found)],
            "labels": [np.zeros(0, np.int32), *(labels for _, labels in found)],
        }
        counts = np.array([len(boxes) for boxes, _ in found], np.int64)
        spans = np.array([sample.span for sample in samples], np.float64).reshape(-1, 2)
        rows = {o.feature: np.concatenate(parts[o.key]) for o in self.spec.outputs}
        return Inferred(rows, np.repeat(spans, counts, axis=0), counts)
