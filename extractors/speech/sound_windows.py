"""Sound in windows of up to 30 s, cut where it is quietest, so that few words are cut in two.

Windows neither overlap nor depend on what is said in the one before: those of several videos can
share a batch, and a video of any length takes the memory of one window.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.media import AudioBlock
from vlpipe.extractors.samples import Block, Sample

SAMPLE_RATE = 16_000
WINDOW_S = 30
_WINDOW = WINDOW_S * SAMPLE_RATE
_EARLIEST = 20 * SAMPLE_RATE  # of a cut
_FRAME = SAMPLE_RATE // 50
_PAUSE_FRAMES = 10  # 0.2 s, about the shortest pause between phrases
_SHORTEST = SAMPLE_RATE // 10


class SoundWindows:
    """One sample a window, float32 (480000,), filled up with zeros; its context is the number of
    real values. Windows with nothing louder than silence_db below full scale make none."""

    def __init__(self, silence_db: float) -> None:
        self._quietest = 10 ** (silence_db / 20)
        self._pending = np.zeros(0, np.float32)
        self._start_s = 0.0
        self._num_done = 0
        self._is_begun = False

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, AudioBlock):
            raise TypeError(f"expected sound, got {type(block).__name__}")
        if not self._is_begun:
            self._is_begun, self._start_s = True, block.start_s
        self._pending = np.concatenate([self._pending, block.samples])
        made = []
        while len(self._pending) > _WINDOW:
            made += self._take(quietest_cut(self._pending[:_WINDOW]))
        return made

    def finish(self) -> Sequence[Sample]:
        return self._take(len(self._pending)) if len(self._pending) >= _SHORTEST else []

    def _take(self, size: int) -> list[Sample]:
        sound, self._pending = self._pending[:size], self._pending[size:]
        start_s = self._start_s + self._num_done / SAMPLE_RATE
        self._num_done += size
        if _levels(sound).max(initial=0.0) < self._quietest:
            return []
        filled = np.zeros(_WINDOW, np.float32)
        filled[:size] = sound
        return [Sample(filled, (start_s, start_s + size / SAMPLE_RATE), size)]


def quietest_cut(sound: npt.NDArray[np.float32]) -> int:
    """How many values of a full window come before the middle of its quietest 0.2 s, which lies in
    its last third; of equal ones the last."""
    power = _levels(sound[_EARLIEST:]) ** 2
    pauses = np.convolve(power, np.ones(_PAUSE_FRAMES), "valid")
    last = len(pauses) - 1 - int(pauses[::-1].argmin())
    return _EARLIEST + (last + _PAUSE_FRAMES // 2) * _FRAME


def _levels(sound: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The root of the mean square of every 20 ms."""
    padded = np.zeros(-(-len(sound) // _FRAME) * _FRAME)
    padded[: len(sound)] = sound
    levels: npt.NDArray[np.float64] = np.sqrt((padded.reshape(-1, _FRAME) ** 2).mean(axis=1))
    return levels
