"""TensorFlow checkpoints without TensorFlow: variables by name, every checksum compared.

V2 is `NAME.index`, a table of where each variable lies, and `NAME.data-00000-of-00001`, their bytes
(I3D's files). V1 is one table that holds the values too (VGGish's `vggish_model.ckpt`). Messages:
`tensorflow/core/protobuf/tensor_bundle.proto`, `tensorflow/core/util/saved_tensor_slice.proto`.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.weights.foreign.protobuf_wire import Field, read_fields
from vlpipe.extractors.weights.foreign.tensorflow_table import has_checksum, read_table

Array = npt.NDArray[np.generic]

_BFLOAT16 = 14
_DTYPES = {
    1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 19: "<f2",
    _BFLOAT16: "<u2",
}  # fmt: skip

# Of V1's TensorProto: the fields that hold real numbers, by dtype.
_V1_VALUES = {1: (5, "<f4"), 2: (6, "<f8")}


@dataclass
class TensorflowVariables:
    """arrays: by name. skipped: names of what holds no numbers, with the reason. files: read."""

    files: list[Path]
    arrays: dict[str, Array] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def find_index(path: Path) -> Path:
    """The file that is read first, for a checkpoint's prefix or either of its files."""
    prefix = re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", path.name)
    index = path.with_name(f"{prefix}.index")
    return index if index.is_file() else path


def read_checkpoint(index: Path) -> TensorflowVariables:
    """The variables of a V1 file or of a V2 index.

    Raises WeightsRejected where bytes are damaged or of another kind, WeightsMissing where the
    file of V2's data is absent.
    """
    try:
        return _read_either(index)
    except (ValueError, TypeError, LookupError, ArithmeticError, struct.error, OSError) as error:
        raise WeightsRejected(
            f"{index}: not a sound TensorFlow checkpoint: {error}", hint="get the file again"
        ) from error


def _read_either(index: Path) -> TensorflowVariables:
    entries = read_table(index)
    first, header = next(entries, (None, memoryview(b"")))
    if first != b"":
        raise ValueError("the table has no header of a checkpoint")
    # Field 1 of V2's header is the number of data files, of V1's a message.
    is_v2 = isinstance(_fields(header).get(1, [b""])[0], int)
    return _read_v2(index, header, entries) if is_v2 else _read_v1(index, header, entries)


def _read_v2(
    index: Path, header: memoryview, entries: Iterator[tuple[bytes, memoryview]]
) -> TensorflowVariables:
    facts = _fields(header)
    num_shards = _number(facts, 1)
    if _number(facts, 2):
        raise ValueError("its numbers are big-endian")
    prefix = index.name.removesuffix(".index")
    shards = [
        index.with_name(f"{prefix}.data-{k:05d}-of-{num_shards:05d}") for k in range(num_shards)
    ]
    for shard in shards:
        if not shard.is_file():
            raise WeightsMissing(f"{shard}: the values that belong to {index} are not there")
    found = TensorflowVariables([index, *shards])
    for key, value in entries:
        name, entry = key.decode(), _fields(value)
        dtype, shape = _number(entry, 1), _shape(entry)
        if 7 in entry:
            raise ValueError(f"variable {name} is stored in parts, which is not supported")
        if dtype not in _DTYPES:
            found.skipped[name] = f"no numbers (TensorFlow type {dtype})"
            continue
        offset, size = _number(entry, 4), _number(entry, 5)
        expected = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
        if size != expected:
            raise ValueError(f"variable {name} {shape} has {size} bytes instead of {expected}")
        shard_id = _number(entry, 3)
        if shard_id >= num_shards:
            raise ValueError(f"variable {name} lies in data file {shard_id} of {num_shards}")
        shard = shards[shard_id]
        if offset + size > shard.stat().st_size:
            raise ValueError(f"variable {name}: {shard.name} is cut off")
        with shard.open("rb") as file:
            file.seek(offset)
            data = file.read(size)
        (masked,) = struct.unpack("<I", _bytes(entry, 6))
        if not has_checksum(memoryview(data), masked):
            raise ValueError(f"variable {name}: the checksum is not that of its bytes")
        array = np.frombuffer(data, _DTYPES[dtype])
        if dtype == _BFLOAT16:
            array = (array.astype(np.uint32) << 16).view(np.float32)
        found.arrays[name] = array.reshape(shape)
    return found


def _read_v1(
    path: Path, header: memoryview, entries: Iterator[tuple[bytes, memoryview]]
) -> TensorflowVariables:
    found = TensorflowVariables([path])
    declared: dict[str, tuple[int, tuple[int, ...]]] = {}
    for tensor in _fields(_message(_fields(header), 1)).get(1, []):
        facts = _fields(tensor)
        name, dtype = _text(facts, 1), _number(facts, 3)
        if len(facts.get(4, [])) > 1:
            raise ValueError(f"variable {name} is stored in parts, which is not supported")
        if dtype in _V1_VALUES:
            declared[name] = dtype, _shape(facts)
        else:
            found.skipped[name] = f"no real numbers (TensorFlow type {dtype})"
    for _, value in entries:
        slice_ = _fields(_message(_fields(value), 2))
        name = _text(slice_, 1)
        if name not in declared:
            continue
        # The tensor beside the values leaves out what the header says of it.
        dtype, shape = declared[name]
        numbers, dtype_name = _V1_VALUES[dtype]
        values = np.frombuffer(_bytes(_fields(_message(slice_, 3)), numbers), dtype_name)
        if values.size != math.prod(shape):
            raise ValueError(f"variable {name} {shape} has {values.size} values")
        found.arrays[name] = values.reshape(shape)
    absent = [name for name in declared if name not in found.arrays]
    if absent:
        raise ValueError(f"the values of {', '.join(absent[:4])} are not there")
    return found


def _fields(message: Field) -> dict[int, list[Field]]:
    if isinstance(message, int):
        raise TypeError("a number stands where a message is expected")
    fields: dict[int, list[Field]] = {}
    for number, value in read_fields(message):
        fields.setdefault(number, []).append(value)
    return fields


def _number(fields: dict[int, list[Field]], number: int) -> int:
    # A field of value 0 is left out.
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise TypeError("a message stands where a number is expected")
    return value


def _bytes(fields: dict[int, list[Field]], number: int) -> memoryview:
    value = fields.get(number, [memoryview(b"")])[-1]
    if isinstance(value, int):
        raise TypeError("a number stands where bytes are expected")
    return value


_message = _bytes


def _text(fields: dict[int, list[Field]], number: int) -> str:
    return bytes(_bytes(fields, number)).decode()


def _shape(fields: dict[int, list[Field]]) -> tuple[int, ...]:
    """Field 2, a TensorShapeProto."""
    dimensions = _fields(_bytes(fields, 2)).get(2, [])
    return tuple(_number(_fields(dimension), 1) for dimension in dimensions)
