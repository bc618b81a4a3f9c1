"""Person tracks drawn on frames: boxes in a colour for each id, key points and limbs."""

import colorsys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vlpipe.pipelines.pictures import strip
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError

# Pairs of COCO's key points that a limb, the shoulders, the hips or the face joins.
_LIMBS = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12),
    (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip

# Each id is this share of the colour circle further: near ids differ most, and none repeats.
_GOLDEN_SHARE = 0.618034

_MIN_CONFIDENCE = 0.3
_STRIP_HEIGHT = 180

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class VideoTracks:
    """The rows of `person_tracks` of one video, R of them.

    boxes: [R, 4] x1, y1, x2, y2 in pixels of the frame. ids, frames: [R], of tracks and of frames
    at `fps`, None for every frame of the source. keypoints: [R, 17, 3] x, y and confidence.
    """

    boxes: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int32]
    frames: npt.NDArray[np.int32]
    keypoints: npt.NDArray[np.float32]
    fps: float | None

    @classmethod
    def read(cls, store: FeatureStore, video_id: str) -> Self:
        """Those of a video in the store; FeatureMissing or VideoMissing if it has none, UsageError
        if others made them, so that nothing says when a frame is."""
        rows = [
            store[f"person_tracks{part}"].read(video_id)
            for part in ("", "_id", "_frame", "_keypoints")
        ]
        config = store["person_tracks"].info.provenance.get("config")
        if config is None:
            raise UsageError(
                f"the person_tracks of {store.url} were not made by vlpipe: nothing says how many "
                "of their frames are a second",
                hint="vlpipe extract --features person_tracks makes them",
            )
        return cls(rows[0], rows[1], rows[2], rows[3], config["fps"])

    def in_frame(self, frame: int) -> "VideoTracks":
        """The rows of one frame."""
        rows = self.frames == frame
        return VideoTracks(
            self.boxes[rows], self.ids[rows], self.frames[rows], self.keypoints[rows], self.fps
        )


def track_colour(track: int) -> Colour:
    """The colour of a track, the same in all pictures: bright red, green, blue, 0 to 255."""
    red, green, blue = colorsys.hsv_to_rgb(track * _GOLDEN_SHARE % 1, 0.8, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_tracks(frame: npt.NDArray[np.uint8], tracks: VideoTracks) -> Image.Image:
    """The frame [H, W, 3] with the box, id and sure key points of each row of `tracks`."""
    image = Image.fromarray(frame)
    pen = ImageDraw.Draw(image)
    thick = max(1, round(min(frame.shape[:2]) / 180))
    for box, track, keypoints in zip(tracks.boxes, tracks.ids, tracks.keypoints, strict=True):
        colour = track_colour(int(track))
        x1, y1, x2, y2 = (float(edge) for edge in box)
        # Pillow's far corner is the last pixel that is painted.
        corners = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        pen.rectangle(corners, outline=colour, width=thick)
        _draw_keypoints(pen, keypoints, colour, thick)
        text = str(int(track))
        size = 10.0 * thick
        label = pen.textbbox((x1 + 2 * thick, y1 + thick), text, font_size=size)
        pen.rectangle(label, fill=colour)
        pen.text((x1 + 2 * thick, y1 + thick), text, fill=(0, 0, 0), font_size=size)
    return image


def _draw_keypoints(
    pen: ImageDraw.ImageDraw, keypoints: npt.NDArray[np.float32], colour: Colour, thick: int
) -> None:
    sure = keypoints[:, 2] > _MIN_CONFIDENCE
    points = [(float(x), float(y)) for x, y in keypoints[:, :2]]
    for first, last in _LIMBS:
        if sure[first] and sure[last]:
            pen.line([points[first], points[last]], fill=colour, width=thick)
    for (x, y), is_sure in zip(points, sure, strict=True):
        if is_sure:
            pen.ellipse((x - thick, y - thick, x + thick, y + thick), fill=(255, 255, 255))


def choose_frames(tracks: VideoTracks, most: int) -> list[int]:
    """At most so many of the frames that have tracks, evenly spread, the first and last among."""
    frames = np.unique(tracks.frames)
    chosen = np.linspace(0, max(len(frames) - 1, 0), min(most, len(frames))).round()
    return [int(frame) for frame in frames[chosen.astype(int)]]


def tracks_on_frames(path: Path, tracks: VideoTracks, *, most: int = 8) -> Image.Image | None:
    """A strip of frames of the media file with their tracks; None where nobody is tracked.

    Raises MediaError when the file cannot be used.
    """
    from vlpipe.extractors.media import FrameBlock, FrameRequest, decode

    wanted = set(choose_frames(tracks, most))
    if not wanted:
        return None
    drawn: list[npt.NDArray[np.uint8]] = []
    with decode(path, [FrameRequest(fps=tracks.fps)], tolerance="lenient") as stream:
        for block in stream:
            assert isinstance(block, FrameBlock)
            for number, frame in enumerate(block.frames, start=block.first_frame):
                if number in wanted:
                    drawn.append(np.asarray(draw_tracks(frame, tracks.in_frame(number))))
    return strip(drawn, height=min(_STRIP_HEIGHT, drawn[0].shape[0])) if drawn else None
