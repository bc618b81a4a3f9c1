"""Where a video belongs, by the hash of its id: in a range of hashes, whatever other videos are.

Shards and batches are both such ranges, so a job that is shared in 2, 4, 8, ... shards is cut into
the batches that it would be cut into as a whole.
"""

import hashlib

HASH_BITS = 64


def hash_of(video_id: str) -> int:
    """A number of 64 bits, the same on every machine and for ever."""
    return int.from_bytes(hashlib.blake2b(video_id.encode(), digest_size=8).digest(), "big")


def parse_shard(text: str) -> tuple[int, int]:
    """`2/8` as (2, 8); ValueError if it is no such thing."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise ValueError(f"shard {text!r}: expected k/n with k from 1 to n, as 3/16")
    return int(number), int(count)


def shard_of(video_id: str, count: int) -> int:
    """Which of `count` shards the video is in, 1 to `count`."""
    return (hash_of(video_id) * count >> HASH_BITS) + 1
