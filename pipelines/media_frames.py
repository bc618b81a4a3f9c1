"""Frames of a media file at given times, to look at."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from vlpipe.extractors.media import DecodePool

Frame = npt.NDArray[np.uint8]

_FPS = 8  # how exactly a time is met


def frames_at(
    path: Path,
    times_s: Sequence[float],
    *,
    height: int | None = None,
    pool: "DecodePool | None" = None,
) -> list[Frame]:
    """The frame shown at each time, uint8 [H, W, 3]; the last one behind the end.

    height: of frames that are higher, after scaling. pool: decodes; None: one of this call alone.
    Only the frames asked for are held, however long the video is. Raises MediaError when the file
    cannot be used.
    """
    from vlpipe.extractors.media import DecodePool, FrameBlock, FrameRequest, Resize

    resize = None if height is None else Resize(shorter_edge=height, only_shrink=True)
    waiting = sorted(range(len(times_s)), key=lambda place: times_s[place], reverse=True)
    found: dict[int, Frame] = {}
    shown: Frame | None = None
    with ExitStack() as stack:
        chosen = pool or stack.enter_context(DecodePool(workers=1, tolerance="lenient"))
        stream = stack.enter_context(chosen.open(path, [FrameRequest(fps=_FPS, resize=resize)]))
        for block in stream:
            assert isinstance(block, FrameBlock)
            for frame, (start_s, _) in zip(block.frames, block.spans, strict=True):
                while shown is not None and waiting and times_s[waiting[-1]] < start_s:
                    found[waiting.pop()] = shown.copy()  # a view would hold its whole block
                shown = frame
            if not waiting:
                break
    for place in waiting:
        assert shown is not None  # a file without a frame is a MediaError
        found[place] = shown
    return [found[place] for place in range(len(times_s))]
