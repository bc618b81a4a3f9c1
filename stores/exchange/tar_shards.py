"""WebDataset tars: `KEY.EXTENSION` members, an extension per feature."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from vlpipe.stores.errors import UsageError
from vlpipe.stores.exchange.container import Container, Sample, Source, SourceFile, require_path
from vlpipe.stores.exchange.layout import Slot
from vlpipe.stores.foreign_arrays import ForeignArrayError, read_npy, read_npz

_PICKLES = frozenset({"pyd", "pkl", "pickle", "pth", "pt", "joblib"})
_MAX_NAMED = 20
_MAX_MEMBER_BYTES = 2**33


class TarShards(Container):
    """Places are extensions, all that stands after the first dot of a name: `rgb.npy`, `npy`."""

    def check_place(self, slot: str, place: str) -> None:
        kind = place.rpartition(".")[2]
        if kind not in ("npy", "npz"):
            why = "pickles would run code" if kind in _PICKLES else "only arrays can be imported"
            raise UsageError(
                f"the place {place!r} of {slot!r} is not .npy or .npz: {why}",
                hint=f"for instance --place {slot}=rgb.npy",
            )

    def open(self, path: Path, slots: Sequence[Slot], raw_dtype: str | None) -> "TarSource":
        del raw_dtype
        return TarSource(path, slots)


class TarSource(Source):
    """The tars of a folder (not of those below), or one tar. Only their headers are read at first;
    nothing is ever unpacked to disk."""

    def __init__(self, path: Path, slots: Sequence[Slot]) -> None:
        require_path(path, "tar or folder of tars")
        tars = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not tars:
            raise UsageError(f"{path} has no *.tar", hint="compressed tars: unpack the compression")
        self.files = tuple(SourceFile(tar.name, tar) for tar in tars)
        self._extensions = {place: slot.name for slot in slots for place in slot.places}
        self._members: dict[str, dict[str, tuple[Path, int, int]]] = {}
        self._left_out: list[str] = []
        for tar in tars:
            self._list(tar)
        found = {slot for members in self._members.values() for slot in members}
        self.slots = tuple(slot for slot in slots if slot.name in found)
        more = len(self._left_out) - _MAX_NAMED
        tail = (f"and {more} more members",) if more > 0 else ()
        self.left_out = (*self._left_out[:_MAX_NAMED], *tail)

    def keys(self) -> list[str]:
        return sorted(self._members)

    def read(self, key: str) -> Sample:
        sample = Sample(key)
        for slot, (tar, offset, size) in self._members[key].items():
            try:
                with tar.open("rb") as stream:
                    stream.seek(offset)
                    data = stream.read(size)
                if len(data) != size:
                    raise ForeignArrayError(f"{len(data)} of {size} bytes are there")  # noqa: TRY301
                read = read_npz if data.startswith(b"PK") else None
                sample.rows[slot] = (
                    read_npy(io.BytesIO(data), size)
                    if read is None
                    else read(io.BytesIO(data), None)
                )
            except (ForeignArrayError, OSError, MemoryError) as error:
                sample.problems[slot] = f"{tar}, member of {key!r} at byte {offset}: {error}"
        return sample

    def _list(self, tar: Path) -> None:
        try:
            with tarfile.open(tar, "r:") as archive:
                for member in archive:
                    self._enter(tar, member)
        except (tarfile.TarError, OSError, EOFError) as error:
            if not any(tar == place[0] for m in self._members.values() for place in m.values()):
                raise UsageError(
                    f"{tar} cannot be read as an uncompressed tar: {error}",
                    hint="compressed tars: unpack the compression first",
                ) from error
            self._left_out.append(f"{tar}: the rest of a damaged tar: {error}")

    def _enter(self, tar: Path, member: tarfile.TarInfo) -> None:
        if member.isdir():
            return
        where = f"{tar.name}: {member.name[:200]!r}"
        path = PurePosixPath(member.name)
        if not member.isreg() or member.issparse() or path.is_absolute() or ".." in path.parts:
            self._left_out.append(f"{where}: not a plain file inside the tar")
            return
        stem, _, extension = path.name.partition(".")
        slot = self._extensions.get(extension)
        if slot is None:
            if extension.rpartition(".")[2] in _PICKLES:
                self._left_out.append(f"{where}: a pickle, which would run code")
            return
        key = str(path.parent / stem) if path.parent.parts else stem
        places = self._members.setdefault(key, {})
        if slot in places:
            self._left_out.append(f"{where}: a second {extension} of the same key")
        elif member.size > _MAX_MEMBER_BYTES:
            self._left_out.append(f"{where}: {member.size} bytes are too many for one video")
        else:
            places[slot] = (tar, member.offset_data, member.size)
