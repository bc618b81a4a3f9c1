"""Checkpoint files of papers' own code as plain state dicts; nothing in them is ever executed.

Read are safetensors, files of `torch.save` that hold tensors and plain containers (by torch's own
`weights_only` reader), and files of `torch.save` that hold a whole module object, which is how
MASN's authors published theirs. Those name classes of the authors' program. Here every class and
function that they name becomes an inert stand-in that keeps the state it is given and does
nothing; tensors alone are made real, and their entries are found by walking the stand-ins.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from vlpipe.stores.errors import UsageError

# torch.serialization: the number and the protocol at the start of files of torch before 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MOST_PICKLE_BYTES = 256 * 2**20
_CONTAINERS = ("state_dict", "model_state_dict", "model", "net")

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Entry -> tensor on the CPU, without the `module.` prefix of data-parallel training.

    Raises UsageError when there is no such file, or no tensors in it that can be read safely.
    """
    if not path.is_file():
        raise UsageError(f"there is no checkpoint {path}", hint="give the file's path")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            found = _read_torch(path)
        state = _state_of(found)
    except (OSError, ValueError, LookupError, EOFError, RuntimeError, TypeError) as error:
        raise _unreadable(path, error) from error
    except (MemoryError, OverflowError) as error:  # a length that the bytes happen to spell
        raise _unreadable(path, error) from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, struct.error, AttributeError) as error:
        raise _unreadable(path, error) from error
    except Exception as error:
        if type(error).__module__.startswith("safetensors"):
            raise _unreadable(path, error) from error
        raise
    return without_parallel_prefix(state)


def without_parallel_prefix(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The same entries as tensors; `module.`, if all have it, is taken off their names."""
    prefix = "module."
    cut = len(prefix) if state and all(key.startswith(prefix) for key in state) else 0
    return {key[cut:]: torch.as_tensor(value) for key, value in state.items()}


def fill(network: nn.Module, state: Mapping[str, Tensor], *, what: str) -> None:
    """Copies the entries into the network; UsageError names all that do not fit."""
    own = network.state_dict()
    missing = sorted(set(own) - set(state))
    unexpected = sorted(set(state) - set(own))
    misshapen = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in sorted(set(own) & set(state))
        if state[key].shape != own[key].shape
    ]
    problems = [
        f"{word}: {', '.join(keys[:5])}" + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
        for word, keys in (
            ("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen)
        )
        if keys
    ]  # fmt: skip
    if problems:
        raise UsageError(
            f"the checkpoint is not one of {what}: {'; '.join(problems)}",
            hint="check that model, task and settings are those of the checkpoint",
        )
    network.load_state_dict(dict(state))


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} cannot be read as a checkpoint: {type(error).__name__}: {error}",
        hint="expected a .safetensors file, or one of torch.save with a state dict or a module",
    )


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        with path.open("rb") as file:
            return _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)


def _state_of(found: object) -> dict[str, Tensor]:
    if isinstance(found, _Inert):
        state: dict[str, Tensor] = {}
        _walk(found, "", state)
        if not state:
            raise ValueError("it holds no tensors")
        return state
    if not isinstance(found, Mapping):
        raise TypeError(f"it holds a {type(found).__name__}")
    for name in _CONTAINERS:
        inner = found.get(name)
        if isinstance(inner, Mapping | _Inert):
            return _state_of(inner)
    state = {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise ValueError("it holds no tensors")
    return state


def _walk(module: "_Inert", prefix: str, state: dict[str, Tensor]) -> None:
    for kind in ("_parameters", "_buffers"):
        for name, value in _mapping(module.kept.get(kind)).items():
            if isinstance(value, Tensor):
                state[f"{prefix}{name}"] = value
    for name, inner in _mapping(module.kept.get("_modules")).items():
        if isinstance(inner, _Inert):
            _walk(inner, f"{prefix}{name}.", state)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


class _Inert:
    """Stands for an instance, or the result of a call, of whatever class a file names."""

    kept: dict[str, Any]

    def __new__(cls, *arguments: object, **named: object) -> "_Inert":
        del arguments, named
        made = super().__new__(cls)
        made.kept = {}
        return made

    def __init__(self, *arguments: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.kept.update(state)

    # Pickles fill subclasses of list, dict and set through these.
    def append(self, item: object) -> None:
        del item

    def extend(self, items: object) -> None:
        del items

    def add(self, item: object) -> None:
        del item

    def __setitem__(self, key: object, value: object) -> None:
        del key, value

    def __hash__(self) -> int:
        return id(self)


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: object
) -> Tensor:
    del rest
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _rebuild_parameter(data: Tensor, *rest: object) -> Tensor:
    del rest
    return data


class _Storages(pickle.Unpickler):
    """Makes tensors and ordered dicts; everything else that is named is `_Inert`."""

    def __init__(self, file: BinaryIO, *, limit_bytes: int) -> None:
        super().__init__(file)
        self._limit = limit_bytes
        self.buffers: dict[str, bytearray] = {}

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        return _Inert

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401
        if isinstance(pid, tuple) and pid and pid[0] == "module":
            return pid[1]  # the class, with the text of its source, which is ignored
        kind, dtype, key, _, size = pid[:5]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"an object of the kind {pid[:2]!r} is not a tensor")
        num_bytes = int(size) * dtype.itemsize
        buffer = self.buffers.get(key)
        if buffer is None:
            self._limit -= num_bytes
            if num_bytes < 0 or self._limit < 0:
                raise pickle.UnpicklingError("its tensors are larger than the file")
            buffer = self.buffers[key] = bytearray(num_bytes)
        return torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)


def _read_zip(file: BinaryIO) -> object:
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: info for info in archive.infolist()}
        roots = [name for name in members if name.endswith("/data.pkl")]
        if len(roots) != 1:
            raise ValueError("it is not a file of torch.save")
        folder = roots[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise ValueError("it is a TorchScript program, not a checkpoint")
        if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
            raise ValueError("it is compressed, which torch.save never does")
        if members[roots[0]].file_size > _MOST_PICKLE_BYTES:
            raise ValueError("its structure is unreasonably large")
        size = sum(info.file_size for info in members.values())
        unpickler = _Storages(io.BytesIO(archive.read(roots[0])), limit_bytes=size)
        found = unpickler.load()  # the restricted reader above
        for key, buffer in unpickler.buffers.items():
            data = archive.read(f"{folder}data/{key}")
            if len(data) != len(buffer):
                raise ValueError(f"tensor {key} has {len(data)} bytes, expected {len(buffer)}")
            buffer[:] = data
    return found


def _read_legacy(file: BinaryIO) -> object:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if _Storages(file, limit_bytes=0).load() != _LEGACY_MAGIC:
        raise ValueError("it is not a file of torch.save")
    if _Storages(file, limit_bytes=0).load() != _LEGACY_PROTOCOL:
        raise ValueError("it was written by an unknown version of torch")
    _Storages(file, limit_bytes=0).load()  # byte order and sizes of the machine
    unpickler = _Storages(file, limit_bytes=size)
    found = unpickler.load()
    for key in _Storages(file, limit_bytes=0).load():
        buffer = unpickler.buffers[key]
        (count,) = struct.unpack("<q", file.read(8))
        data = file.read(len(buffer))
        if len(data) != len(buffer) or count < 0:
            raise ValueError(f"tensor {key} is cut off")
        buffer[:] = data
    return found
