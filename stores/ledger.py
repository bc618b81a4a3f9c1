"""The ledger: numbered entries, each created only if absent, that together are the store.

An entry is two lines: a JSON object, and the CRC-32C of the first line. Creating entry N is the
one atomic act of a commit. Each entry names the one before it, so that a restored backup that went
another way is noticed.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from vlpipe.stores.checksum import crc32c_hex
from vlpipe.stores.errors import StoreDamaged, StoreTooNew, StoreUnwritable
from vlpipe.stores.layout import FORMAT_VERSION, LOG, entry_path, entry_version
from vlpipe.stores.storage import ReplyLost, Storage

Op = dict[str, Any]

_MAX_ATTEMPTS = (
    200  # with pauses of at most a second: some minutes of a storage that answers nothing
)


@dataclass(frozen=True)
class Entry:
    """One commit. `id` is new for each commit and the same for all its attempts."""

    version: int
    id: str
    prev: str | None
    time: str
    writer: dict[str, Any]
    batch: str | None
    ops: list[Op]

    def encode(self) -> bytes:
        value = {
            "format": FORMAT_VERSION,
            "version": self.version,
            "id": self.id,
            "prev": self.prev,
            "time": self.time,
            "writer": self.writer,
            "batch": self.batch,
            "ops": self.ops,
        }
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        data = line.encode()
        return data + b'\n{"crc32c":"' + crc32c_hex(data).encode() + b'"}\n'

    @classmethod
    def decode(cls, data: bytes, where: str, version: int) -> "Entry":
        """The entry; StoreDamaged or StoreTooNew name `where`."""
        line, _, tail = data.partition(b"\n")
        if tail != b'{"crc32c":"' + crc32c_hex(line).encode() + b'"}\n':
            raise StoreDamaged(
                f"{where}: the checksum of the ledger entry does not match",
                hint="copy this file from a backup of the store",
            )
        value = json.loads(line)
        if value["format"] > FORMAT_VERSION:
            raise StoreTooNew(
                f"{where} has format {value['format']}, this vlpipe knows {FORMAT_VERSION}"
            )
        if value["version"] != version:
            raise StoreDamaged(f"{where} says that it is entry {value['version']}")
        return cls(
            version=version,
            id=value["id"],
            prev=value["prev"],
            time=value["time"],
            writer=value["writer"],
            batch=value["batch"],
            ops=value["ops"],
        )


class Ledger:
    """The entries of a store."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, version: int) -> Entry | None:
        """Entry `version`, or None when there is none."""
        name = entry_path(version)
        try:
            data = self._storage.read(name)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreDamaged(f"{self._where(version)} cannot be read: {error}") from error
        return Entry.decode(data, self._where(version), version)

    def versions(self) -> list[int]:
        """The versions of all entries that exist, in order, gaps included."""
        names = self._storage.names(LOG)
        return sorted(v for v in map(entry_version, names) if v is not None)

    def follow(self, version: int, entry_id: str | None) -> Iterator[Entry]:
        """The entries after `version` up to the first that does not exist."""
        while (entry := self.read(version + 1)) is not None:
            self._check_chain(entry, entry_id)
            yield entry
            version, entry_id = entry.version, entry.id

    def entries(self, after: int, entry_id: str | None, until: int | None) -> Iterator[Entry]:
        """The entries after `after`, up to and with `until` or the newest.

        Raises StoreDamaged at a gap, after all entries before it. `entry_id` is that of entry
        `after`; None when it is not known.
        """
        newest = max(self.versions(), default=0)
        for version in range(after + 1, (newest if until is None else until) + 1):
            # Asked for by name: a listing made while entries appear can show N + 1 without N.
            entry = self.read(version)
            if entry is None:
                if version > newest:
                    return
                raise StoreDamaged(
                    f"{self._where(version)} is missing, but entry {newest} exists",
                    hint=f"copy it from a backup; version={version - 1} opens the state before it",
                )
            self._check_chain(entry, entry_id)
            yield entry
            entry_id = entry.id

    def append(self, entry: Entry) -> bool:
        """Whether the entry is now in the ledger; False when another has its number."""
        body = entry.encode()
        for attempt in range(_MAX_ATTEMPTS):
            is_created, is_known = False, True
            try:
                is_created = self._storage.create(entry_path(entry.version), body)
            except ReplyLost:
                is_known = False
            if is_created:
                return True
            # Its id tells whose the entry is: a reply can be lost, here or in a client below us
            # that then repeats the request and is told that the name exists.
            found = self.read(entry.version)
            if found is not None:
                return found.id == entry.id
            if is_known:
                return False  # another's, and not visible yet
            pause(attempt)  # nothing was written: the very same bytes may be sent again
        raise StoreUnwritable(
            f"{self._where(entry.version)} cannot be written: no reply to {_MAX_ATTEMPTS} attempts"
        )

    def _check_chain(self, entry: Entry, previous_id: str | None) -> None:
        if previous_id is not None and entry.prev != previous_id:
            raise StoreDamaged(
                f"{self._where(entry.version)} follows entry {entry.prev}, but the one before it "
                f"is {previous_id}: files of two histories of this store are mixed",
                hint="restore log/ as a whole from one backup",
            )

    def _where(self, version: int) -> str:
        return f"{self._storage.url}/{entry_path(version)}"


def pause(attempt: int, sleep: Callable[[float], None] = time.sleep) -> None:
    """Waits a random time, longer with each attempt: 5 ms doubled, at most a second."""
    sleep(random.uniform(0, min(0.005 * 2 ** min(attempt, 10), 1.0)))
