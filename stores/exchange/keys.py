"""Names of videos in the store and in files of others: tables, prefixes, or the same in both.

TGIF-QA names feature rows by the integer `key` of its question tables, MSVD-QA by `vid` and a
number, while a store names videos by their media files.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlpipe.stores.datasets._tables import read_strict
from vlpipe.stores.errors import UsageError
from vlpipe.stores.features import canonical_json


@dataclass(frozen=True)
class KeyTable:
    """A one-to-one table of video ids and keys. Empty: a key is the id of the video.

    prefix: stands before every key in the files.
    """

    keys: dict[str, str] | None = None
    prefix: str = ""

    def __post_init__(self) -> None:
        ids: dict[str, str] = {}
        for video_id, key in (self.keys or {}).items():
            if ids.setdefault(key, video_id) != video_id:
                raise UsageError(
                    f"key {key!r} stands for two videos: {ids[key]!r} and {video_id!r}",
                    hint="a table of keys must be one-to-one",
                )
        object.__setattr__(self, "_ids", ids)

    def key(self, video_id: str) -> str | None:
        """The key of a video in the files, or None if the table does not have it."""
        key = video_id if self.keys is None else self.keys.get(video_id)
        return None if key is None else self.prefix + key

    def video_id(self, key: str) -> str | None:
        """The video of a key, or None if there is none."""
        if not key.startswith(self.prefix):
            return None
        key = key[len(self.prefix) :]
        ids: dict[str, str] = self._ids  # type: ignore[attr-defined]
        return key if self.keys is None else ids.get(key)

    @property
    def digest(self) -> str | None:
        """SHA-256 of the table; None when keys are ids."""
        if self.keys is None and not self.prefix:
            return None
        pairs = sorted((self.keys or {}).items())
        return hashlib.sha256(canonical_json([self.prefix, pairs]).encode()).hexdigest()


def read_key_tables(
    paths: Iterable[Path], id_column: str = "gif_name", key_column: str = "key", prefix: str = ""
) -> KeyTable:
    """One table from several files: tab-separated with a header, or commas where it ends in .csv
    and has no tab in its header.

    The defaults are the columns of TGIF-QA's question tables. Rows may repeat; a video with two
    keys, or a key of two videos, is a UsageError that names them. AnnotationError as `read_table`.
    """
    keys: dict[str, str] = {}
    for path in paths:
        for video_id, key in read_strict(path, (id_column, key_column), delimiter=_delimiter(path)):
            if keys.setdefault(video_id, key) != key:
                raise UsageError(
                    f"{path}: video {video_id!r} has the keys {keys[video_id]!r} and {key!r}",
                    hint="a table of keys must be one-to-one",
                )
    return KeyTable(keys, prefix)


def unknown_keys(table: KeyTable, keys: Sequence[str]) -> list[str]:
    """The keys of files that stand for no video."""
    return [key for key in keys if table.video_id(key) is None]


def _delimiter(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            header = stream.readline(1 << 16)
    except OSError:
        return "\t"  # the reader of tables says what is wrong
    return "\t" if b"\t" in header or b"," not in header else ","
