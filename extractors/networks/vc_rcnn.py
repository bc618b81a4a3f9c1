"""VC R-CNN: vectors of regions that were trained to tell what stands beside them.

Paper: Visual Commonsense R-CNN (Wang et al., 2020). Code: Wangt-CN/VC-R-CNN on maskrcnn-benchmark;
used by iPerceive. Checkpoint `model_final.pth`, entries under `model`:
`backbone.body.{stem.conv1,layer3.22.bn1.bias}`, `backbone.fpn.fpn_inner1`,
`roi_heads.box.{feature_extractor.fc6,predictor.cls_score,causal_predictor.Wy}`, 548 in all, without
counters. The published detector has ResNet-101 on images of 800/1333 pixels; iPerceive's own
configuration is ResNet-50 on 400/667.

Data flow: image (1, 3, H, W) in B,G,R minus the mean -> ResNet in Caffe's form, BatchNorm without
epsilon -> feature pyramid P2..P5 (256 channels, strides 4 to 32) -> RoIAlign 7x7 of the level that
fits the box -> fc6, fc7 -> `features` (N, 1024), all >= 0 -> `self_logits` (N, 80).

The causal part (`networks/vc_intervention.py`) is there for training only; features do not depend
on it.
"""

import re
from typing import cast

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork, roi_align

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.networks.caffe_resnet import caffe_resnet, scale_branches, torchvision_key
from vlpipe.extractors.networks.vc_intervention import NUM_CLASSES, WIDTH, CausalPredictor
from vlpipe.extractors.weights.checkpoint import Checkpoint

PYRAMID_CHANNELS = 256
_POOLED = 7
_STRIDES = (4, 8, 16, 32)
_STAGES = ("layer1", "layer2", "layer3", "layer4")

# A box of this many pixels' edge belongs on level 4.
_CANONICAL_EDGE, _CANONICAL_LEVEL = 224, 4

_CAUSAL_PREFIX = "roi_heads.box.causal_predictor."


class VcRcnnNetwork(nn.Module):
    """Image and boxes to `features` and `self_logits`.

    depth: 50 or 101, of the residual network.
    """

    def __init__(self, depth: int = 101) -> None:
        super().__init__()
        self.depth = depth
        self.body = caffe_resnet(depth, eps=0.0, is_frozen=True)
        self.pyramid = FeaturePyramidNetwork([256, 512, 1024, 2048], PYRAMID_CHANNELS)
        self.fc6 = nn.Linear(PYRAMID_CHANNELS * _POOLED * _POOLED, WIDTH)
        self.fc7 = nn.Linear(WIDTH, WIDTH)
        self.cls_score = nn.Linear(WIDTH, NUM_CLASSES)

    def forward(self, image: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """`features` (N, 1024) and `self_logits` (N, 80).

        image: float32 (1, 3, H, W) in B,G,R minus the mean, H and W multiples of 32. boxes: float32
        (N, 4), x1, y1, x2, y2 in pixels of the image.
        """
        features = self.regions(self.maps(image), [boxes])
        return {"features": features, "self_logits": self.cls_score(features)}

    def maps(self, images: Tensor) -> list[Tensor]:
        """P2 to P5, (B, 256, H / stride, W / stride)."""
        body = self.body
        x = body.maxpool(body.relu(body.bn1(body.conv1(images))))  # (B, 64, H/4, W/4)
        stages: dict[str, Tensor] = {}
        for name in _STAGES:
            x = stages[name] = getattr(body, name)(x)
        return list(self.pyramid(stages).values())

    def regions(self, maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """fc7 (N, 1024) of the boxes (n, 4) of every image, one image after the other."""
        pooled = pool_regions(maps, boxes)  # (N, 256, 7, 7)
        return cast(Tensor, self.fc7(self.fc6(pooled.flatten(1)).relu()).relu())

    def initialise_untrained(self) -> None:
        """Draws weights whose activations stay within float16."""
        scale_branches(self.body)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network from the published layout; WeightsRejected for another network's."""
        depth = 101 if any("layer3.22." in key for key in checkpoint.state) else 50
        if depth != self.depth and any("layer3.5." in key for key in checkpoint.state):
            raise WeightsRejected(
                f"{checkpoint.path}: a VC R-CNN on ResNet-{depth}, and the network is on "
                f"ResNet-{self.depth}",
                hint=f"set depth={depth}",
            )
        state = {
            own_key(key): value
            for key, value in checkpoint.state.items()
            if not key.startswith(_CAUSAL_PREFIX)
        }
        checkpoint.load_into(self, state, what=f"VC R-CNN (ResNet-{self.depth}-FPN)")


def load_causal(checkpoint: Checkpoint) -> CausalPredictor:
    """The causal head of a checkpoint, its inner width taken from there."""
    state = {
        key.removeprefix(_CAUSAL_PREFIX): value
        for key, value in checkpoint.state.items()
        if key.startswith(_CAUSAL_PREFIX)
    }
    head = CausalPredictor(len(state["Wy.weight"]) if "Wy.weight" in state else WIDTH)
    checkpoint.load_into(head, state, what="VC R-CNN's causal predictor")
    return head


def pool_regions(maps: list[Tensor], boxes: list[Tensor]) -> Tensor:
    """(N, C, 7, 7): every box from the pyramid level that fits its size, in the boxes' order.

    The level is floor(4 + log2(edge / 224 + 1e-6)), 2 to 5, with edge the root of the area counted
    in whole pixels, (x2 - x1 + 1)(y2 - y1 + 1): torchvision's MultiScaleRoIAlign has no + 1.
    """
    joined = torch.cat(boxes)  # (N, 4)
    images = torch.cat([torch.full((len(b), 1), float(n)) for n, b in enumerate(boxes)])
    rois = torch.cat([images.to(joined), joined], dim=1)  # (N, 5)
    sides = joined[:, 2:] - joined[:, :2] + 1
    edge = sides.prod(dim=1).clamp(min=0).sqrt()
    level = (_CANONICAL_LEVEL + torch.log2(edge / _CANONICAL_EDGE + 1e-6)).floor()
    level = level.clamp(2, 5).long() - 2
    pooled = maps[0].new_zeros((len(joined), maps[0].shape[1], _POOLED, _POOLED))
    for index, (features, stride) in enumerate(zip(maps, _STRIDES, strict=True)):
        chosen = (level == index).nonzero()[:, 0]
        if len(chosen):
            # In float32 at every precision: bfloat16 keeps 8 bits of a coordinate.
            aligned = roi_align(
                features.float(), rois[chosen].float(), _POOLED, 1 / stride, 2, aligned=False
            )
            pooled[chosen] = aligned.to(pooled.dtype)
    return pooled


def own_key(key: str) -> str:
    """A name of the published layout in that of the modules above; others unchanged."""
    key = key.removeprefix("roi_heads.box.predictor.")
    key = key.removeprefix("roi_heads.box.feature_extractor.")
    found = re.match(r"backbone\.fpn\.fpn_(inner|layer)([1-4])\.(.+)", key)
    if found:
        kind, number, rest = found.groups()
        return f"pyramid.{kind}_blocks.{int(number) - 1}.0.{rest}"
    if key.startswith("backbone.body."):
        return f"body.{torchvision_key(key.removeprefix('backbone.body.'))}"
    return key
