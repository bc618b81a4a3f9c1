"""The dictionary and the prior of a training of VC R-CNN: supplied, or computed from the data.

Supplied ones must speak of the same classes as the annotations. Computed ones are the means of the
vectors that the starting network makes of all objects of a class, and the share of each class;
no detector is needed, since the boxes are annotated. The pass over the images keeps what it has
summed up, and an interrupted one goes on from there.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vlpipe.extractors.networks.vc_intervention import NUM_CLASSES, WIDTH, Confounders
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork
from vlpipe.pipelines.commonsense_training.images import NOT_FLIPPED, RegionDataset, region_loader
from vlpipe.pipelines.training.state import read_state, write_state
from vlpipe.stores.datasets.coco_instances import CocoInstances
from vlpipe.stores.errors import UsageError

_PRIOR_TOLERANCE = 1e-3


@dataclass
class ConfounderSums:
    """What `Confounders.of_features` needs of features that do not fit into memory.

    sums: float64 (80, 1024). counts: int64 (80,). num_images: so many have been added.
    """

    sums: Tensor
    counts: Tensor
    num_images: int = 0

    @classmethod
    def empty(cls) -> "ConfounderSums":
        sums = torch.zeros(NUM_CLASSES, WIDTH, dtype=torch.float64)
        return cls(sums, torch.zeros(NUM_CLASSES, dtype=torch.int64))

    def add(self, features: Tensor, labels: Tensor, num_images: int) -> None:
        """Vectors (N, 1024) of the objects of so many images, and their labels (N,)."""
        self.sums.index_add_(0, labels, features.double())
        self.counts += torch.bincount(labels, minlength=NUM_CLASSES)
        self.num_images += num_images

    def confounders(self) -> Confounders:
        """A class that did not occur has a vector of zeros and the prior 0."""
        dictionary = self.sums / self.counts.clamp(min=1)[:, None]
        prior = self.counts.double() / self.counts.sum().clamp(min=1)
        return Confounders(dictionary.float(), prior.float())


def compute_confounders(
    network: VcRcnnNetwork,
    data: RegionDataset,
    partial: Path,
    *,
    device: torch.device,
    workers: int,
    keep_every_s: float,
    on_image: Callable[[int, int], None],
    stop: threading.Event,
) -> Confounders | None:
    """Of all objects of the images, unflipped, by the network as it is; None if stopped.

    partial: a file that the sums so far are kept in, and read from. on_image is told how many of
    how many images are done.
    """
    made = ConfounderSums.empty()
    if partial.is_file():
        state = read_state(partial)
        made = ConfounderSums(state["sums"], state["counts"], state["num_images"])
    places = [[(NOT_FLIPPED, index)] for index in range(made.num_images, len(data))]
    network = network.to(device).eval()
    kept = time.monotonic()
    for batch in region_loader(data, places, workers=workers):
        on_device = batch.to(device)
        with torch.inference_mode():
            features = network.regions(network.maps(on_device.images), on_device.boxes)
        made.add(features.cpu(), torch.cat(batch.labels), len(batch.boxes))
        on_image(made.num_images, len(data))
        if stop.is_set() or time.monotonic() - kept >= keep_every_s:
            write_state(partial, vars(made))
            kept = time.monotonic()
        if stop.is_set():
            return None
    return made.confounders()


def read_confounders(
    dictionary: Path, prior: Path, names: Path | None, instances: CocoInstances
) -> Confounders:
    """Those of files, row k for label k of the annotations.

    names: the class of each row of the dictionary, a line each; rows are then put in the order of
    the annotations' labels. Raises UsageError where the two know different classes.
    """
    for path in (dictionary, prior):
        if not path.is_file():
            raise UsageError(f"{path} is not there", hint="expected an .npy file")
    try:
        found = Confounders.read(dictionary, prior)
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"{dictionary}, {prior}: not arrays of NumPy: {error}") from error
    total = float(found.prior.sum())
    is_sound = bool(found.dictionary.isfinite().all()) and bool((found.prior >= 0).all())
    if not is_sound or abs(total - 1) > _PRIOR_TOLERANCE:
        raise UsageError(
            f"{dictionary}, {prior}: expected finite vectors, and shares of at least 0 that sum to "
            f"1; they sum to {total:g}"
        )
    if names is not None:
        found = _in_order(found, _read_names(names), instances.categories, names)
    is_known = (found.dictionary != 0).any(dim=1) & (found.prior > 0)
    known = torch.nonzero(is_known)[:, 0].tolist()
    if known and known[-1] >= len(instances):
        raise UsageError(
            f"{dictionary} knows class {known[-1]}, and {instances.path} has only "
            f"{len(instances)} categories: these are different label spaces",
            hint="name the classes of the dictionary with --dictionary-names, or leave it out: "
            "then it is computed from the data",
        )
    used = instances.label_counts() > 0
    lacking = [label for label in np.flatnonzero(used).tolist() if not is_known[label]]
    if lacking:
        shown = ", ".join(f"{label} ({instances.categories[label]})" for label in lacking[:4])
        raise UsageError(
            f"{dictionary} has no vector and prior for {len(lacking)} classes of "
            f"{instances.path}: {shown}",
            hint="a dictionary of these categories is needed; without one it is computed",
        )
    return found


def write_confounders(folder: Path, found: Confounders) -> None:
    """Writes `dictionary.npy` (81, 1024), row 0 zeros for background, and `prior.npy` (80,): the
    published layout."""
    background = torch.zeros(1, WIDTH)
    np.save(folder / "dictionary.npy", torch.cat([background, found.dictionary]).numpy())
    np.save(folder / "prior.npy", found.prior.numpy())


def require_label_space(instances: CocoInstances) -> None:
    """UsageError for more categories than the network has outputs."""
    if len(instances) > NUM_CLASSES:
        raise UsageError(
            f"{instances.path} has {len(instances)} categories, and VC R-CNN's checkpoints hold "
            f"{NUM_CLASSES} classes",
            hint="merge categories, or leave out rare ones",
        )


def _read_names(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _in_order(
    found: Confounders, names: Sequence[str], categories: Sequence[str], path: Path
) -> Confounders:
    if len(set(names)) != len(names) or len(names) > NUM_CLASSES:
        raise UsageError(
            f"{path} has {len(names)} names, {len(set(names))} different ones; expected a "
            f"different one for each of up to {NUM_CLASSES} classes"
        )
    rows = {name: row for row, name in enumerate(names)}
    missing = [name for name in categories if name not in rows]
    if missing:
        raise UsageError(
            f"{len(missing)} categories are not among the names of {path}, the first is "
            f"{missing[0]!r}",
            hint="the names must be those of the annotations' categories",
        )
    dictionary, prior = torch.zeros_like(found.dictionary), torch.zeros_like(found.prior)
    chosen = [rows[name] for name in categories]
    dictionary[: len(chosen)] = found.dictionary[chosen]
    prior[: len(chosen)] = found.prior[chosen]
    return Confounders(dictionary, prior / prior.sum().clamp(min=1e-12))
