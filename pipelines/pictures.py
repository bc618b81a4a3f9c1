"""Small pictures for reports: arrays as heat maps, frames as strips, all as data addresses."""

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

# Nine points of matplotlib's viridis (public domain), dark to light; equal steps look equal, and
# they stay ordered in grey and for colour-blind readers.
_VIRIDIS = np.array(
    [
        (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
        (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
    ],
    np.float64,
)  # fmt: skip


def data_address(image: Image.Image, *, jpeg: bool = False) -> str:
    """The picture as a `data:` address for an HTML page that stands alone."""
    buffer = io.BytesIO()
    if jpeg:
        image.save(buffer, "JPEG", quality=80, optimize=True)
    else:
        image.save(buffer, "PNG", optimize=True)
    kind = "jpeg" if jpeg else "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def heat_map(values: npt.NDArray[np.floating]) -> Image.Image:
    """One pixel per entry of [H, W]: the 1st percentile is dark, the 99th light."""
    values = np.asarray(values, np.float64)
    low, high = np.percentile(values, [1, 99]) if values.size else (0.0, 1.0)
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    stops = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(scaled, stops, _VIRIDIS[:, c]) for c in range(3)]
    return Image.fromarray(np.stack(channels, -1).round().astype(np.uint8), "RGB")


def rows_over_time(rows: npt.NDArray[np.floating], *, most_channels: int = 96) -> Image.Image:
    """Rows [T, ...] as a picture with time to the right: the channels that vary most, sorted.

    Channels are ordered by when they peak, so that changes in the video show as steps.
    """
    flat = np.asarray(rows, np.float64).reshape(len(rows), -1)  # (T, D)
    chosen = np.argsort(-flat.std(0), kind="stable")[:most_channels]
    picked = flat[:, chosen]
    picked = (picked - picked.mean(0)) / np.maximum(picked.std(0), 1e-9)
    picked = picked[:, np.argsort(picked.argmax(0), kind="stable")]
    return heat_map(picked.T)


def similarity_matrix(rows: npt.NDArray[np.floating]) -> Image.Image:
    """Cosine similarity of every row of [T, ...] with every other, after removing the mean row."""
    flat = np.asarray(rows, np.float64).reshape(len(rows), -1)
    flat = flat - flat.mean(0)
    unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return heat_map(unit @ unit.T)


def strip(frames: Sequence[npt.NDArray[np.uint8]], *, height: int = 72) -> Image.Image:
    """Frames [H, W, 3] side by side at that height."""
    scaled = [
        Image.fromarray(f).resize((max(1, round(f.shape[1] * height / f.shape[0])), height))
        for f in frames
    ]
    gap = 2
    whole = Image.new("RGB", (sum(s.width + gap for s in scaled) - gap, height), "white")
    left = 0
    for image in scaled:
        whole.paste(image, (left, 0))
        left += image.width + gap
    return whole
