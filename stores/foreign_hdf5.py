"""HDF5 files that others wrote: opened so that they cannot lead to other files."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vlpipe.stores.errors import EnvironmentLacks, UsageError
from vlpipe.stores.foreign_arrays import ForeignArrayError, check_numbers

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_RATIO = 1000  # zeros deflate by about this much, nothing real does by more


def import_h5py() -> Any:  # noqa: ANN401 - a module without types
    """The library h5py; EnvironmentLacks when it is not installed."""
    try:
        return importlib.import_module("h5py")
    except ImportError as error:
        raise EnvironmentLacks(
            "HDF5 files need the library h5py, which is not installed",
            hint='pip install h5py, or pip install "vlpipe[all]"',
        ) from error


def is_hdf5(path: Path) -> bool:
    """Whether there is a file at the path that begins as HDF5 files do."""
    try:
        with path.open("rb") as file:
            return file.read(len(_SIGNATURE)) == _SIGNATURE
    except OSError:  # there is none, or a folder, or nothing that may be read
        return False


def open_foreign_hdf5(path: Path) -> Any:  # noqa: ANN401 - h5py.File
    """The file, open for reading; UsageError when it is none."""
    h5py = import_h5py()
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be opened as HDF5: {error}",
            hint="a file that was being written when its writer was killed cannot be read again",
        ) from error


def group_names(file: Any, path: str) -> list[str]:  # noqa: ANN401
    """The names in a group, sorted; none when there is no such group.

    Raises ForeignArrayError where the path leads through a link to another file.
    """
    group = _resolve(file, path)
    if group is None or not isinstance(group, import_h5py().Group):
        return []
    return sorted(group)


def has_dataset(file: Any, path: str) -> bool:  # noqa: ANN401
    """Whether there is a dataset at this path, without following links out of the file."""
    return isinstance(_resolve(file, path), import_h5py().Dataset)


def find_dataset(file: Any, path: str) -> Any:  # noqa: ANN401
    """The dataset at the path.

    Raises ForeignArrayError when there is none, when it is no array of numbers, or when a link,
    external storage or a virtual source leads out of this file: h5py would follow those silently.
    """
    found = _resolve(file, path)
    if not isinstance(found, import_h5py().Dataset):
        raise ForeignArrayError(f"{file.filename} has no dataset {path}")
    _check_dataset(file, path, found)
    return found


def _check_dataset(file: Any, path: str, found: Any) -> None:  # noqa: ANN401
    if found.external or found.is_virtual:
        raise ForeignArrayError(f"{file.filename}:{path} keeps its data in other files: refused")
    if found.shape is None or found.dtype.metadata:
        raise ForeignArrayError(f"{file.filename}:{path} is no array of numbers")
    check_numbers(found.dtype)
    stored = int(found.id.get_storage_size())
    if stored > Path(file.filename).stat().st_size or found.nbytes > _MAX_RATIO * (stored + 4096):
        raise ForeignArrayError(
            f"{file.filename}:{path} says {found.nbytes} bytes, but {stored} are stored"
        )


def read_dataset(file: Any, path: str) -> npt.NDArray[Any]:  # noqa: ANN401
    """The array of a dataset; ForeignArrayError as `find_dataset`, and for damage."""
    return _read(file, path, find_dataset(file, path))


def read_if_there(file: Any, path: str) -> npt.NDArray[Any] | None:  # noqa: ANN401
    """The array of a dataset, None when there is none; ForeignArrayError as `read_dataset`."""
    found = _resolve(file, path)
    if not isinstance(found, import_h5py().Dataset):
        return None
    _check_dataset(file, path, found)
    return _read(file, path, found)


def _read(file: Any, path: str, dataset: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    try:
        return np.asarray(dataset[...])
    except (OSError, RuntimeError, MemoryError) as error:
        raise ForeignArrayError(f"{file.filename}:{path} cannot be read: {error}") from None


def read_names(file: Any, path: str) -> list[str]:  # noqa: ANN401
    """Names (N,): text, or integers as decimal strings; ForeignArrayError if there are none."""
    h5py = import_h5py()
    if not has_dataset(file, path):
        raise ForeignArrayError(f"it has no dataset {path}")
    names = file[path]
    if names.external or names.is_virtual or names.ndim != 1:
        raise ForeignArrayError(f"{path} is no list of names in this file")
    if h5py.check_string_dtype(names.dtype) is not None:
        texts = _read(file, path, names)
        return [value.decode("utf-8", "backslashreplace") for value in texts]
    return [str(value) for value in read_dataset(file, path)]


def _resolve(file: Any, path: str) -> Any:  # noqa: ANN401
    """What stands at a path, or None; step by step, so that no external link is followed."""
    h5py = import_h5py()
    here: Any = file
    for name in (part for part in path.split("/") if part):
        if not isinstance(here, h5py.Group):
            return None
        try:
            link = here.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise ForeignArrayError(
                    f"{file.filename}:{path} is a link to the file {link.filename!r}: refused"
                )
            if isinstance(link, h5py.SoftLink):
                raise ForeignArrayError(f"{file.filename}:{path} is a soft link: refused")
            here = here[name]
        except KeyError:
            return None
        except (OSError, RuntimeError) as error:
            raise ForeignArrayError(f"{file.filename}:{path} cannot be read: {error}") from None
    return here
