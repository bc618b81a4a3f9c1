"""What happens in a clip of the demo dataset: figures, what they do and when, and where they are.

A scene is truth: pictures, sound, questions, sentences and boxes are all derived from it.
Lengths are fractions of the frame's height, x is a fraction of its width, y grows downwards.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 45, 38),
    "orange": (245, 140, 20),
    "yellow": (250, 215, 40),
    "green": (20, 130, 60),
    "blue": (35, 80, 220),
    "purple": (145, 50, 175),
}
PATTERNS = ("plain", "striped", "dotted")
PLACES = {"meadow": "on the", "beach": "on the", "snow": "in the", "moon": "on the"}
GROUND_Y = 0.92  # where the feet stand


def _star() -> list[tuple[float, float]]:
    points = []
    for corner in range(10):
        radius = 0.58 if corner % 2 == 0 else 0.27
        angle = math.radians(36 * corner - 90)
        points.append((radius * math.cos(angle), radius * math.sin(angle) + 0.06))
    return points


def _circle() -> list[tuple[float, float]]:
    turns = [2 * math.pi * corner / 40 for corner in range(40)]
    return [(0.5 * math.cos(turn), 0.5 * math.sin(turn)) for turn in turns]


# Corners of each shape in a box from -0.5 to 0.5.
SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": _circle(),
    "square": [(-0.46, -0.46), (0.46, -0.46), (0.46, 0.46), (-0.46, 0.46)],
    "triangle": [(0.0, -0.55), (0.55, 0.5), (-0.55, 0.5)],
    "star": _star(),
    "diamond": [(0.0, -0.56), (0.42, 0.0), (0.0, 0.5), (-0.42, 0.0)],
    "cross": [
        *((-0.2, -0.5), (0.2, -0.5), (0.2, -0.2), (0.5, -0.2), (0.5, 0.2), (0.2, 0.2)),
        *((0.2, 0.5), (-0.2, 0.5), (-0.2, 0.2), (-0.5, 0.2), (-0.5, -0.2), (-0.2, -0.2)),
    ],
}


@dataclass(frozen=True, slots=True)
class Figure:
    """Somebody in a scene, standing at x."""

    shape: str
    color: str
    pattern: str
    height: float
    x: float


@dataclass(frozen=True, slots=True)
class Act:
    """A figure does one thing several times: active for active_s, then at rest until period_s."""

    figure: int
    action: str
    times: int
    start_s: float
    period_s: float
    active_s: float

    @property
    def end_s(self) -> float:
        return self.start_s + (self.times - 1) * self.period_s + self.active_s

    def phase(self, time_s: float) -> float | None:
        """How far the repetition under way has come, 0 to 1; None at rest, before and after."""
        since_s = time_s - self.start_s
        if since_s < 0 or since_s >= self.times * self.period_s:
            return None
        within_s = since_s % self.period_s
        return within_s / self.active_s if within_s < self.active_s else None


@dataclass(frozen=True, slots=True)
class Scene:
    """Figures at a place, and what they do. decor_seed places the scenery.

    margin_s: figures take turns: each comes so long before its act and leaves as long after it;
        None: all are there all the time.
    """

    place: str
    figures: tuple[Figure, ...]
    acts: tuple[Act, ...]
    duration_s: float
    decor_seed: int
    margin_s: float | None = None

    def acts_of(self, figure: int) -> list[Act]:
        return [act for act in self.acts if act.figure == figure]

    def event_s(self, act: Act) -> tuple[float, float]:
        """Start and end of what there is to tell about an act, in seconds."""
        margin_s = self.margin_s or 0.0
        return max(0.0, act.start_s - margin_s), min(self.duration_s, act.end_s + margin_s)

    def is_there(self, figure: int, time_s: float) -> bool:
        """Whether it is its turn."""
        turns = (self.event_s(act) for act in self.acts_of(figure))
        return self.margin_s is None or any(start <= time_s < end for start, end in turns)


@dataclass(frozen=True, slots=True)
class Pose:
    """How a figure departs from standing still: shift, stretch and turn about its centre."""

    dx: float = 0.0
    dy: float = 0.0
    stretch_x: float = 1.0
    stretch_y: float = 1.0
    angle_deg: float = 0.0
    is_visible: bool = True


STANDING = Pose()
AWAY = Pose(is_visible=False)


def _swing(phase: float) -> float:
    """There and back: 0, 1 in the middle, 0."""
    return math.sin(math.pi * phase)


def _slide_reach(scene: Scene) -> float:
    """How far a figure can slide without running through its neighbour."""
    num_at_once = len(scene.figures) if scene.margin_s is None else 1
    return (0.42, 0.25, 0.17)[min(num_at_once, 3) - 1]


Motion = Callable[[float, Scene], Pose]

# The phase runs from 0 to 1 in every repetition. The order also gives the pitches of the tones.
MOTIONS: dict[str, Motion] = {
    "jump": lambda u, _: Pose(dy=-0.36 * _swing(u)),
    "spin": lambda u, _: Pose(angle_deg=360 * u),
    "bow": lambda u, _: Pose(dx=0.1 * _swing(u), angle_deg=65 * _swing(u)),
    "grow": lambda u, _: Pose(stretch_x=1 + 0.6 * _swing(u), stretch_y=1 + 0.6 * _swing(u)),
    "vanish": lambda u, _: Pose(is_visible=not 0.08 < u < 0.92),
    "duck": lambda u, _: Pose(stretch_x=1 + 0.4 * _swing(u), stretch_y=1 - 0.55 * _swing(u)),
    "slide left": lambda u, scene: Pose(dx=-_slide_reach(scene) * _swing(u)),
    "slide right": lambda u, scene: Pose(dx=_slide_reach(scene) * _swing(u)),
}
ACTIONS = tuple(MOTIONS)


def pose(scene: Scene, figure: int, time_s: float) -> Pose:
    """How a figure stands at a moment."""
    if not scene.is_there(figure, time_s):
        return AWAY
    for act in scene.acts_of(figure):
        phase = act.phase(time_s)
        if phase is not None:
            return MOTIONS[act.action](phase, scene)
    return STANDING


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a figure is drawn, in pixels: centre and the two axes of its unit box."""

    center: tuple[float, float]
    axis_x: tuple[float, float]
    axis_y: tuple[float, float]

    def to_px(self, x: float, y: float) -> tuple[float, float]:
        return (
            self.center[0] + x * self.axis_x[0] + y * self.axis_y[0],
            self.center[1] + x * self.axis_x[1] + y * self.axis_y[1],
        )


def placement(figure: Figure, at: Pose, width_px: int, height_px: int) -> Placement:
    """The place of a figure in a frame of that size. Stretching keeps the feet on the ground."""
    size_px = figure.height * height_px
    center_x = figure.x * width_px + at.dx * height_px
    center_y = (GROUND_Y + at.dy) * height_px - 0.5 * size_px * at.stretch_y
    turn = math.radians(at.angle_deg)
    cos, sin = math.cos(turn), math.sin(turn)
    across, along = size_px * at.stretch_x, size_px * at.stretch_y
    return Placement(
        (center_x, center_y), (across * cos, across * sin), (-along * sin, along * cos)
    )


def box(
    scene: Scene, figure: int, time_s: float, width_px: int, height_px: int
) -> tuple[int, int, int, int] | None:
    """The pixel box (x0, y0, x1, y1) of a figure, cut to the frame; None if it cannot be seen."""
    at = pose(scene, figure, time_s)
    if not at.is_visible:
        return None
    someone = scene.figures[figure]
    placed = placement(someone, at, width_px, height_px)
    points = [placed.to_px(*point) for point in SHAPES[someone.shape]]
    x0 = max(0, math.floor(min(x for x, _ in points)))
    y0 = max(0, math.floor(min(y for _, y in points)))
    x1 = min(width_px, math.ceil(max(x for x, _ in points)))
    y1 = min(height_px, math.ceil(max(y for _, y in points)))
    return (x0, y0, x1, y1) if x1 - x0 > 2 and y1 - y0 > 2 else None
