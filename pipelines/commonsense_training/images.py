"""Images and their objects as VC R-CNN learns from them, in an order that a restart finds again.

The scaling is that of `vlpipe.extractors.commonsense`; boxes are scaled with their image. Flips
are drawn from (seed, epoch, image) alone, so that they are the same in every process and after
every restart.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vlpipe.extractors.commonsense import scaled_size
from vlpipe.extractors.regions.faster_rcnn_vg import MEAN_BGR
from vlpipe.pipelines.commonsense_training.job import CommonsenseSettings
from vlpipe.pipelines.training.data import EpochBatches
from vlpipe.stores.datasets.coco_instances import CocoInstances, ObjectImage
from vlpipe.stores.errors import UsageError, VlpipeError

_STRIDE = 32
NOT_FLIPPED = -1
"""The epoch of which no image is flipped."""


@dataclass(frozen=True, slots=True)
class Regions:
    """One image with its objects.

    image: float32 (3, H, W) in B,G,R minus the mean. boxes: float32 (n, 4) in its pixels. labels:
    int64 (n,).
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class RegionBatch:
    """Images (B, 3, H, W), zero beyond each image's edge, H and W multiples of 32; and for each
    its boxes (n, 4) and labels (n,)."""

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]

    def to(self, device: torch.device) -> "RegionBatch":
        """The same on a device."""
        return RegionBatch(
            self.images.to(device),
            [boxes.to(device) for boxes in self.boxes],
            [labels.to(device) for labels in self.labels],
        )


class RegionDataset(Dataset[Regions]):
    """Map-style, by (epoch, index): an image as that epoch sees it, perhaps flipped."""

    def __init__(
        self, images: Sequence[ObjectImage], folder: Path, settings: CommonsenseSettings
    ) -> None:
        self._images, self._folder = tuple(images), folder
        self._edges = (settings.shorter_edge, settings.longer_edge)
        self._flip, self._seed = settings.flip, settings.seed

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, place: tuple[int, int]) -> Regions:
        epoch, index = place
        chosen = self._images[index]
        is_flipped = epoch != NOT_FLIPPED and self._draw(epoch, index) < self._flip
        picture = self._open(chosen)
        height, width = scaled_size(chosen.height, chosen.width, *self._edges)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        ratio = np.array([width / chosen.width, height / chosen.height] * 2, np.float32)
        boxes = torch.from_numpy(chosen.boxes * ratio)
        rgb = np.asarray(picture).copy()  # (H, W, 3)
        if is_flipped:
            rgb = rgb[:, ::-1].copy()
            # The first and last pixel of a box are counted alike, as maskrcnn-benchmark does.
            left, right = width - 1 - boxes[:, 2], width - 1 - boxes[:, 0]
            boxes = torch.stack([left, boxes[:, 1], right, boxes[:, 3]], dim=1)
        image = torch.from_numpy(rgb).flip(2).float() - torch.tensor(MEAN_BGR, dtype=torch.float32)
        return Regions(image.permute(2, 0, 1), boxes, torch.from_numpy(chosen.labels))

    def _draw(self, epoch: int, index: int) -> float:
        return float(np.random.default_rng((self._seed, epoch, index)).random())

    def _open(self, chosen: ObjectImage) -> Image.Image:
        path = self._folder / chosen.file
        try:
            picture = Image.open(path).convert("RGB")
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise VlpipeError(
                f"{path} cannot be read: {error}", hint="get it again, or take it out of the file"
            ) from error
        if picture.size != (chosen.width, chosen.height):
            raise VlpipeError(
                f"{path} has {picture.width} x {picture.height} pixels, and its annotation says "
                f"{chosen.width} x {chosen.height}: the boxes would not fit",
                hint="use the images that the annotations were made for",
            )
        return picture


class EpochPlaces(Sampler[list[tuple[int, int]]]):
    """The batches of an epoch, each place with the number of the epoch: workers cannot know it."""

    def __init__(self, batches: EpochBatches) -> None:
        self._batches = batches
        self._epoch = 0

    def start(self, epoch: int, first_batch: int = 0) -> None:
        """The next iteration gives the batches of that epoch, from that one on."""
        self._epoch = epoch
        self._batches.start(epoch, first_batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches:
            yield [(self._epoch, index) for index in batch]


def join(regions: Sequence[Regions]) -> RegionBatch:
    """Images of different sizes as one batch."""
    height = max(r.image.shape[1] for r in regions)
    width = max(r.image.shape[2] for r in regions)
    images = torch.zeros((len(regions), 3, _filled(height), _filled(width)))
    for place, r in zip(images, regions, strict=True):
        place[:, : r.image.shape[1], : r.image.shape[2]] = r.image
    return RegionBatch(images, [r.boxes for r in regions], [r.labels for r in regions])


def region_loader(
    dataset: RegionDataset,
    places: EpochPlaces | Sequence[Sequence[tuple[int, int]]],
    *,
    workers: int,
) -> DataLoader[Any]:
    """Loads these batches as RegionBatch, in order. With workers, in processes of their own."""
    return DataLoader(
        dataset,
        batch_sampler=places,  # type: ignore[arg-type]  # any iterable of lists will do
        num_workers=workers,
        collate_fn=join,
        # Forked workers inherit locks of the threads of torch and of Prefect.
        multiprocessing_context="spawn" if workers else None,
        generator=torch.Generator().manual_seed(0),
        prefetch_factor=4 if workers else None,
        persistent_workers=workers > 0,
    )


def require_images(instances: CocoInstances, folder: Path) -> None:
    """UsageError if there is nothing to learn from, or if a file is missing."""
    if not instances.images:
        raise UsageError(
            f"{instances.path} has no image with enough objects; left out: "
            + ", ".join(f"{count} {what}" for what, count in instances.left_out.items()),
            hint="--set min_objects=1 takes images with one object, which teach no context",
        )
    missing = [image.file for image in instances.images if not (folder / image.file).is_file()]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(instances.images)} images that {instances.path} names are "
            f"not in {folder}; the first is {missing[0]}",
            hint="--images DIR is the folder that the file names count from",
        )


def _filled(edge: int) -> int:
    return -(-edge // _STRIDE) * _STRIDE
