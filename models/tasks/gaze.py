"""Gaze: where people look in each frame of a clip, as a map of 49x49 cells.

Paper: Supervising Neural Attention Models for Video Captioning by Human Gaze Data (Yu et al., CVPR
2017). Targets are maps that sum to 1; the public code scales them to a peak of 1, which weighs
frames by how far apart people look.
"""

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vlpipe.models.gaze_maps import GRID, Floats, target_map
from vlpipe.models.gaze_rows import first_readings, gaze_of_rows, sequence_rows
from vlpipe.models.layers.map_loss import map_cross_entropy
from vlpipe.models.metrics.gaze_protocol import DrawSettings, GazeFrame, draw, gaze_figures
from vlpipe.models.tasks.registry import register_task
from vlpipe.models.tasks.task import Batch, Clip, Record, Shown, Task, TaskSettings
from vlpipe.stores.datasets import Dataset, GazeClip
from vlpipe.stores.errors import UsageError

_NUM_SHOWN = 3
_HALF_STEP = np.uint32(0x800)  # in bits of a float32, of whose fraction records keep 11
# Of the diagonal of the frame, in reports alone.
_NEAR = 0.1
# Frames of a baseline without features: one in five at 25 a second, after the first 15.
_FIRST_S, _STEP_S, _FRAME_S = 0.6, 0.2, 0.04


@runtime_checkable
class HasGaze(Protocol):
    """A dataset with gaze recordings; `gaze_splits` are those that it has clips of."""

    @property
    def gaze_splits(self) -> tuple[str, ...]: ...

    def gaze_clips(self, split: str) -> list[GazeClip]: ...


@dataclass(frozen=True, slots=True, eq=False)
class GazeExample:
    """A clip with its recordings."""

    gaze: GazeClip

    @property
    def id(self) -> str:
        return self.gaze.video_id

    @property
    def clips(self) -> tuple[Clip, ...]:
        return (Clip(self.gaze.video_id),)

    def points(self, spans: Floats) -> list[Floats]:
        """Of each of the T spans in seconds, where every subject looked, (N, 2) in pixels."""
        return gaze_of_rows(self.gaze.subject, self.gaze.time_s, self.gaze.xy, spans)


class GazeSettings(TaskSettings):
    """sequence_length: rows that the network reads at once, see `sequence_rows`. evaluation: how
    often and how many frames are drawn for the figures."""

    sequence_length: PositiveInt = 42
    evaluation: DrawSettings = DrawSettings()


@register_task("gaze")
class GazeTask(Task[GazeExample]):
    """A map for each row of a clip's features.

    The batch's `c3d` (S, L, ...) are the sequences of all its clips; targets are `map` float32 (S,
    L, 49, 49), `has_gaze` bool (S, L), and of the B clips `num_rows` int64 (B,) and `row_s` float64
    (B, T, 2), their seconds. A row in whose time nobody looked at the frame has no target.
    """

    description: ClassVar[str] = "where people look in each frame: Sim, CC, sAUC, AUC"
    figure: ClassVar[str] = "CC"
    Settings: ClassVar[type[TaskSettings]] = GazeSettings

    def __init__(self, settings: GazeSettings) -> None:
        self.settings = settings

    @classmethod
    def splits(cls, dataset: Dataset) -> tuple[str, ...]:
        if not isinstance(dataset, HasGaze):
            raise UsageError(
                f"dataset {dataset.name!r} has no gaze recordings",
                hint="docs/gaze.md describes the table of dataset gaze-table",
            )
        return dataset.gaze_splits

    @classmethod
    def read_examples(cls, dataset: Dataset, split: str) -> list[GazeExample]:
        known = cls.splits(dataset)
        if split not in known:
            raise UsageError(
                f"the recordings of dataset {dataset.name!r} have no split {split!r}; "
                f"they have: {', '.join(known)}"
            )
        return [GazeExample(clip) for clip in cast(HasGaze, dataset).gaze_clips(split)]

    @classmethod
    def fit(cls, settings: TaskSettings, examples: Sequence[GazeExample], dataset: Dataset) -> Self:
        del examples, dataset
        assert isinstance(settings, GazeSettings)
        return cls(settings)

    def to_json(self) -> dict[str, Any]:
        return {"settings": self.settings.model_dump(mode="json")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        return cls(GazeSettings(**value["settings"]))

    def notes(self) -> tuple[str, ...]:
        return ("frames at which nobody looked teach nothing and are in no figure",)

    # tensors

    def encode(self, example: GazeExample) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        del example
        return {}, {}

    def collate(
        self, items: Sequence[tuple[GazeExample, Sequence[Mapping[str, Tensor]]]]
    ) -> Batch[GazeExample]:
        """The sequences of all clips one after the other; see the class."""
        c3d, maps, has_gaze, row_s = (list[Tensor]() for _ in range(4))
        for example, (video,) in items:
            target, is_known = _targets(example, video["row_s"].numpy())
            rows = torch.from_numpy(sequence_rows(len(target), self.settings.sequence_length))
            c3d.append(video["c3d"][rows])  # (S, L, 1024, 7, 7)
            maps.append(target[rows])
            has_gaze.append(is_known[rows])
            row_s.append(video["row_s"])
        return Batch(
            tuple(example for example, _ in items),
            {"c3d": torch.cat(c3d)},
            {
                "map": torch.cat(maps),
                "has_gaze": torch.cat(has_gaze),
                "num_rows": torch.tensor([len(spans) for spans in row_s]),
                "row_s": pad_sequence(row_s, batch_first=True),
            },
        )

    # answers

    def loss(self, outputs: Mapping[str, Tensor], batch: Batch[GazeExample]) -> Tensor:
        targets = batch.targets
        return map_cross_entropy(outputs["logits"], targets["map"], targets["has_gaze"])

    def decode(self, outputs: Mapping[str, Tensor], batch: Batch[GazeExample]) -> list[Record]:
        """Of a row that two sequences hold, the map counts that has seen more rows before it."""
        maps = outputs["map"].float().cpu().numpy()
        records, first = [], 0
        for n, example in enumerate(batch.examples):
            num_rows = int(batch.targets["num_rows"][n])
            rows = sequence_rows(num_rows, self.settings.sequence_length)
            sequence, place = first_readings(rows, num_rows)
            spans = batch.targets["row_s"][n, :num_rows].cpu().numpy()
            records.append(_record(example, spans, maps[first + sequence, place]))
            first += len(rows)
        return records

    def metrics(self, records: Sequence[Record]) -> dict[str, float]:
        """The figures of `gaze_figures`; with several datasets those of each as `CC/DATASET`, and
        their mean. `frames` that are in them, and `frames_without_gaze`, which are not."""
        total = sum(len(record["fixations"]) for record in records)
        by_dataset = _frames_by_dataset(records)
        num_frames = sum(map(len, by_dataset.values()))
        if not num_frames:
            raise UsageError(
                f"at none of the {total} frames of {len(records)} clips anybody looked",
                hint="do time_s of the gaze table and the features count from the same start?",
            )
        parts = {
            name: gaze_figures([frame for _, frame in frames], self.settings.evaluation)
            for name, frames in by_dataset.items()
        }
        figures: dict[str, float] = {}
        for name in ("Sim", "CC", "sAUC", "AUC"):
            values = {dataset: part[name] for dataset, part in parts.items() if name in part}
            if values:
                figures[name] = float(np.mean(list(values.values())))
            if len(parts) > 1:
                figures |= {f"{name}/{dataset}": value for dataset, value in values.items()}
        return figures | {
            "frames": float(num_frames), "frames_without_gaze": float(total - num_frames)
        }  # fmt: skip

    def shown(self, record: Record) -> Shown:
        """The likeliest pixel at some frames, and the mean of where people looked. It is right
        where on average somebody looked within a tenth of the frame's diagonal of it."""
        maps, width, height = maps_of(record), record["width"], record["height"]
        seen = [n for n, points in enumerate(record["fixations"]) if points]
        places = np.linspace(0, len(seen) - 1, min(_NUM_SHOWN, len(seen))).round().astype(int)
        given, right, distances = [], [], []
        for row in (seen[place] for place in places):
            cell = np.unravel_index(maps[row].argmax(), (GRID, GRID))
            peak = np.array([cell[1] * (width - 1), cell[0] * (height - 1)]) / (GRID - 1)
            points = np.array(record["fixations"][row])
            distances.append(float(np.linalg.norm(points - peak, axis=1).min()))
            time = f"{record['spans'][row][0]:.1f} s"
            given.append(f"{time}: {_pixel(peak)}")
            right.append(f"{time}: {_pixel(points.mean(axis=0))}")
        is_right = bool(distances) and np.mean(distances) <= _NEAR * np.hypot(width, height)
        return Shown("", "; ".join(given), "; ".join(right), bool(is_right))

    def baseline(
        self, train: Sequence[GazeExample], examples: Sequence[GazeExample]
    ) -> list[Record]:
        """The mean map of training clips for five frames of every second of the recordings."""
        spans = {}
        for example in examples:
            starts = np.arange(_FIRST_S, max(example.gaze.time_s[-1], _FIRST_S + _STEP_S), _STEP_S)
            spans[example.id] = np.stack([starts, starts + _FRAME_S], axis=1)
        return self._centre_bias(spans, train, examples)

    def baseline_beside(
        self,
        records: Sequence[Record],
        train: Sequence[GazeExample],
        examples: Sequence[GazeExample],
    ) -> list[Record]:
        """The mean map of training clips, for the very frames of these records."""
        spans = {record["id"]: np.array(record["spans"]) for record in records}
        return self._centre_bias(spans, train, examples)

    def _centre_bias(
        self,
        spans: Mapping[str, Floats],
        train: Sequence[GazeExample],
        examples: Sequence[GazeExample],
    ) -> list[Record]:
        centre = centre_bias(train)
        return [
            _record(e, spans[e.id], np.broadcast_to(centre, (len(spans[e.id]), GRID, GRID)))
            for e in examples
        ]

    def write_predictions(self, records: Sequence[Record], folder: Path, split: str) -> Path:
        """NumPy's npz: `clip` (C,), `dataset` (C,), `num_rows` (C,); of all R rows, clip after
        clip, `map` float32 (R, 49, 49), `span_s` (R, 2) and `num_subjects` (R,). How the figures
        were drawn: `seed`, and for each dataset D `frames/D` (F,), rows with gaze, `draws/D` and
        `others/D`, of these frames, see `gaze_protocol`."""
        path = folder / f"predictions-{split}.npz"
        arrays: dict[str, npt.NDArray[Any]] = {
            "clip": np.array([record["id"] for record in records], np.str_),
            "dataset": np.array([record["dataset"] for record in records], np.str_),
            "num_rows": np.array([len(record["spans"]) for record in records]),
            "map": np.concatenate([maps_of(record) for record in records]).astype(np.float32),
            "span_s": np.concatenate([np.array(record["spans"]) for record in records]),
            "num_subjects": np.array([len(p) for r in records for p in r["fixations"]]),
            "seed": np.array(self.settings.evaluation.seed),
        }
        for name, frames in _frames_by_dataset(records).items():
            draws = draw(len(frames), self.settings.evaluation)
            arrays[f"frames/{name}"] = np.array([row for row, _ in frames])
            arrays[f"draws/{name}"] = draws.frames
            arrays[f"others/{name}"] = draws.others
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        return path


def centre_bias(examples: Iterable[GazeExample]) -> Floats:
    """float64 (49, 49) that sums to 1: where people look on average, every clip as much as another;
    the same everywhere without any."""
    maps = [target_map(e.gaze.xy, e.gaze.width, e.gaze.height) for e in examples]
    known = [found for found in maps if found is not None]
    return np.mean(known, axis=0) if known else np.full((GRID, GRID), 1 / GRID**2)


def maps_of(record: Record) -> Floats:
    """float64 (T, 49, 49), the maps of a record, each summing to 1."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(record["maps"])), np.uint8)
    raw = np.ascontiguousarray(planes.reshape(4, -1).T).view("<f4").reshape(-1, GRID, GRID)
    maps: Floats = raw.astype(np.float64)
    maps /= maps.sum(axis=(1, 2), keepdims=True)
    return maps


def _packed(maps: npt.NDArray[np.floating]) -> str:
    """The maps as text, to one part in 4,096 of every number: half precision would make all small
    ones equal. Lowest bytes of all numbers stand together, as packing needs it."""
    bits = np.ascontiguousarray(maps, "<f4").view("<u4")
    rounded = (bits + _HALF_STEP) & ~np.uint32(2 * _HALF_STEP - 1)
    planes = np.ascontiguousarray(rounded.view(np.uint8).reshape(-1, 4).T)
    return base64.b64encode(zlib.compress(planes.tobytes(), 1)).decode("ascii")


def _targets(example: GazeExample, spans: Floats) -> tuple[Tensor, Tensor]:
    """float32 (T, 49, 49), 0 without gaze, and bool (T,)."""
    gaze = example.gaze
    found = [target_map(xy, gaze.width, gaze.height) for xy in example.points(spans)]
    empty = np.zeros((GRID, GRID))
    maps = np.stack([empty if target is None else target for target in found])
    return torch.from_numpy(maps).float(), torch.tensor([target is not None for target in found])


def _record(example: GazeExample, spans: Floats, maps: npt.NDArray[np.floating]) -> Record:
    gaze = example.gaze
    last = np.array([gaze.width, gaze.height]) - 1
    pixels = [np.rint(xy).astype(int).clip(0, last).tolist() for xy in example.points(spans)]
    return {
        "id": example.id,
        "video_id": gaze.video_id,
        "dataset": gaze.dataset,
        "width": gaze.width,
        "height": gaze.height,
        "spans": np.asarray(spans, np.float64).tolist(),
        "fixations": pixels,
        "maps": _packed(maps),
    }


def _frames_by_dataset(records: Sequence[Record]) -> dict[str, list[tuple[int, GazeFrame]]]:
    """Dataset -> its frames at which somebody looked, each with its number among all rows."""
    found: dict[str, list[tuple[int, GazeFrame]]] = {}
    number = 0
    for record in records:
        maps = maps_of(record).astype(np.float32)
        for grid, points in zip(maps, record["fixations"], strict=True):
            if points:
                frame = GazeFrame(
                    grid, np.array(points, np.int64), record["width"], record["height"]
                )
                found.setdefault(record["dataset"], []).append((number, frame))
            number += 1
    return found


def _pixel(point: npt.NDArray[np.floating]) -> str:
    return f"({point[0]:.0f}, {point[1]:.0f})"
