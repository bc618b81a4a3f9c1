"""Comparing the files of one part with what the ledger says about it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores import zarr_metadata
from vlpipe.stores.errors import StoreDamaged, VlpipeError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.generation import VideoRow
from vlpipe.stores.layout import NODE_FILE, array_file
from vlpipe.stores.part import Part
from vlpipe.stores.part_reader import ArrayName, PartReader
from vlpipe.stores.row_file import BASE, RowFileShape
from vlpipe.stores.small_array import decode_numbers, decode_texts
from vlpipe.stores.storage import Storage


class PartVerifier:
    """Problems of one part, as sentences; its row files exist and have their sizes."""

    def __init__(self, storage: Storage, definition: FeatureDefinition, part: Part) -> None:
        self._storage = storage
        self._definition = definition
        self._part = part
        self._reader = PartReader(storage, lambda part: StoreDamaged(f"{part.folder} is missing"))

    def metadata_problems(self) -> Iterator[str]:
        """Every zarr.json is a function of the ledger, so they are made again and compared."""
        part = self._part
        if not part.is_plain or not part.is_folder:
            return
        nodes = part_nodes(self._definition, part)
        for name, expected in nodes.items():
            try:
                is_same = json.loads(self._storage.read(name)) == expected
            except (OSError, ValueError):
                is_same = False
            if not is_same:
                yield f"{self._storage.url}/{name} is not the metadata of its array or group"

    def small_array_problems(self, videos: Mapping[str, VideoRow]) -> Iterator[str]:
        """Checksums of the small arrays, and whether they say the same as the manifest."""
        if not self._part.is_folder:
            return
        try:
            stored = self._stored_videos()
        except (VlpipeError, OSError) as error:
            yield str(error)
            return
        for video_id, row in videos.items():
            if stored.get(video_id) != (row.row_start, row.row_size, row.crc32c, row.spans_crc32c):
                yield f"{self._part.folder}: the small arrays differ for video {video_id!r}"

    def frame_problems(self) -> Iterator[str]:
        """What lies around the rows: NumPy header, padding and shard index."""
        part = self._part
        if not part.is_plain or not part.is_folder:
            return
        for name, shape in (
            (part.rows_file, part.rows_shape),
            (part.spans_file, part.spans_shape),
        ):
            if shape.num_rows:
                yield from self._frame_problems(name, shape)

    def video_problems(self, videos: Mapping[str, VideoRow]) -> Iterator[tuple[str, str]]:
        """Videos whose rows or spans do not have their checksum, in the order of the file."""
        part = self._part
        for video_id, row in sorted(videos.items(), key=lambda item: item[1].row_start):
            checks: tuple[tuple[ArrayName, int], ...] = (
                ("rows", row.crc32c),
                ("spans", row.spans_crc32c),
            )
            for array, expected in checks:
                where = f"{self._storage.url}: {array} of video {video_id!r} in {part.folder}"
                try:
                    found = self._reader.crc32c(array, part, row.row_start, row.row_size, video_id)
                except VlpipeError as error:
                    yield video_id, error.message
                    continue
                if found != expected:
                    yield (
                        video_id,
                        f"{where} have the checksum {found:08x}, expected {expected:08x}",
                    )

    def past_problems(self, videos: Mapping[str, VideoRow]) -> Iterator[str]:
        """Damage to rows that are not live any more, but may be at older versions."""
        if not self._part.is_folder:
            return
        try:
            stored = self._stored_videos()
        except (VlpipeError, OSError):
            return  # small_array_problems says so
        for video_id, (start, size, *expected) in stored.items():
            if video_id in videos:
                continue
            checks: tuple[tuple[ArrayName, int], ...] = (
                ("rows", expected[0]),
                ("spans", expected[1]),
            )
            for array, crc in checks:
                try:
                    is_same = self._reader.crc32c(array, self._part, start, size, video_id) == crc
                except VlpipeError:
                    is_same = False
                if not is_same:
                    yield (
                        f"{self._storage.url}: {array} of video {video_id!r} in "
                        f"{self._part.folder} are damaged; only older versions of the store have it"
                    )

    def _stored_videos(self) -> dict[str, tuple[int, ...]]:
        """What the part says of itself: id to row_start, row_size and both checksums."""
        ids = self._texts("video_id")
        columns = [
            self._numbers(name, dtype).tolist()
            for name, dtype in list(zarr_metadata.SMALL_ARRAYS.items())[1:]
        ]
        if {len(ids), *map(len, columns)} != {self._part.num_videos}:
            raise StoreDamaged(
                f"{self._storage.url}/{self._part.folder}: the small arrays do not have "
                f"{self._part.num_videos} values"
            )
        return dict(zip(ids, zip(*columns, strict=True), strict=True))

    def _frame_problems(self, name: str, shape: RowFileShape) -> Iterator[str]:
        file = self._storage.open(name)
        end_of_rows = BASE + shape.num_rows * shape.row_bytes
        for what, start, expected in (
            ("header", 0, shape.header()),
            ("padding", end_of_rows, bytes(shape.padding_bytes)),
            ("shard index", end_of_rows + shape.padding_bytes, shape.index()),
        ):
            found = np.empty(len(expected), np.uint8)
            try:
                is_same = (
                    file.read_into(start, found) == len(expected) and found.tobytes() == expected
                )
            except OSError:
                is_same = False
            if not is_same:
                yield f"{self._storage.url}/{name}: the {what} is not what was written"

    def _texts(self, array: str) -> list[str]:
        name = array_file(self._part.folder, array, 1)
        return decode_texts(self._storage.read(name), f"{self._storage.url}/{name}")

    def _numbers(self, array: str, dtype: str) -> npt.NDArray[Any]:
        name = array_file(self._part.folder, array, 1)
        return decode_numbers(self._storage.read(name), dtype, f"{self._storage.url}/{name}")


def part_nodes(definition: FeatureDefinition, part: Part) -> dict[str, zarr_metadata.Json]:
    """Every zarr.json of a plain part, by name, as the ledger implies it."""
    arrays = zarr_metadata.part_arrays(
        definition, part.rows_shape, part.spans_shape, part.num_videos
    )
    nodes = {f"{part.folder}/{name}/{NODE_FILE}": node for name, node in arrays.items()}
    nodes[f"{part.folder}/{NODE_FILE}"] = zarr_metadata.part_group(definition, part.id, arrays)
    return nodes
