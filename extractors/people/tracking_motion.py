"""Where a box will be in the next frame: a Kalman filter of constant velocity.

State and noise are those of DeepSORT (Simple Online and Realtime Tracking with a Deep Association
Metric, Wojke et al., 2017): centre x, centre y, aspect (width / height), height, and their change
a frame. Standard deviations scale with the height of the box, so that near and far persons are
treated alike.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Standard deviations of position and velocity, as shares of the height.
_POSITION = 1 / 20
_VELOCITY = 1 / 160

_STEP = np.eye(8) + np.eye(8, k=4)
_LEAST_EDGE_PX = 1e-3


@dataclass(frozen=True, slots=True)
class MotionState:
    """mean: float64 [8], centre x, centre y, aspect, height and their velocities a frame.

    covariance: float64 [8, 8].
    """

    mean: Array
    covariance: Array

    @property
    def box(self) -> Array:
        """float64 [4]: x1, y1, x2, y2."""
        x, y, aspect, height = self.mean[:4]
        height = max(height, _LEAST_EDGE_PX)
        width = max(aspect * height, _LEAST_EDGE_PX)
        return np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def start_motion(box: npt.NDArray[np.floating]) -> MotionState:
    """The state of a box [4] that is seen for the first time, at rest."""
    measured = _measurement(box)
    height = measured[3]
    deviations = np.array(
        [2 * _POSITION * height] * 2
        + [1e-2, 2 * _POSITION * height]
        + [10 * _VELOCITY * height] * 2
        + [1e-5, 10 * _VELOCITY * height]
    )
    return MotionState(np.concatenate([measured, np.zeros(4)]), np.diag(deviations**2))


def predict_motion(state: MotionState, *, is_lost: bool) -> MotionState:
    """The state one frame later. is_lost: the box was not seen, so that its size stays as it is.

    A person who walks behind another is seen ever narrower before being lost; carried on, that
    would shrink the box to nothing.
    """
    mean = state.mean.copy()
    if is_lost:
        mean[6:] = 0
    height = max(mean[3], _LEAST_EDGE_PX)
    deviations = np.array(
        [_POSITION * height] * 2
        + [1e-2, _POSITION * height]
        + [_VELOCITY * height] * 2
        + [1e-5, _VELOCITY * height]
    )
    covariance = _STEP @ state.covariance @ _STEP.T + np.diag(deviations**2)
    return MotionState(_STEP @ mean, covariance)


def correct_motion(state: MotionState, box: npt.NDArray[np.floating]) -> MotionState:
    """The state after the box [4] was seen."""
    expected, spread = _project(state)
    gain = np.linalg.solve(spread, state.covariance[:4]).T  # (8, 4)
    mean = state.mean + gain @ (_measurement(box) - expected)
    covariance = state.covariance - gain @ spread @ gain.T
    return MotionState(mean, (covariance + covariance.T) / 2)


def centre_distances(state: MotionState, boxes: npt.NDArray[np.floating]) -> Array:
    """Squared Mahalanobis distance of the centres of boxes [N, 4] from the state's, [N]."""
    expected, spread = _project(state)
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    offsets = (boxes[:, :2] + boxes[:, 2:]) / 2 - expected[:2]  # (N, 2)
    return np.asarray((offsets * np.linalg.solve(spread[:2, :2], offsets.T).T).sum(axis=1))


def _project(state: MotionState) -> tuple[Array, Array]:
    height = max(state.mean[3], _LEAST_EDGE_PX)
    deviations = np.array([_POSITION * height, _POSITION * height, 1e-1, _POSITION * height])
    return state.mean[:4], state.covariance[:4, :4] + np.diag(deviations**2)


def _measurement(box: npt.NDArray[np.floating]) -> Array:
    x1, y1, x2, y2 = np.asarray(box, np.float64)
    height = max(y2 - y1, _LEAST_EDGE_PX)
    return np.array([(x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / height, height])
