"""Which source frames make a sequence at a constant rate: the rule of ffmpeg's `fps` filter.

A source frame is on screen during [start, end), in ticks of the stream's time base. Rounded to
slots of 1/fps (half away from zero), it fills the slots from the first one that is still empty to
its own end; a frame that ends before the first empty slot is dropped.
"""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def round_to_slot(ticks: int, time_base: Fraction, rate: Fraction) -> int:
    """The slot of 1/rate seconds nearest to a time, halves away from zero."""
    product = time_base * rate
    numerator, denominator = abs(ticks) * product.numerator, product.denominator
    nearest = (2 * numerator + denominator) // (2 * denominator)
    return nearest if ticks >= 0 else -nearest


class RateResampler:
    """Turns source frames, in display order, into ranges of slots at a constant rate."""

    def __init__(self, time_base: Fraction, rate: Fraction) -> None:
        self._time_base = time_base
        self._rate = rate
        self._next_slot: int | None = None

    def slots(self, start: int, end: int) -> range:
        """The slots that the frame on screen during [start, end) ticks fills; may be none.

        Slot k covers [k/rate, (k+1)/rate) seconds on the clock of `start` and `end`.
        """
        if self._next_slot is None:
            self._next_slot = round_to_slot(start, self._time_base, self._rate)
        first = self._next_slot
        stop = max(first, round_to_slot(end, self._time_base, self._rate))
        self._next_slot = stop
        return range(first, stop)


def source_of_each_slot(
    starts: NDArray[np.int64], end: int, time_base: Fraction, rate: Fraction
) -> NDArray[np.int64]:
    """int64 [slots], the source frame of every slot, for frames that start at `starts` ticks.

    Equals what RateResampler yields frame by frame; `end` is the end of the last frame.
    """
    if not len(starts):
        return np.zeros(0, np.int64)
    stops = _round_all_to_slots(np.append(starts[1:], end), time_base, rate)
    first = round_to_slot(int(starts[0]), time_base, rate)
    stops = np.maximum.accumulate(np.maximum(stops, first))
    return np.repeat(np.arange(len(starts)), np.diff(stops, prepend=first))


def _round_all_to_slots(
    ticks: NDArray[np.int64], time_base: Fraction, rate: Fraction
) -> NDArray[np.int64]:
    product = time_base * rate
    largest = int(np.abs(ticks).max()) * product.numerator + product.denominator
    if largest >= 1 << 61:
        return np.array([round_to_slot(int(t), time_base, rate) for t in ticks], np.int64)
    doubled = 2 * np.abs(ticks) * product.numerator + product.denominator
    return np.asarray(np.sign(ticks) * (doubled // (2 * product.denominator)), np.int64)


def number_of_slots(first: int, end: int, time_base: Fraction, rate: Fraction) -> int:
    """How many slots the frames from `first` to `end` ticks fill."""
    return max(0, round_to_slot(end, time_base, rate) - round_to_slot(first, time_base, rate))


def equidistant(num_frames: int, max_frames: int | None) -> NDArray[np.int64] | None:
    """int64 [max_frames], the frames to keep, ascending; None when all are kept.

    The integers of linspace(0, num_frames, max_frames, endpoint=False) (JSFusion, CT-SAN).
    """
    if max_frames is None or num_frames <= max_frames:
        return None
    # Integer arithmetic gives the floor exactly; linspace's floats can fall just below.
    return np.arange(max_frames, dtype=np.int64) * num_frames // max_frames
