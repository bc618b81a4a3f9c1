"""Names and paths inside a store, and what may be a name.

    vlpipe-store.json            made last at creation: this folder is a store
    log/<20 digits>.json         ledger entries, from 1 without gaps
    log/oldest.json              where they begin since collection removed older ones
    ckpt/<20 digits>/            the state folded up to that entry
    refs/tags/, refs/pins/       versions that must be kept
    data/<feature>/<generation>/<part>/<array>/c.0.0

Video ids never appear in a path, so any text is a valid id.
"""

import re
import secrets
from datetime import UTC, datetime

from vlpipe.stores.errors import UsageError

FORMAT_NAME = "vlpipe-store"
FORMAT_VERSION = 1  # newest format that this code reads and writes

STORE_FILE = "vlpipe-store.json"
LOG = "log"
OLDEST_ENTRY = "log/oldest.json"
CHECKPOINTS = "ckpt"
LATEST_CHECKPOINT = "ckpt/latest.json"
CHECKPOINT_FILE = "checkpoint.json"
TAGS = "refs/tags"
PINS = "refs/pins"
DATA = "data"
NODE_FILE = "zarr.json"
TEMPORARY_PREFIX = ".tmp-"  # leftovers of killed writers; ignored by readers

RETENTION_S = 7 * 24 * 3600.0  # old versions stay readable so long
TARGET_BYTES = 2**30  # of the parts that compaction makes

MAX_VIDEO_ID_BYTES = 1024
_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"\d{20}")
_BATCH = re.compile(r"[0-9a-f]{16}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def entry_path(version: int) -> str:
    return f"{LOG}/{version:020d}.json"


def entry_version(name: str) -> int | None:
    """The version in a file name of `log/`, or None for a file that is not an entry."""
    stem, _, suffix = name.partition(".")
    return int(stem) if suffix == "json" and _NUMBER.fullmatch(stem) else None


def checkpoint_folder(version: int) -> str:
    return f"{CHECKPOINTS}/{version:020d}"


def checkpoint_version(name: str) -> int | None:
    return int(name) if _NUMBER.fullmatch(name) else None


def generation_folder(feature: str, generation: str) -> str:
    return f"{DATA}/{feature}/{generation}"


def part_folder(feature: str, generation: str, part_id: str) -> str:
    return f"{DATA}/{feature}/{generation}/{part_id}"


def array_file(folder: str, array: str, num_axes: int) -> str:
    """Path of the only chunk (or shard) of an array: `c.0` for one axis, `c.0.0` for two."""
    return f"{folder}/{array}/c{'.0' * num_axes}"


def new_part_id(batch: str) -> str:
    """A folder name that nobody else can have: the batch, then 64 random bits."""
    return f"{batch}-{secrets.token_hex(8)}"


def new_batch_id() -> str:
    return secrets.token_hex(8)


def new_temporary_name() -> str:
    return f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def now_utc() -> str:
    """The time of this machine, for people to read; no rule of the store depends on it."""
    return format_utc(datetime.now(UTC))


def format_utc(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_utc(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def check_video_id(video_id: str) -> str:
    """The id itself, if it may be one: 1 to 1,024 bytes of UTF-8 without control characters.

    Raises ValueError for other texts, TypeError for what is none.
    """
    if not isinstance(video_id, str):
        raise TypeError(f"a video id is text, found {video_id!r}")
    if video_id.isascii() and video_id.isprintable() and 1 <= len(video_id) <= MAX_VIDEO_ID_BYTES:
        return video_id  # the usual case, first
    try:
        num_bytes = len(video_id.encode())
    except UnicodeEncodeError as error:
        raise ValueError(f"video id {video_id!r} is not valid Unicode") from error
    if not 1 <= num_bytes <= MAX_VIDEO_ID_BYTES:
        raise ValueError(
            f"video id {video_id[:60]!r} has {num_bytes} bytes of UTF-8, expected 1 to "
            f"{MAX_VIDEO_ID_BYTES}"
        )
    if _CONTROL_CHARACTERS.search(video_id):
        raise ValueError(f"video id {video_id!r} has a control character")
    return video_id


def check_batch_id(batch: str) -> str:
    if not _BATCH.fullmatch(batch):
        raise ValueError(f"batch id {batch!r} is not valid, expected 16 hex digits")
    return batch


def check_tag(name: str) -> str:
    """The name itself, if a tag or a pin may have it; UsageError if not."""
    if not _TAG.fullmatch(name):
        raise UsageError(
            f"the name {name!r} of a tag or a run is not valid: 1 to 100 letters, digits, dots, "
            "dashes and underscores, a letter or digit first"
        )
    return name
