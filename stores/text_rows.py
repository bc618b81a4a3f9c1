"""Texts as rows of a feature: UTF-8, filled up with zero bytes to one width.

What holds words at rest, such as `speech_words`, so that plain zarr reads it:

    bytes(row).rstrip(b"\\0").decode()
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

WORD_BYTES = 64
"""Of a row that holds a word."""


def text_rows(texts: Iterable[str], width: int = WORD_BYTES) -> npt.NDArray[np.uint8]:
    """uint8 (N, width). A text with more bytes is cut behind its last whole letter; one that holds
    a zero byte is cut there."""
    packed = [_cut(text.partition("\0")[0].encode(errors="replace"), width) for text in texts]
    rows = np.zeros((len(packed), width), np.uint8)
    for row, content in zip(rows, packed, strict=True):
        row[: len(content)] = np.frombuffer(content, np.uint8)
    return rows


def texts_of_rows(rows: npt.NDArray[np.uint8]) -> list[str]:
    """The texts of rows (N, width)."""
    whole, width = np.ascontiguousarray(rows).tobytes(), rows.shape[1]
    parts = (whole[start : start + width] for start in range(0, len(whole), width))
    return [part.partition(b"\0")[0].decode(errors="replace") for part in parts]


def _cut(content: bytes, width: int) -> bytes:
    return content[:width].decode(errors="ignore").encode() if len(content) > width else content
