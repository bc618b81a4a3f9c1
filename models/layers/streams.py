"""Rows of sound and picture side by side: which are real, and which belong to an event."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

PADDED_ROW = 1.0
"""What rows of padding hold in the published code: the id of the word for padding."""


class Streams(NamedTuple):
    """audio: (B, Sa, A). video: (B, Sv, V). audio_mask, video_mask: bool (B, S), True where a row
    is real."""

    audio: Tensor
    video: Tensor
    audio_mask: Tensor
    video_mask: Tensor


def real_rows(rows: Tensor, length: Tensor | None) -> Tensor:
    """bool (B, S) of rows (B, S, C), True up to each length (B,). Without lengths a row counts as
    padding where its first channel is exactly 1, as in the published code."""
    if length is None:
        return rows[..., 0] != PADDED_ROW
    return torch.arange(rows.shape[1], device=rows.device) < length[:, None]


def padded(rows: Tensor, mask: Tensor, num_rows: int) -> tuple[Tensor, Tensor]:
    """Rows (B, S, C) and their mask (B, S) with max(S, num_rows) rows, padding holding 1."""
    more = max(0, num_rows - rows.shape[1])
    rows = torch.where(mask[..., None], rows, PADDED_ROW)
    if more:
        rows = torch.cat([rows, rows.new_full((len(rows), more, rows.shape[2]), PADDED_ROW)], 1)
        mask = torch.cat([mask, mask.new_zeros(len(mask), more)], dim=1)
    return rows, mask


def rows_of_events(
    rows: Tensor, mask: Tensor, events: Tensor, duration_s: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows of each event and their mask: (N, longest, C) and bool (N, longest).

    rows: (B, S, C), real ones first; mask: bool (B, S). events: float (N, 3), item, start and end
    in seconds. duration_s: float (B,). An event has the share of a video's rows that it has of its
    duration, at least one row (BMT).
    """
    item = events[:, 0].long()
    count = mask.sum(dim=1)[item].clamp_min(1)  # (N,)
    shares = events[:, 1:].double() / duration_s[item].double()[:, None]
    first, end = (count[:, None] * shares).long().clamp_min(0).unbind(dim=1)
    first = torch.minimum(first, count - 1)
    end = torch.maximum(torch.minimum(end, count), first + 1)
    places = first[:, None] + torch.arange(int((end - first).max()), device=rows.device)
    inside = places < end[:, None]
    return rows[item[:, None], places.clamp_max(rows.shape[1] - 1)], inside


def windows_of(
    streams: Streams, video_step_s: Tensor, audio_step_s: Tensor, window_s: float
) -> Iterator[tuple[float, Streams]]:
    """The parts of long videos: (start in seconds, streams of up to window_s from there on), each
    half a window after the one before, until the longest ends. Of a video that ended before, its
    last rows. video_step_s, audio_step_s: (B,), seconds from row to row."""
    spans_s = [
        mask.sum(dim=1) * step_s.double()
        for mask, step_s in (
            (streams.audio_mask, audio_step_s),
            (streams.video_mask, video_step_s),
        )
    ]
    item = torch.arange(len(streams.video), device=streams.video.device).double()
    start_s, longest_s = 0.0, float(spans_s[1].max())
    while True:
        edges = torch.full_like(item, start_s), torch.full_like(item, start_s + window_s)
        window = torch.stack([item, *edges], dim=1)  # (B, 3)
        audio, audio_mask = rows_of_events(streams.audio, streams.audio_mask, window, spans_s[0])
        video, video_mask = rows_of_events(streams.video, streams.video_mask, window, spans_s[1])
        yield start_s, Streams(audio, video, audio_mask, video_mask)
        if start_s + window_s >= longest_s:
            return
        start_s += window_s / 2


def row_stride_s(features: Features) -> float | None:
    """Seconds from the start of a row to that of the next, the median; of one row, what it spans;
    None without rows."""
    spans: npt.NDArray[np.float64] = features.spans
    if len(spans) > 1:
        return float(np.median(np.diff(spans[:, 0])))
    return float(spans[0, 1] - spans[0, 0]) if len(spans) else None


def stream_widths(row_shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The settings `video_width` and, with sound, `audio_width`, by the slots rgb, flow and audio,
    whose rows are read flat. Raises UsageError where flow cannot be added to rgb."""
    widths = {slot: math.prod(shape) for slot, shape in row_shapes.items()}
    if widths.get("flow", widths["rgb"]) != widths["rgb"]:
        raise UsageError(
            f"rows of flow are added to those of rgb, and have {widths['flow']} numbers instead of "
            f"{widths['rgb']}",
            hint="--set features.flow=NAME takes another feature, features.flow=none leaves it out",
        )
    found = {"video_width": widths["rgb"]}
    return found | ({"audio_width": widths["audio"]} if "audio" in widths else {})


def rows_or_zero(
    features: Features | None, width: int, window_s: tuple[float, float] | None
) -> Tensor:
    """float32 (T, width), the rows that overlap the window; a row of zeros if there is none, as in
    the published code."""
    if features is None:
        return torch.zeros(1, width)
    rows = torch.from_numpy(np.asarray(features.rows, np.float32)).flatten(1)
    if window_s is not None:
        start_s, end_s = window_s
        inside = (features.spans[:, 1] > start_s) & (features.spans[:, 0] < end_s)
        rows = rows[torch.from_numpy(inside)]
    return rows if len(rows) else torch.zeros(1, width)
