"""Digests of files of others, and of sets of them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

_BLOCK_BYTES = 1 << 22

# stage, done, of how many
Progress = Callable[[str, int, int], None]


def no_progress(stage: str, done: int, total: int) -> None:
    """Reports to nobody."""
    del stage, done, total


def file_sha256(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """SHA-256 (hex) of a file, read in pieces; `on_bytes` hears how many were read."""
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()
