"""Faces in a frame with five landmarks each: the cascade of MTCNN.

Paper: Zhang et al., 2016; networks and checkpoint layout: `networks/mtcnn.py`. Numbers follow
timesler/facenet-pytorch (2.6).

Data flow: a frame (3, H, W), 0..255 RGB -> scaled in steps of 0.709 so that the smallest face
wanted becomes 12 pixels -> proposals -> 24 x 24 cut-outs judged by the refinement network -> 48 x
48 cut-outs judged by the output network -> `boxes` (N, 4), `scores` (N), `landmarks` (N, 5, 2) in
pixels of the frame, by falling score.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from vlpipe.extractors.networks.mtcnn import OutputNetwork, ProposalNetwork, RefinementNetwork

_WINDOW = 12
_STRIDE = 2
_SCALE_STEP = 0.709

# Overlap above which the weaker of two is dropped: within a scale, over all of them, at the end.
_NMS_SCALE = 0.5
_NMS = 0.7

# Cut-outs that a network sees together: bounds memory.
_MAX_CUTOUTS = 256


class Mtcnn(nn.Module):
    """A frame (3, H, W), 0..255 RGB float32 -> dict of `boxes`, `scores`, `landmarks`.

    min_face: edge in pixels of the smallest face that is found. thresholds: scores that the three
    networks have to give.
    """

    def __init__(
        self,
        *,
        min_face: int = 20,
        thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
    ) -> None:
        super().__init__()
        self.min_face, self.thresholds = min_face, thresholds
        self.pnet = ProposalNetwork()
        self.rnet = RefinementNetwork()
        self.onet = OutputNetwork()

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        boxes = self._propose(frame)
        boxes = self._refine(frame, boxes)
        return self._decide(frame, boxes)

    def _propose(self, frame: Tensor) -> Tensor:
        """Square boxes (N, 4) of the proposal network, over all scales."""
        found: list[Tensor] = []
        height, width = frame.shape[1:]
        for scale in _scales(min(height, width), self.min_face):
            size = [int(height * scale + 1), int(width * scale + 1)]
            made = self.pnet(_normalise(F.interpolate(frame[None], size, mode="area")))
            scores, shifts = made["scores"][0].float(), made["shifts"][0].float()
            rows = _windows(scores, shifts, scale, self.thresholds[0])
            found.append(rows[nms(rows[:, :4], rows[:, 4], _NMS_SCALE)])
        if not found:
            return frame.new_zeros((0, 4))
        rows = torch.cat(found)  # (N, 9): box, score, shifts
        rows = rows[nms(rows[:, :4], rows[:, 4], _NMS)]
        return square_boxes(shift_boxes(rows[:, :4], rows[:, 5:], plus=0))

    def _refine(self, frame: Tensor, boxes: Tensor) -> Tensor:
        """Square boxes (N, 4) that the refinement network takes for faces."""
        boxes, cutouts = _cut_out(frame, boxes, 24)
        made = _judge(self.rnet, cutouts, {"scores": (), "shifts": (4,)})
        kept = made["scores"] > self.thresholds[1]
        boxes, scores, shifts = boxes[kept], made["scores"][kept], made["shifts"][kept]
        best = nms(boxes, scores, _NMS)
        return square_boxes(shift_boxes(boxes[best], shifts[best]))

    def _decide(self, frame: Tensor, boxes: Tensor) -> dict[str, Tensor]:
        boxes, cutouts = _cut_out(frame, boxes, 48)
        made = _judge(self.onet, cutouts, {"scores": (), "shifts": (4,), "landmarks": (5, 2)})
        kept = made["scores"] > self.thresholds[2]
        boxes, scores = boxes[kept], made["scores"][kept]
        edges = boxes[:, 2:] - boxes[:, :2] + 1  # (N, 2)
        landmarks = boxes[:, None, :2] - 1 + made["landmarks"][kept] * edges[:, None]  # (N, 5, 2)
        boxes = shift_boxes(boxes, made["shifts"][kept])
        best = drop_covered(boxes, scores, _NMS)
        return {"boxes": boxes[best], "scores": scores[best], "landmarks": landmarks[best]}


def _scales(shorter: int, min_face: int) -> Iterator[float]:
    scale = _WINDOW / min_face
    edge = shorter * scale
    while edge >= _WINDOW:
        yield scale
        scale *= _SCALE_STEP
        edge *= _SCALE_STEP


def _normalise(pixels: Tensor) -> Tensor:
    return (pixels - 127.5) / 128


def _windows(scores: Tensor, shifts: Tensor, scale: float, threshold: float) -> Tensor:
    """(N, 9): box in pixels of the frame, score and shifts of the windows that score enough."""
    kept = scores >= threshold  # (h, w)
    places = kept.nonzero().flip(1).to(shifts)  # (N, 2): column, row
    first = ((_STRIDE * places + 1) / scale).floor()
    last = ((_STRIDE * places + _WINDOW) / scale).floor()
    return torch.cat([first, last, scores[kept][:, None], shifts[:, kept].T], dim=1)


def shift_boxes(boxes: Tensor, shifts: Tensor, *, plus: int = 1) -> Tensor:
    """Boxes (N, 4) whose corners are moved by shares (N, 4) of their edges, counted with `plus`."""
    edges = boxes[:, 2:] - boxes[:, :2] + plus  # (N, 2)
    return boxes + shifts * edges.repeat(1, 2)


def square_boxes(boxes: Tensor) -> Tensor:
    """Boxes (N, 4) widened to squares of their longer edge about their centres."""
    edges = boxes[:, 2:] - boxes[:, :2]  # (N, 2)
    longest = edges.amax(dim=1, keepdim=True)  # (N, 1)
    first = boxes[:, :2] + (edges - longest) / 2
    return torch.cat([first, first + longest], dim=1)


def _cut_out(frame: Tensor, boxes: Tensor, edge: int) -> tuple[Tensor, Tensor]:
    """The boxes (M, 4) that show part of the frame, and those parts as (M, 3, edge, edge).

    Corners are whole pixels counted from 1; what lies outside of the frame is cut off.
    """
    height, width = frame.shape[1:]
    corners = boxes.trunc().long().tolist()
    shown, cutouts = [], []
    for index, (x1, y1, x2, y2) in enumerate(corners):
        left, top = max(x1, 1) - 1, max(y1, 1) - 1
        right, bottom = min(x2, width), min(y2, height)
        if left < right and top < bottom:
            shown.append(index)
            part = frame[None, :, top:bottom, left:right]
            cutouts.append(F.interpolate(part, [edge, edge], mode="area"))
    if not cutouts:
        return boxes[:0], frame.new_zeros((0, 3, edge, edge))
    return boxes[shown], _normalise(torch.cat(cutouts))


def _judge(
    network: nn.Module, cutouts: Tensor, shapes: dict[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """What the network makes of cut-outs (N, 3, E, E), N >= 0."""
    made = [network(part) for part in torch.split(cutouts, _MAX_CUTOUTS) if len(part)]
    return {
        key: torch.cat([cutouts.new_zeros((0, *shape)), *(part[key].float() for part in made)])
        for key, shape in shapes.items()
    }


def drop_covered(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices by falling score of the boxes (N, 4) that no better one covers, edges with + 1.

    The overlap counts as a share of the smaller of two boxes, so that a face within another goes;
    torchvision's `nms` knows shares of the union alone.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order].double()
    edges = (boxes[:, 2:] - boxes[:, :2] + 1).clamp(min=0)
    areas = edges.prod(dim=1)  # (N)
    first = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    last = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    common = (last - first + 1).clamp(min=0).prod(dim=2)  # (N, N)
    covers = common / torch.minimum(areas[:, None], areas[None]).clamp(min=1e-9) > threshold
    kept = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    for index in range(len(boxes)):
        if kept[index]:
            kept[index + 1 :] &= ~covers[index, index + 1 :]
    return order[kept]
