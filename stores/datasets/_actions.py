"""Actions in videos as typed rows: which class, from when to when."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ActionClass:
    """A kind of action. code: the publisher's (c000); name: in words."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Action:
    """That something happens. place: of its class among the dataset's classes, from 0.

    Annotated ends may lie behind the end of the video, and before their start; they are given as
    they are.
    """

    place: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class ActionVideo:
    """A video with its actions, which may be none and may overlap.

    script: what the actors were asked to do. descriptions: what annotators saw. duration_s: None
    where the publisher states none.
    """

    video_id: str
    actions: tuple[Action, ...]
    script: str = ""
    descriptions: tuple[str, ...] = ()
    duration_s: float | None = None
