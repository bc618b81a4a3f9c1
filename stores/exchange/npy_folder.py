"""Folders with files of each video: `.npy`, or `.npz` with an array of each feature."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import (
    Container,
    ExportPlan,
    Facts,
    Sample,
    Source,
    Target,
    check_within_folder,
    plain_name_problem,
    require_path,
)
from vlpipe.stores.exchange.fingerprints import file_sha256
from vlpipe.stores.exchange.hdf5_files import sync_file, unwritable
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.foreign_arrays import (
    ForeignArrayError,
    read_npy,
    read_npy_header,
    read_npz,
)

_KEY = "{key}"


class NpyFolder(Container):
    """Places are file names, with folders if need be: `vggish_npy/{key}.npy`. After `:` stands the
    name of an array in an `.npz`: `{key}.npz:rgb`."""

    has_file_per_video = True

    def check_key(self, key: str) -> str | None:
        if key.startswith(".tmp-"):
            return f"the key {key!r} begins like a temporary file"
        return plain_name_problem(key)

    def check_place(self, slot: str, place: str) -> None:
        super().check_place(slot, place)
        file = place.partition(":")[0]
        if Path(file).suffix not in (".npy", ".npz") or file.count(_KEY) != 1:
            raise UsageError(
                f"the place {place!r} of {slot!r} does not name .npy or .npz files",
                hint=f"for instance --place '{slot}={_KEY}_{slot}.npy'",
            )
        check_within_folder(slot, place, file)

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "NpyFolderSource":
        del raw_dtype
        return NpyFolderSource(path, slots)

    def create(self, plan: ExportPlan) -> "NpyFolderTarget":
        for slot in plan.slots:
            if not slot.places[0].endswith(".npy"):
                raise UsageError(f"{slot.places[0]!r}: only .npy files are exported")
        return NpyFolderTarget(plan)


class NpyFolderSource(Source):
    """The files of a folder and of those below it, sorted out by the names that slots give."""

    def __init__(self, folder: Path, slots: Sequence[Slot]) -> None:
        require_path(folder, "folder")
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder", hint="--from the folder of the .npy files")
        self._root = folder.resolve()
        self._files: dict[str, dict[str, tuple[Path, str | None]]] = {}
        left_out = []
        patterns = _patterns(slots)
        for path in sorted(self._root.rglob("*.np[yz]")):
            relative = path.relative_to(self._root).as_posix()
            if not path.resolve().is_relative_to(self._root) or not path.is_file():
                left_out.append(f"{relative}: leads out of {folder}")
                continue
            for pattern, slot, member in patterns:
                matched = pattern.fullmatch(relative)
                if matched:
                    places = self._files.setdefault(matched["key"], {})
                    if slot in places and places[slot][0] != path:
                        left_out.append(f"{relative}: a second file of {slot} of the same video")
                    else:
                        places[slot] = (path, member)
                    if member is None:
                        break
        self.left_out = tuple(left_out)
        found = {slot for places in self._files.values() for slot in places}
        self.slots = tuple(slot for slot in slots if slot.name in found)

    def keys(self) -> list[str]:
        return sorted(self._files)

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        for slot, (path, member) in self._files[key].items():
            try:
                with path.open("rb") as stream:
                    if path.suffix == ".npz":
                        sample.rows[slot] = read_npz(stream, member)
                    else:
                        sample.rows[slot] = read_npy(stream, path.stat().st_size)
                facts = self.facts(key, slot)
                sample.facts[slot] = Facts(
                    source=file_sha256(path),
                    source_size=facts.source_size,
                    source_mtime_ns=facts.source_mtime_ns,
                )
            except (ForeignArrayError, OSError, MemoryError) as error:
                sample.problems[slot] = f"{path}: {error}"
        return sample

    def facts(self, key: str, slot: str) -> Facts:
        place = self._files[key].get(slot)
        if place is None:
            return Facts()
        found = place[0].stat()
        return Facts(source_size=found.st_size, source_mtime_ns=found.st_mtime_ns)


class NpyFolderTarget(Target):
    """Each file is whole when it has its name, so that an interrupted export goes on."""

    def __init__(self, plan: ExportPlan) -> None:
        self._plan = plan
        self._places = {slot.name: slot.places[0] for slot in plan.slots}
        self._written: list[Path] = []

    def has(self, key: str, slot: str) -> bool:
        path = self._path(key, slot)
        shape = (self._plan.num_rows[slot][key], *self._plan.row_shapes[slot])
        expected = np.dtype(self._plan.dtypes[slot]).itemsize * int(np.prod(shape))
        try:
            with path.open("rb") as stream:
                found, is_fortran, dtype = read_npy_header(stream)
                is_whole = path.stat().st_size == stream.tell() + expected
        except (OSError, ForeignArrayError):
            return False
        return (
            is_whole
            and not is_fortran
            and (found, dtype.name)
            == (
                shape,
                self._plan.dtypes[slot],
            )
        )

    def add(
        self,
        key: str,
        slot: str,
        rows: npt.NDArray[Any],
        spans: npt.NDArray[np.float64],
        facts: Facts,
    ) -> None:
        del spans, facts
        path = self._path(key, slot)
        temporary = path.with_name(f".tmp-{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                np.lib.format.write_array(stream, rows, version=(1, 0), allow_pickle=False)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise unwritable(path, error) from error

    def finish(self) -> list[Path]:
        folders = {(self._plan.folder / place).parent for place in self._places.values()}
        for folder in folders:
            if folder.is_dir():
                sync_file(folder)
        return sorted(folders)

    def _path(self, key: str, slot: str) -> Path:
        return self._plan.folder / self._places[slot].replace(_KEY, key)


def _patterns(slots: Sequence[Slot]) -> list[tuple[re.Pattern[str], str, str | None]]:
    """What file names of each slot look like, those that say most about a name first: `a_rgb.npy`
    is a file of `{key}_rgb.npy` and not of `{key}.npy`, where both are asked for."""
    found = []
    for slot in slots:
        for place in slot.places:
            file, _, member = place.partition(":")
            before, after = file.split(_KEY)
            folders = "" if before else "(?:.*/)?"
            pattern = re.compile(f"{folders}{re.escape(before)}(?P<key>[^/]+){re.escape(after)}")
            found.append((len(file), pattern, slot.name, member or None))
    found.sort(key=lambda entry: -entry[0])
    return [(pattern, slot, member) for _, pattern, slot, member in found]
