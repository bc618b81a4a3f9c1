"""TensorFlow's checkpoints are read without TensorFlow, and damage of any byte is noticed.

The files in `tensorflow_files` were written by the `Saver` of TensorFlow 2.21, in both versions of
its format, from the variables below.
"""

import shutil
import struct
from pathlib import Path

import google_crc32c
import numpy as np
import pytest

from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.weights.foreign.protobuf_wire import read_fields, read_varint
from vlpipe.extractors.weights.foreign.read_variables import read_variables

FILES = Path(__file__).parent / "tensorflow_files"
VARIABLES = {
    "net/conv/weights": np.arange(36, dtype=np.float32).reshape(3, 3, 1, 4) / 8,
    "net/conv/biases": np.array([1, -2, 3.5, 0], np.float32),
    "net/conv_1/weights": -np.arange(10, dtype=np.float32).reshape(2, 5) / 4,
    "net/scale": np.array(2.5),
}
V2_ONLY = {
    "global_step": np.array(1234),
    "net/half": np.array([1.5, -2], np.float16),
    "net/brain": np.array([1.5, -2], np.float32),
}
DATA = "v2.ckpt.data-00000-of-00001"


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


@pytest.fixture
def files(tmp_path):
    return Path(shutil.copytree(FILES, tmp_path / "files"))


@pytest.mark.parametrize("name", ["v2.ckpt", "v2.ckpt.index", DATA])
def test_v2_is_read_by_its_prefix_or_either_file(name):
    found = read_variables(FILES / name)
    assert_equal(found.variables, VARIABLES | V2_ONLY)
    assert list(found.skipped) == ["note"]
    assert set(found.sha256) == {"v2.ckpt.index", DATA}


def test_v1_is_read():
    found = read_variables(FILES / "v1.ckpt")
    assert_equal(found.variables, VARIABLES)
    assert list(found.skipped) == ["global_step"]
    assert set(found.sha256) == {"v1.ckpt"}


@pytest.mark.parametrize("name", ["v1.ckpt", "v2.ckpt.index", DATA])
def test_no_changed_byte_goes_unnoticed(files, name):
    path = files / name
    sound = path.read_bytes()
    # Of the footer, bytes between the places and the last eight are unused.
    end = len(sound) if name == DATA else len(sound) - 48
    unnoticed = []
    for at in range(end):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :])
        try:
            read_variables(path)
        except WeightsRejected:
            continue
        unnoticed.append(at)
    # A text holds no numbers: it is skipped with its length and checksum.
    text = sound.find(b"text")
    assert [at for at in unnoticed if not (name == DATA and text - 5 <= at < text + 4)] == []


@pytest.mark.parametrize("name", ["v1.ckpt", "v2.ckpt.index", DATA])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_is_cut_off_is_refused(files, name, share):
    path = files / name
    sound = path.read_bytes()
    path.write_bytes(sound[: int(share * len(sound))])
    with pytest.raises(WeightsRejected, match=str(files)):
        read_variables(path)


def test_the_message_says_what_is_damaged(files):
    data = bytearray((files / DATA).read_bytes())
    data[data.find(VARIABLES["net/conv/biases"].tobytes()) + 3] ^= 1
    (files / DATA).write_bytes(data)
    with pytest.raises(WeightsRejected, match=r"net/conv/biases: the checksum"):
        read_variables(files / "v2.ckpt")


def test_absent_values_are_missing_weights(files):
    (files / DATA).unlink()
    with pytest.raises(WeightsMissing, match=DATA):
        read_variables(files / "v2.ckpt")


def test_no_file_at_all_is_missing_weights(tmp_path):
    with pytest.raises(WeightsMissing, match=r"model\.ckpt"):
        read_variables(tmp_path / "model.ckpt")


def masked_crc(data):
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def write_table(path, entries, compression=0):
    """A table of one block whose checksums are right, whatever its entries say."""

    def block(pairs):
        body = b"".join(
            varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs
        ) + struct.pack("<II", 0, 1)
        tail = body + bytes([compression])
        return tail + struct.pack("<I", masked_crc(tail)), len(body)

    data, length = block(entries)
    index, index_length = block([(b"zz", varint(0) + varint(length))])
    # The metaindex is the index once more; it is not looked at.
    places = 2 * (varint(len(data)) + varint(index_length))
    magic = struct.pack("<Q", 0xDB4775248B80FB57)
    path.write_bytes(data + index + places.ljust(40, b"\0") + magic)


HEADER = b"\x08\x01"  # one data file


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        (b"\x08\x01\x12\x04\x12\x02\x08\x05\x28\x14", "cut off"),  # 20 bytes of 5 numbers
        (b"\x08\x01\x12\x04\x12\x02\x08\x05\x28\x08", "8 bytes instead of 20"),
        (b"\x08\x01\x18\x07\x12\x04\x12\x02\x08\x01\x28\x04", "data file 7 of 1"),
        (b"\x08\x01\x3a\x00", "in parts"),
        (b"\x08\x01\x12\x0c\x12\x0a\x08" + varint(1 << 62), "instead of"),
        (b"\x08", "cut off"),
        (b"\x0b", "wire type 3"),
        (b"\x08" + b"\xff" * 11, "64 bits"),
    ],
)
def test_entries_that_do_not_fit_are_refused_though_checksums_are_right(tmp_path, entry, word):
    write_table(tmp_path / "m.ckpt.index", [(b"", HEADER), (b"w", entry)])
    (tmp_path / "m.ckpt.data-00000-of-00001").write_bytes(b"\0" * 16)
    with pytest.raises(WeightsRejected, match=word):
        read_variables(tmp_path / "m.ckpt")


def test_compressed_and_big_endian_files_are_refused(tmp_path):
    write_table(tmp_path / "m.ckpt.index", [(b"", HEADER)], compression=1)
    with pytest.raises(WeightsRejected, match="compressed"):
        read_variables(tmp_path / "m.ckpt")
    write_table(tmp_path / "m.ckpt.index", [(b"", HEADER + b"\x10\x01")])
    with pytest.raises(WeightsRejected, match="big-endian"):
        read_variables(tmp_path / "m.ckpt")


def test_a_table_that_is_no_checkpoint_is_refused(tmp_path):
    write_table(tmp_path / "m.ldb", [(b"key", b"value")])
    with pytest.raises(WeightsRejected, match="no header"):
        read_variables(tmp_path / "m.ldb")


def test_wire_format_gives_fields_by_number():
    message = memoryview(b"\x08\x96\x01\x12\x02ab\x1d\x01\x00\x00\x00\x21" + b"\x02" + b"\0" * 7)
    fields = list(read_fields(message))
    assert [number for number, _ in fields] == [1, 2, 3, 4]
    assert fields[0][1] == 150
    assert bytes(fields[1][1]) == b"ab"
    assert read_varint(memoryview(b"\xac\x02"), 0) == (300, 2)
