"""What VC R-CNN learns from: the labels of neighbours under intervention.

Paper: Visual Commonsense R-CNN (Wang et al., 2020), eq. 4 to 7: instead of P(Y|X) the network
learns P(Y|do(X)) = sum over z of P(Y|x, z) P(z), with z from a dictionary of class vectors. Code:
Wangt-CN/VC-R-CNN, `CausalPredictor` and `FastRCNNLossComputation`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsRejected

WIDTH = 1024
NUM_CLASSES = 80


@dataclass(frozen=True)
class Confounders:
    """The dictionary of class vectors and how frequent the classes are.

    dictionary: float32 (80, 1024), the mean vector of each class. prior: float32 (80,), sums to 1.
    """

    dictionary: Tensor
    prior: Tensor

    @classmethod
    def read(cls, dictionary: Path, prior: Path) -> Self:
        """From the published files: `dic_coco.npy` (81 rows, the first for background, dropped)
        and `stat_prob.npy`.

        Raises WeightsRejected for arrays of another shape.
        """
        vectors = np.load(dictionary, allow_pickle=False)
        shares = np.load(prior, allow_pickle=False)
        if vectors.shape == (NUM_CLASSES + 1, WIDTH):
            vectors = vectors[1:]
        if vectors.shape != (NUM_CLASSES, WIDTH) or shares.shape != (NUM_CLASSES,):
            raise WeightsRejected(
                f"{dictionary}, {prior}: found arrays {vectors.shape} and {shares.shape}; expected "
                f"({NUM_CLASSES + 1}, {WIDTH}) or ({NUM_CLASSES}, {WIDTH}), and ({NUM_CLASSES},)"
            )
        return cls(torch.from_numpy(vectors).float(), torch.from_numpy(shares).float())

    @classmethod
    def of_features(cls, features: Tensor, labels: Tensor) -> Self:
        """From vectors (N, 1024) of regions and their classes (N,), 0 to 79.

        A class that does not occur has a vector of zeros and the prior 0.
        """
        counts = torch.bincount(labels, minlength=NUM_CLASSES)
        sums = features.new_zeros(NUM_CLASSES, features.shape[1]).index_add_(0, labels, features)
        return cls(sums / counts.clamp(min=1)[:, None], counts / counts.sum().clamp(min=1))


class CausalPredictor(nn.Module):
    """Labels of the neighbours of a region, from its vector and confounders chosen by attention.

    width: of the two projections, 1024 in the code's default, 512 in a published log.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.causal_score = nn.Linear(2 * WIDTH, NUM_CLASSES)
        self.Wy = nn.Linear(WIDTH, width)
        self.Wz = nn.Linear(WIDTH, width)
        for layer, scale in ((self.causal_score, 0.01), (self.Wy, 0.02), (self.Wz, 0.02)):
            nn.init.normal_(layer.weight, std=scale)
            nn.init.zeros_(layer.bias)

    def forward(
        self, features: Tensor, confounders: Confounders, counts: list[int]
    ) -> dict[str, Tensor]:
        """`attention` (N, 80), `z` (N, 1024), and for image k `context_logits_imagek` (n * n, 80).

        features: (N, 1024) of the regions of all images, one image after the other. counts: n of
        each image. Row i * n + j of an image joins the vector of region i with z of region j and
        predicts the label of j.
        """
        keys = self.Wz(confounders.dictionary)  # (80, width)
        scores = self.Wy(features) @ keys.T / keys.shape[1] ** 0.5
        attention = scores.softmax(dim=1)  # (N, 80)
        z = (attention * confounders.prior) @ confounders.dictionary  # (N, 1024)
        made = {"attention": attention, "z": z}
        parts = zip(torch.split(features, counts), torch.split(z, counts), strict=True)
        for k, (of_image, z_of_image) in enumerate(parts):
            n = len(of_image)
            pairs = torch.cat(
                [of_image.repeat_interleave(n, dim=0), z_of_image.repeat(n, 1)], dim=1
            )  # (n * n, 2048)
            made[f"context_logits_image{k}"] = self.causal_score(pairs)
        return made


def self_loss(self_logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of (N, 80) logits of the regions' own labels (N,)."""
    return F.cross_entropy(self_logits, labels)


def context_loss(made: dict[str, Tensor], labels: list[Tensor]) -> Tensor:
    """Sum over images of the mean over all n * n pairs, those of a region with itself being 0.

    labels: (n,) of every image, 0 to 79.
    """
    losses = []
    for k, of_image in enumerate(labels):
        n = len(of_image)
        loss = F.cross_entropy(
            made[f"context_logits_image{k}"], of_image.repeat(n), reduction="none"
        ).view(n, n)
        losses.append((loss * (1 - torch.eye(n, device=loss.device))).mean())
    return torch.stack(losses).sum()
