"""LMDB: a value per video and feature, as npy, npz or raw numbers."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlpipe.stores.errors import EnvironmentLacks, UsageError
from vlpipe.stores.exchange.container import Container, Sample, Source, SourceFile, require_path
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.foreign_arrays import ForeignArrayError, read_value

_KEY = "{key}"


class LmdbValues(Container):
    """Places are keys of the database, `{key}` or with something around it: `rgb/{key}`."""

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "LmdbSource":
        return LmdbSource(path, slots, raw_dtype)


class LmdbSource(Source):
    """An environment, opened without its lock file, so that a read-only copy will do."""

    def __init__(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> None:
        require_path(path, "LMDB environment")
        self._lmdb = _import_lmdb()
        self._raw_dtype = raw_dtype
        data = path / "data.mdb" if path.is_dir() else path
        try:
            self._environment = self._lmdb.open(
                str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False
            )
        except (self._lmdb.Error, OSError) as error:
            raise UsageError(f"{path} cannot be opened as LMDB: {error}") from error
        self._check_size(data)
        self.files = (SourceFile(path.name, data),)
        self._names: dict[str, dict[str, bytes]] = {}
        found = set()
        left_out = 0
        patterns = _patterns(slots)
        with self._environment.begin() as transaction:
            for name in transaction.cursor().iternext(keys=True, values=False):
                text = name.decode("utf-8", "backslashreplace")
                for slot, pattern in patterns:
                    matched = pattern.fullmatch(text)
                    if matched:
                        self._names.setdefault(matched["key"], {})[slot] = name
                        found.add(slot)
                        break
                else:
                    left_out += 1
        self.slots = tuple(slot for slot in slots if slot.name in found)
        self._shapes = {slot.name: slot.row_shape for slot in slots}
        if left_out:
            self.left_out = (f"{left_out} keys that are of no slot",)

    def _check_size(self, data: Path) -> None:
        """What lies behind the end of a mapped file ends the process when it is touched."""
        last_page = self._environment.info()["last_pgno"]
        expected = (last_page + 1) * self._environment.stat()["psize"]
        found = data.stat().st_size
        if found < expected:
            self._environment.close()
            raise UsageError(
                f"{data} has {found} bytes, expected {expected}: it was cut off",
                hint="copy it again; where it is the original, mdb_copy -c makes a whole one",
            )

    def keys(self) -> list[str]:
        return sorted(self._names)

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        for slot, name in self._names[key].items():
            try:
                with self._environment.begin() as transaction:
                    data = bytes(transaction.get(name) or b"")
                sample.rows[slot] = read_value(data, self._raw_dtype, self._shapes[slot])
            except (ForeignArrayError, self._lmdb.Error) as error:
                sample.problems[slot] = f"{self.files[0].path}, key {name!r}: {error}"
        return sample

    def close(self) -> None:
        self._environment.close()


def _patterns(slots: Sequence[Slot]) -> list[tuple[str, re.Pattern[str]]]:
    """The longest first, so that `rgb/{key}` is asked before `{key}`."""
    places = sorted(
        ((place, slot.name) for slot in slots for place in slot.places),
        key=lambda entry: -len(entry[0]),
    )
    return [
        (slot, re.compile("(?P<key>.+)".join(re.escape(part) for part in place.split(_KEY, 1))))
        for place, slot in places
    ]


def _import_lmdb() -> Any:  # noqa: ANN401 - a library that need not be there
    try:
        return importlib.import_module("lmdb")
    except ImportError as error:
        raise EnvironmentLacks(
            "LMDB needs the library lmdb, which is not installed",
            hint='pip install lmdb, or pip install "vlpipe[all]"',
        ) from error
