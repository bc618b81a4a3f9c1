"""What a trained network makes of each video alone, kept beside its run.

RUN/encoded-videos/{rows,length,state}.npy, ids.json and key.json; the key says of which weights and
which features they are, so that they are made again when either changes.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap

from vlpipe.models.pair_scores import Encoded
from vlpipe.models.tasks import Clip
from vlpipe.models.tasks.retrieval import RanksVideos
from vlpipe.pipelines.training.data import PreparedVideos
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.stores import FeatureStore

CHUNK = 32
_FOLDER = "encoded-videos"
_PARTS = ("rows", "length", "state")
_MOST_BYTES = 4 << 30  # of a folder that nobody asked for
Chunk = tuple[Sequence[str], Encoded]


def encode_videos(
    network: RanksVideos, videos: PreparedVideos, ids: Sequence[str], device: torch.device
) -> Iterator[Chunk]:
    """Ids and encodings of CHUNK videos at a time, on that device."""
    for start in range(0, len(ids), CHUNK):
        part = ids[start : start + CHUNK]
        prepared = [videos[Clip(video)] for video in part]
        inputs = {
            name: torch.stack([each[name] for each in prepared]).to(device)
            for name in ("video", "video_len")
        }
        with torch.inference_mode():
            yield part, network.encode_video(**inputs)


class EncodedVideos:
    """The encodings of the videos of a store by the best model of a run."""

    def __init__(self, run: RunFolder, store: FeatureStore, features: Sequence[str]) -> None:
        self._folder = run.path / _FOLDER
        digests = {feature: store.digest(feature) for feature in features}
        weights = hashlib.sha256(run.best.read_bytes()).hexdigest()
        self._key = {"weights": weights, "features": digests}

    def __call__(
        self, ids: Sequence[str], encode: Callable[[], Iterator[Chunk]], device: torch.device
    ) -> Iterator[Chunk]:
        """Chunk by chunk: read, where they are there, else what `encode` gives, which is written
        once all of it was taken."""
        if self._is_there(ids):
            yield from self._read(ids, device)
            return
        writer = _Writer(self._folder, len(ids))
        try:
            for part, encoded in encode():
                writer.add(encoded)
                yield part, encoded
            writer.finish({"key.json": self._key, "ids.json": list(ids)})
        finally:
            writer.close()

    def _is_there(self, ids: Sequence[str]) -> bool:
        try:
            key = json.loads((self._folder / "key.json").read_text(encoding="utf-8"))
            known = json.loads((self._folder / "ids.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(key == self._key and known == list(ids))

    def _read(self, ids: Sequence[str], device: torch.device) -> Iterator[Chunk]:
        arrays = [
            np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _PARTS
        ]
        for start in range(0, len(ids), CHUNK):
            parts = [torch.from_numpy(array[start : start + CHUNK].copy()) for array in arrays]
            yield ids[start : start + CHUNK], Encoded(*(part.to(device) for part in parts))


class _Writer:
    """Writes beside the folder's place and moves it there when all is written.

    A folder that cannot be written, and encodings that are too many, are not kept: the next search
    encodes again.
    """

    def __init__(self, folder: Path, num_videos: int) -> None:
        self._folder, self._num_videos = folder, num_videos
        self._partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        self._arrays: list[Any] = []
        self._done = 0
        try:
            self._partial.mkdir()
            self._is_active = True
        except OSError:
            self._is_active = False

    def add(self, encoded: Encoded) -> None:
        if not self._is_active:
            return
        values = [tensor.cpu().numpy() for tensor in encoded]
        if not self._done:
            per_video = sum(value.nbytes for value in values) // len(values[1])
            if per_video * self._num_videos > _MOST_BYTES:
                self._is_active = False
                return
            self._arrays = [
                open_memmap(
                    self._partial / f"{name}.npy",
                    mode="w+",
                    dtype=value.dtype,
                    shape=(self._num_videos, *value.shape[1:]),
                )
                for name, value in zip(_PARTS, values, strict=True)
            ]
        for array, value in zip(self._arrays, values, strict=True):
            array[self._done : self._done + len(value)] = value
        self._done += len(values[1])

    def finish(self, files: dict[str, Any]) -> None:
        if not self._is_active:
            return
        for array in self._arrays:
            array.flush()
        for name, value in files.items():
            (self._partial / name).write_text(json.dumps(value), encoding="utf-8")
        shutil.rmtree(self._folder, ignore_errors=True)
        self._partial.replace(self._folder)

    def close(self) -> None:
        self._arrays = []
        shutil.rmtree(self._partial, ignore_errors=True)
