"""Faster R-CNN of Visual Genome ("bottom-up attention"): ResNet-101, C4 head.

Paper: Bottom-Up and Top-Down Attention for Image Captioning and Visual Question Answering (Anderson
et al., 2018). Code: peteanderson80/bottom-up-attention (Caffe); ports
MILVLG/bottom-up-attention.pytorch (`bua/caffe`) and airsplay/py-bottom-up-attention. 1600 classes,
400 attributes, 65.6 million parameters.

Data flow: image (1, 3, H, W) in B,G,R, mean subtracted -> `res4` (1, 1024, H/16, W/16) -> 12
anchors a cell -> `proposals` (R, 4), R <= 300, by falling `proposal_scores` (R,) -> the maximum
over 14x14 bins of each (R, 1024, 14, 14) -> res5, dilated instead of strided (R, 2048, 14, 14)
-> `features` (R, 2048), its mean -> `class_logits` (R, 1601), class 0 is background; `box_deltas`
(R, 6404), four a class; `class_id` (R,), the best of all 1601 -> its embedding beside the feature
-> `attr_prob` (R, 401), 0 is no attribute.

Two published layouts hold this network with different conventions. The weights of both are brought
to those of the first:

| | Caffe port, .pth | unc, .pkl (as safetensors) |
|---|---|---|
| background, no attribute | first | last |
| boxes | 6404, plain | 6400 without background, times (10, 10, 5, 5) |
| objectness | softmax of 12 + 12 channels | sigmoid of 12 channels |
| attribute head | cls_embed, attr_linear1, attr_linear2 | cls_embedding, fc_attr, attr_score |
| a box from x1 to x2 is wide | x2 - x1 + 1 | x2 - x1 |

The last row cannot be moved into weights and stays a property of the network, `pixel`. Files of
either layout without attributes leave out `attr_prob`.
"""

import re
from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_pool

from vlpipe.extractors.networks.caffe_resnet import caffe_resnet, scale_branches, torchvision_key
from vlpipe.extractors.regions.faster_rcnn_boxes import (
    CAFFE_ANCHORS,
    best_proposals,
    decode_deltas,
    place_anchors,
    symmetric_anchors,
)
from vlpipe.extractors.weights.checkpoint import Checkpoint

WIDTH = 2048
NUM_CLASSES = 1600
NUM_ATTRIBUTES = 400
NUM_ANCHORS = 12
STRIDE = 16
POOLED_CELLS = 14

_EMBEDDING = 256
_ATTRIBUTE_WIDTH = 512

# The smallest image that leaves the third stage a cell; smaller ones are filled up with the mean.
_MIN_EDGE_PX = STRIDE

_PREDICTOR = "roi_heads.box_predictor."
_ANCHORS_KEY = "proposal_generator.anchor_generator.cell_anchors.0"
_UNC_NAMES = {"cls_embedding": "cls_embed", "fc_attr": "attr_linear1", "attr_score": "attr_linear2"}
_UNC_BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class RpnHead(nn.Module):
    """res4 (1, 1024, h, w) -> object scores and deltas of every anchor, cell by cell."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1024, 512, 3, padding=1)
        self.objectness_logits = nn.Conv2d(512, 2 * NUM_ANCHORS, 1)
        self.anchor_deltas = nn.Conv2d(512, 4 * NUM_ANCHORS, 1)

    def forward(self, res4: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (h w 12,) that there is an object, deltas (h w 12, 4)."""
        x = self.conv(res4).relu_()  # (1, 512, h, w)
        logits = self.objectness_logits(x).float().view(2, NUM_ANCHORS, *x.shape[2:])
        scores = logits.softmax(dim=0)[1]  # (12, h, w)
        deltas = self.anchor_deltas(x).float()[0]  # (48, h, w)
        return scores.permute(1, 2, 0).flatten(), deltas.permute(1, 2, 0).reshape(-1, 4)


class RegionPredictor(nn.Module):
    """Features (R, 2048) -> class logits, box deltas, attribute probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_score = nn.Linear(WIDTH, NUM_CLASSES + 1)
        self.bbox_pred = nn.Linear(WIDTH, 4 * (NUM_CLASSES + 1))
        self.cls_embed: nn.Embedding | None = nn.Embedding(NUM_CLASSES + 1, _EMBEDDING)
        self.attr_linear1: nn.Linear | None = nn.Linear(WIDTH + _EMBEDDING, _ATTRIBUTE_WIDTH)
        self.attr_linear2: nn.Linear | None = nn.Linear(_ATTRIBUTE_WIDTH, NUM_ATTRIBUTES + 1)

    def drop_attributes(self) -> None:
        """Takes the attribute head away, for checkpoints without one."""
        self.cls_embed = self.attr_linear1 = self.attr_linear2 = None

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        logits = self.cls_score(features).float()  # (R, 1601)
        class_id = logits.argmax(dim=1)  # (R,)
        found = {
            "class_logits": logits,
            "box_deltas": self.bbox_pred(features).float(),  # (R, 6404)
            "class_id": class_id,
        }
        if self.cls_embed is None or self.attr_linear1 is None or self.attr_linear2 is None:
            return found
        joined = torch.cat([features, self.cls_embed(class_id)], dim=1)  # (R, 2304)
        attributes = self.attr_linear2(self.attr_linear1(joined).relu())  # (R, 401)
        return found | {"attr_prob": attributes.float().softmax(dim=1)}


class FasterRcnnVg(nn.Module):
    """Image (1, 3, H, W) in B,G,R, mean subtracted -> dict of the outputs at the file's top.

    num_proposals: regions of an image that the head looks at.
    regions_at_once: so many go through res5 together, always: a smaller rest is filled up, so that
        a region has the same bits whichever others it comes with. 50 take 0.5 GB in float32.
    """

    def __init__(self, *, num_proposals: int = 300, regions_at_once: int = 50) -> None:
        super().__init__()
        self.num_proposals = num_proposals
        self.regions_at_once = min(regions_at_once, num_proposals)
        self.pixel = 1.0
        resnet = caffe_resnet(
            101, eps=1e-5, is_frozen=False, pool_padding=0, pool_ceil=True, last_dilation=2
        ).to(memory_format=torch.channels_last)  # a quarter less time in res5
        stages = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
        self.backbone = nn.Sequential(OrderedDict((s, getattr(resnet, s)) for s in stages))
        self.rpn = RpnHead()
        self.res5 = resnet.layer4
        self.predictor = RegionPredictor()
        self.anchors: Tensor
        self.register_buffer("anchors", torch.tensor(CAFFE_ANCHORS, dtype=torch.float32))

    def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        """scale: of the image against its original, for the smallest proposals (16 pixels of it).

        Raises ValueError for more than one image: images of a batch would share no work.
        """
        if len(image) != 1:
            raise ValueError(f"expected one image (1, 3, H, W), got {tuple(image.shape)}")
        height, width = image.shape[2:]
        res4 = self.res4(image)
        boxes, scores = self.propose(res4, height, width, scale)
        found = {"res4": res4, "proposals": boxes, "proposal_scores": scores}
        return found | self.describe(res4, boxes)

    def res4(self, image: Tensor) -> Tensor:
        """(1, 1024, H/16, W/16) of (1, 3, H, W)."""
        height, width = image.shape[2:]
        missing = (max(0, _MIN_EDGE_PX - width), max(0, _MIN_EDGE_PX - height))
        if any(missing):
            image = F.pad(image, (0, missing[0], 0, missing[1]))
        res4: Tensor = self.backbone(image.contiguous(memory_format=torch.channels_last))
        return res4.float()  # half precision would move the corners of regions

    def propose(self, res4: Tensor, height: int, width: int, scale: float) -> tuple[Tensor, Tensor]:
        """Proposals (R, 4) in pixels of the image, and their scores (R,), which fall."""
        scores, deltas = self.rpn(res4)
        anchors = place_anchors(self.anchors, res4.shape[2], res4.shape[3], STRIDE)  # (h w 12, 4)
        return best_proposals(
            decode_deltas(anchors, deltas, pixel=self.pixel),
            scores,
            (height, width),
            # 16 pixels of the original; the ports scale that, not the box.
            min_side=16 * scale,
            pixel=self.pixel,
            most=self.num_proposals,
        )

    def describe(self, res4: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        """`features`, `class_logits`, `box_deltas`, `class_id`, `attr_prob` of boxes (R, 4)."""
        # One call even for no boxes, so that the outputs have their shapes.
        size = self.regions_at_once if len(boxes) else 1
        parts = [
            self._describe_some(res4, boxes[start : start + size], size)
            for start in range(0, max(1, len(boxes)), size)
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}

    def _describe_some(self, res4: Tensor, boxes: Tensor, size: int) -> dict[str, Tensor]:
        filled = boxes.new_zeros((size, 4))
        filled[: len(boxes)] = boxes
        regions = self.pool(res4, filled)  # (size, 1024, 14, 14)
        regions = regions.contiguous(memory_format=torch.channels_last)
        features = self.res5(regions).float().mean(dim=(2, 3))  # (size, 2048)
        found = {"features": features} | self.predictor(features)
        return {key: values[: len(boxes)] for key, values in found.items()}

    @staticmethod
    def pool(res4: Tensor, boxes: Tensor) -> Tensor:
        """(R, 1024, 14, 14): the maximum in each bin, bins rounded to whole cells."""
        return cast(Tensor, roi_pool(res4, [boxes], POOLED_CELLS, 1 / STRIDE))

    def initialise_untrained(self) -> None:
        """Draws weights whose activations stay within float16."""
        scale_branches(self.backbone, self.res5)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network from either published layout, anchors included.

        Raises WeightsRejected for a checkpoint of another network.
        """
        state = {_own_key(key): value for key, value in checkpoint.state.items()}
        objectness = state.get("rpn.objectness_logits.bias")
        is_unc = objectness is not None and len(objectness) == NUM_ANCHORS
        if is_unc:
            state = _from_unc(state)
        default = symmetric_anchors() if is_unc else CAFFE_ANCHORS
        state.setdefault("anchors", torch.tensor(default, dtype=torch.float32))
        if not any(re.match(r"predictor\.(cls_embed|attr_)", key) for key in state):
            self.predictor.drop_attributes()
        checkpoint.load_into(self, state, what="the Visual Genome Faster R-CNN (ResNet-101, C4)")
        self.pixel = 0.0 if is_unc else 1.0


def _own_key(key: str) -> str:
    """A name of the published layouts in that of the modules above."""
    if key == _ANCHORS_KEY:
        return "anchors"
    if key.startswith("backbone."):
        return "backbone." + torchvision_key(key.removeprefix("backbone."))
    if key.startswith("roi_heads.res5."):
        return "res5." + torchvision_key(key.removeprefix("roi_heads.res5."))
    if key.startswith(_PREDICTOR):
        name, _, entry = key.removeprefix(_PREDICTOR).partition(".")
        return f"predictor.{_UNC_NAMES.get(name, name)}.{entry}"
    return re.sub(r"^proposal_generator\.rpn_head\.", "rpn.", key)


def _from_unc(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The unc layout's weights with the Caffe port's conventions; unfitting shapes stay as is."""
    made = dict(state)
    for key, value in state.items():
        if re.match(r"predictor\.(cls_score|cls_embed|attr_linear2)\.", key):
            made[key] = value.roll(1, dims=0)  # the last becomes the first
        elif key.startswith("predictor.bbox_pred.") and value.shape[0] == 4 * NUM_CLASSES:
            factors = value.new_tensor(_UNC_BOX_WEIGHTS).repeat(NUM_CLASSES)
            plain = value / factors.view(-1, *[1] * (value.ndim - 1))
            background = plain.new_zeros((4, *plain.shape[1:]))
            made[key] = torch.cat([background, plain])
        elif key.startswith("rpn.objectness_logits."):
            # sigmoid(x) is the softmax of (0, x).
            made[key] = torch.cat([torch.zeros_like(value), value])
    return made
