"""VC R-CNN with its losses as one module, and its optimiser: what the training loop drives."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vlpipe.extractors.networks.vc_intervention import (
    CausalPredictor,
    Confounders,
    context_loss,
    self_loss,
)
from vlpipe.extractors.networks.vc_rcnn import VcRcnnNetwork
from vlpipe.pipelines.commonsense_training.job import CommonsenseSettings

# Of the rate of weights, as maskrcnn-benchmark has it for biases.
_BIAS_RATE = 2.0


@dataclass(frozen=True, slots=True)
class CommonsenseModules:
    """The two parts of a checkpoint."""

    network: VcRcnnNetwork
    causal: CausalPredictor


class CommonsenseLearner(nn.Module):
    """Images, boxes and labels to `loss` and its parts.

    Stem and the first stage do not learn, and normalisation never does.
    """

    def __init__(self, modules: CommonsenseModules, confounders: Confounders) -> None:
        super().__init__()
        self.network, self.causal = modules.network, modules.causal
        body = self.network.body
        for frozen in (body.conv1, body.bn1, body.layer1):
            frozen.requires_grad_(False)
        self.register_buffer("dictionary", confounders.dictionary, persistent=False)
        self.register_buffer("prior", confounders.prior, persistent=False)
        self.dictionary: Tensor
        self.prior: Tensor

    def forward(
        self, images: Tensor, boxes: list[Tensor], labels: list[Tensor]
    ) -> dict[str, Tensor]:
        """`loss`, `loss_self`, `loss_context`: scalars; `accuracy`: of the regions' own labels.

        images: (B, 3, H, W). boxes: (n, 4) and labels: (n,) of every image.
        """
        maps = [m.float() for m in self.network.maps(images)]  # bf16 cannot place a box exactly
        features = self.network.regions(maps, boxes)  # (N, 1024)
        own = torch.cat(labels)
        logits = self.network.cls_score(features)  # (N, 80)
        confounders = Confounders(self.dictionary, self.prior)
        made = self.causal(features, confounders, [len(of_image) for of_image in labels])
        loss_self, loss_context = self_loss(logits, own), context_loss(made, labels)
        # A level without boxes has a gradient of zero, not none: several devices wait for each.
        unused = torch.stack([m.flatten()[0] for m in maps]).sum() * 0
        return {
            "loss": loss_self + loss_context + unused,
            "loss_self": loss_self.detach(),
            "loss_context": loss_context.detach(),
            "accuracy": (logits.argmax(dim=1) == own).float().mean(),
        }


def make_optimiser(learner: nn.Module, settings: CommonsenseSettings) -> torch.optim.SGD:
    """Biases learn at twice the rate and do not decay; set `lr` by `set_rate`."""
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    weights = [p for name, p in named if not name.endswith("bias")]
    biases = [p for name, p in named if name.endswith("bias")]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Sets the rates of weights and biases."""
    for group, factor in zip(optimiser.param_groups, (1.0, _BIAS_RATE), strict=True):
        group["lr"] = rate * factor
