"""Pickles of arrays are read, those of Python 2 too, and nothing that they ask for is run."""

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.weights.foreign.array_pickle import read_array_pickle
from vlpipe.extractors.weights.foreign.read_variables import read_variables

ARRAYS = {
    "conv1_w": np.arange(12, dtype=np.float32).reshape(2, 3, 2) - 3.5,
    "turned": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">f8"),
    "half": np.array([1.5, -2], np.float16),
    "count": np.array([7], np.int64),
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
}


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        values = np.asarray(values)
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype.newbyteorder("=")
        assert found[name].shape == values.shape


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("wrapper", [None, "blobs", "model"])
def test_arrays_of_every_protocol_are_read(tmp_path, protocol, wrapper):
    content = ARRAYS if wrapper is None else {wrapper: ARRAYS, "__author__": "Caffe2"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol))
    found, skipped = read_array_pickle(tmp_path / "w.pkl")
    assert_equal(found, ARRAYS)
    assert skipped == {}


def test_what_is_no_array_is_named(tmp_path):
    content = {"w": np.ones(2), "cfg": "text", "lr": 0.1}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content))
    found, skipped = read_array_pickle(tmp_path / "w.pkl")
    assert set(found) == {"w"}
    assert skipped == {"cfg": "a str, not an array", "lr": "a float, not an array"}


def python2_array(array, write_text):
    """The opcodes with which Python 2 writes an array: its bytes are text, its module the old."""
    names = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt"
    code, order = array.dtype.str[1:], array.dtype.str[:1]
    dtype = b"cnumpy\ndtype\n(" + write_text(code.encode()) + b"I0\nI1\ntR"
    dtype += b"(I3\n" + write_text(order.encode()) + b"NNNI-1\nI-1\nI0\ntb"
    shape = b"(" + b"".join(b"L%dL\n" % n for n in array.shape) + b"t"
    return (
        names + write_text(b"b") + b"tR(I1\n" + shape + dtype + b"I0\n"
        + write_text(array.tobytes()) + b"tb"
    )  # fmt: skip


def as_quoted(text):  # protocol 0
    return b"S" + repr(text)[1:].encode() + b"\n"


def as_binary(text):  # protocols 1 and 2
    return b"T" + struct.pack("<i", len(text)) + text


@pytest.mark.parametrize("write_text", [as_quoted, as_binary])
def test_pickles_of_python_2_are_read(tmp_path, write_text):
    values = np.frombuffer(bytes(range(256)) * 3, np.float32).reshape(8, 24).view(np.int32)
    content = b"(d" + write_text(b"blobs") + b"(d"
    for name in (b"conv1_w", b"conv1_b"):
        content += write_text(name) + python2_array(values, write_text) + b"s"
    (tmp_path / "w.pkl").write_bytes(content + b"s.")
    found = read_variables(tmp_path / "w.pkl")
    assert found.format == "pickle of arrays"
    assert_equal(found.variables, {"conv1_w": values, "conv1_b": values})


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["value", "key", "whole"])
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol, place):
    mark = tmp_path / "was_run"
    evil = Calls(os.mkdir, str(mark))
    content = {"value": {"w": evil}, "key": {"blobs": {"w": np.ones(1)}, "x": evil}, "whole": evil}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content[place], protocol))
    with pytest.raises(WeightsRejected, match=r"posix\.mkdir.*could run code") as caught:
        read_variables(tmp_path / "w.pkl")
    assert str(tmp_path / "w.pkl") in caught.value.message
    assert not mark.exists()


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, np.load, torch.load])
def test_other_functions_are_refused(tmp_path, function):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": Calls(function, "x")}))
    with pytest.raises(WeightsRejected, match=function.__name__):
        read_array_pickle(tmp_path / "w.pkl")


class Lies:
    """Pickles to the opcodes of an array with the given type, state and bytes."""

    def __init__(self, code, shape, data, order="<"):
        self.parts = code, shape, data, order

    def __reduce__(self):
        code, shape, data, order = self.parts
        return (
            np.ndarray(0).__reduce__()[0],
            (np.ndarray, (0,), b"b"),
            (1, shape, LyingType(code, order), False, data),
        )


class LyingType:
    def __init__(self, code, order):
        self.parts = code, order

    def __reduce__(self):
        code, order = self.parts
        return np.dtype, (code, False, True), (3, order, None, None, None, -1, -1, 0)


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        (Lies("O8", (2,), b"\0" * 16), "'O8'"),  # addresses instead of objects
        (Lies("V8", (1,), b"\0" * 8), "'V8'"),
        (Lies("f4", (3,), b"\0" * 8), "has 8 bytes"),
        (Lies("f4", (1 << 60,), b"\0" * 8), "has 8 bytes"),
        (Lies("f4", (-1, -2), b"\0" * 8), "has 8 bytes"),
        (Lies("f4", (1,), [1.0]), "dtype and list"),
        (Lies("f4", (1 << 40,), 1 << 42), "dtype and int"),
        (Lies("f4", "ab", b""), "shape"),
        (Lies("f4", (1,), b"\0" * 4, "!"), "byte order"),
    ],
)
def test_an_array_must_be_what_it_says(tmp_path, lie, word):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"w": lie}))
    with pytest.raises(WeightsRejected, match=word):
        read_array_pickle(tmp_path / "w.pkl")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        b"\x80\x02]r\xff\xff\xff\x7f.",  # one place of a memo, 2**31: 16 GB to CPython's own reader
        b"\x80\x02cnumpy\nndarray\n}b.",  # state for a class
        b"\x80\x02cnumpy\ndtype\n(N}K\x01K\x01s\x86b.",
        b"\x80\x02c_codecs\nencode\n}b.",
        b"\x80\x02}}b.",
        b"\x80\x02K\x01.",
        b"\x80\x02P1\n.",  # an object of the outside
    ],
)
def test_other_bytes_are_refused(tmp_path, content):
    (tmp_path / "w.pkl").write_bytes(content)
    with pytest.raises(WeightsRejected, match=r"w\.pkl"):
        read_variables(tmp_path / "w.pkl")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_pickle_that_is_cut_off_is_refused(tmp_path, share):
    content = pickle.dumps(ARRAYS, 2)
    (tmp_path / "w.pkl").write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsRejected, match=r"w\.pkl"):
        read_variables(tmp_path / "w.pkl")


def test_torchs_own_pickles_are_told_apart(tmp_path):
    state = {"w": torch.arange(3.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    for is_zip in (True, False):
        torch.save({"state_dict": state}, tmp_path / "w.pth", _use_new_zipfile_serialization=is_zip)
        found = read_variables(tmp_path / "w.pth")
        assert found.format == "torch checkpoint"
        assert_equal(found.variables, {"w": np.arange(3.0, dtype="f4"), "b": np.ones(2, "f4")})
    torch.save({"w": np.arange(3.0)}, tmp_path / "arrays.pth")
    assert_equal(read_variables(tmp_path / "arrays.pth").variables, {"w": np.arange(3.0)})
