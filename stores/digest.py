"""A digest of what a feature holds, whatever way it came into the store."""

import hashlib
import struct
from collections.abc import Iterable

from vlpipe.stores.generation import GenerationState

_NUMBERS = struct.Struct("<QII")


def content_digest(generation: GenerationState, ids: Iterable[str] | None = None) -> str:
    """SHA-256 (hex) over all videos, or those of `ids` that there are, sorted by the UTF-8 of
    their ids.

    Of each: length of the id (u32), id, number of rows (u64), CRC-32C of rows and of spans (u32
    each), all little endian. Equal content has equal digests, whatever the parts and the order of
    commits.
    """
    result = hashlib.sha256()
    if ids is None:
        rows = generation.rows()
    else:
        wanted = list(dict.fromkeys(ids))
        found = zip(wanted, generation.find_many(wanted), strict=True)
        rows = ((video_id, row) for video_id, row in found if row is not None)
    for video_id, row in sorted(
        ((video_id.encode(), row) for video_id, row in rows), key=lambda item: item[0]
    ):
        result.update(struct.pack("<I", len(video_id)))
        result.update(video_id)
        result.update(_NUMBERS.pack(row.row_size, row.crc32c, row.spans_crc32c))
    return result.hexdigest()
