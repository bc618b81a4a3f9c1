"""A face turned, scaled and moved so that its eyes, nose and mouth lie where ArcFace wants them.

Least-squares similarity between two sets of points: Umeyama, Least-Squares Estimation of
Transformation Parameters Between Two Point Patterns, 1991. The five places are those that
ArcFace's training faces were aligned to (deepinsight/insightface), as is the sampling: bilinear,
zeros outside of the frame, pixel centres at whole numbers.
"""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from vlpipe.extractors.networks.iresnet import FACE_EDGE

Array = npt.NDArray[np.float64]

NUM_LANDMARKS = 5
ARCFACE_LANDMARKS: Array = np.array(
    [
        (38.2946, 51.6963),  # the eye that is left in the picture
        (73.5318, 51.5014),
        (56.0252, 71.7366),  # the tip of the nose
        (41.5493, 92.3655),  # the corner of the mouth that is left in the picture
        (70.7299, 92.2041),
    ]
)
"""x, y in pixels of a picture of 112 x 112."""


def similarity_between(points: npt.NDArray[np.floating], targets: Array) -> Array:
    """float64 [2, 3]: the rotation, scale and shift that bring points [N, 2] nearest to targets.

    Without mirroring. N >= 2; where all points are one the scale is undefined: ValueError.
    """
    source = np.asarray(points, np.float64)
    source_mean, target_mean = source.mean(axis=0), targets.mean(axis=0)
    centred, wanted = source - source_mean, targets - target_mean  # (N, 2)
    spread = (centred**2).sum() / len(source)
    if spread < 1e-12:
        raise ValueError("all points are one: they have no similarity to others")
    left, values, right = np.linalg.svd(wanted.T @ centred / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = left @ np.diag(signs) @ right  # (2, 2)
    scale = (values * signs).sum() / spread
    shift = target_mean - scale * rotation @ source_mean
    return np.concatenate([scale * rotation, shift[:, None]], axis=1)


def align_faces(frame: Tensor, landmarks: npt.NDArray[np.floating]) -> Tensor:
    """float32 [N, 3, 112, 112]: the faces of a frame [3, H, W] with landmarks [N, 5, 2].

    landmarks: x, y in pixels of the frame: eye, eye, nose, mouth, mouth, from the left of the
    picture. Values stay in the frame's range; outside of the frame they are 0.
    """
    height, width = frame.shape[1:]
    rows, columns = np.mgrid[0:FACE_EDGE, 0:FACE_EDGE]
    grids = []
    for points in np.asarray(landmarks, np.float64):
        matrix = similarity_between(points, ARCFACE_LANDMARKS)
        back = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
        places = (
            np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back[:2].T
        )  # (112, 112, 2)
        # grid_sample counts from -1 to 1 between the outer edges of the outer pixels.
        grids.append((2 * places + 1) / np.array([width, height]) - 1)
    if not grids:
        return frame.new_zeros((0, 3, FACE_EDGE, FACE_EDGE))
    grid = torch.from_numpy(np.stack(grids)).to(frame)  # (N, 112, 112, 2)
    # One face at a time: its values do not depend on how many others there are.
    return torch.cat(
        [F.grid_sample(frame[None], g[None], mode="bilinear", align_corners=False) for g in grid]
    )
