"""A digest of what a feature holds, whatever way it came into the store."""

import hashlib
import struct

from vlpipe.stores.generation import GenerationState

_NUMBERS = struct.Struct("<QII")


def content_digest(generation: GenerationState) -> str:
    """SHA-256 (hex) over all videos, sorted by the UTF-8 of their ids.

    Of each: length of the id (u32), id, number of rows (u64), CRC-32C of rows and of spans (u32
    each), all little endian. Equal content has equal digests, whatever the parts and the order of
    commits.
    """
    result = hashlib.sha256()
    for video_id, row in sorted(
        ((video_id.encode(), row) for video_id, row in generation.rows()), key=lambda item: item[0]
    ):
        result.update(struct.pack("<I", len(video_id)))
        result.update(video_id)
        result.update(_NUMBERS.pack(row.row_size, row.crc32c, row.spans_crc32c))
    return result.hexdigest()
