"""When region features are computed anew: iPerceive's rule of changed labels.

Paper: iPerceive (Chadha et al., 2020): inside an event, features are computed where the set of
object labels differs from that of the frame before, and used again elsewhere. The rule is not in
the published code. Here a frame is a *source* if it starts an event or if its set of labels (not
their counts or scores) differs from that of the frame before it, whether that one was computed or
not; every frame uses the latest source. A frame in two events has the same source in both, since
the start of either is a source: each source is computed once a video.
"""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.family import import_library
from vlpipe.stores.errors import UsageError

Frame = npt.NDArray[np.uint8]


class LabelChanges:
    """Decides frame by frame."""

    def __init__(self) -> None:
        self._labels: frozenset[int] | None = None

    def is_source(self, labels: Iterable[int], *, starts_event: bool) -> bool:
        """Whether the next frame, which shows objects of these labels, is a source."""
        found = frozenset(labels)
        is_source = starts_event or found != self._labels
        self._labels = found
        return is_source


class EventStarts(Protocol):
    """Tells which frames start an event; frames come in order and each once."""

    def is_start(self, frame: Frame, span: tuple[float, float]) -> bool:
        """frame: uint8 [H, W, 3] RGB. span: its seconds."""
        ...


class WholeVideo:
    """The video is one event: its first frame starts it, and `LabelChanges` sees that by itself."""

    def is_start(self, frame: Frame, span: tuple[float, float]) -> bool:
        del frame, span
        return False


class GivenEvents:
    """Events by their starts, in seconds: from annotations or proposals."""

    def __init__(self, starts_s: Iterable[float]) -> None:
        self._starts = sorted(starts_s)
        self._passed = 0

    def is_start(self, frame: Frame, span: tuple[float, float]) -> bool:
        """Whether an event starts before the frame ends and none of the frames before had it."""
        del frame
        before = self._passed
        while self._passed < len(self._starts) and self._starts[self._passed] < span[1]:
            self._passed += 1
        return self._passed > before


class Shots:
    """Every shot is an event: cuts where PySceneDetect's content detector finds them.

    threshold: of its score, the mean change of hue, saturation and brightness, 0 to 255.
    Raises EnvironmentLacks where PySceneDetect is not installed.
    """

    def __init__(self, threshold: float) -> None:
        library = import_library("scenedetect", "shots", "events=shots")
        self._detector = library.ContentDetector(threshold=threshold, min_scene_len=1)
        self._timecode = partial(library.FrameTimecode, fps=25.0)
        self._num_frames = 0

    def is_start(self, frame: Frame, span: tuple[float, float]) -> bool:
        del span
        # The detector wants numbers, not times: it looks at neighbours in the sampled sequence.
        timecode = self._timecode(self._num_frames)
        self._num_frames += 1
        bgr = np.ascontiguousarray(frame[:, :, ::-1])
        return bool(self._detector.process_frame(timecode, bgr))


def read_events(path: Path) -> dict[str, list[float]]:
    """Starts of the events of each video, from JSON in ActivityNet Captions' form.

    `{"VIDEO": {"timestamps": [[start_s, end_s], ...]}, ...}`, or the lists alone. Raises UsageError
    for anything else.
    """
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))
        events = {
            video: entry["timestamps"] if isinstance(entry, dict) else entry
            for video, entry in videos.items()
        }
        return {video: [float(start) for start, _ in stamps] for video, stamps in events.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: {type(error).__name__}: {error}",
            hint='expected {"VIDEO": {"timestamps": [[start, end], ...]}, ...}',
        ) from error
