"""Checkpoints of other people's programs: tensors come out, and nothing of the file runs."""

import os
import sys
import types
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from vlpipe.models.published_files import read_state_dict
from vlpipe.stores.errors import UsageError


class Part(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.rnn = nn.LSTM(4, 5, batch_first=True, bidirectional=True)
        self.layers = nn.ModuleList([nn.Linear(2, 2, bias=False)])
        self.register_buffer("table", torch.arange(6.0).view(2, 3))
        self.activation = torch.relu


class Command:
    """Runs a command when it is unpickled by a reader that lets it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def whole_module(monkeypatch):
    """A module of a class that only its authors' program has."""
    made = Part()
    program = types.ModuleType("authors_program")
    program.Network = type("Network", (Part,), {"__module__": "authors_program"})
    monkeypatch.setitem(sys.modules, "authors_program", program)
    made.__class__ = program.Network
    return made


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_gives_its_tensors_without_its_class(
    whole_module, tmp_path, monkeypatch, is_zip
):
    path = tmp_path / "Count_4.00.pth"
    torch.save(nn.DataParallel(whole_module), path, _use_new_zipfile_serialization=is_zip)
    monkeypatch.delitem(sys.modules, "authors_program")
    wanted = whole_module.state_dict()
    found = read_state_dict(path)
    assert set(found) == set(wanted)
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_file_never_runs(tmp_path, is_zip):
    path, mark = tmp_path / "x.pth", tmp_path / "it_ran"
    torch.save(
        {"state_dict": {"w": torch.ones(2)}, "x": Command(mark)},
        path,
        _use_new_zipfile_serialization=is_zip,
    )
    assert read_state_dict(path)["w"].tolist() == [1, 1]
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"this is none", b"junk", b"abc", b"\x80\x02]q\x00.", b"PK\x03\x04 broken zip"],
    ids=["empty", "text", "word", "letters", "a list", "zip"],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content):
    path = tmp_path / "some.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"some\.pth"):
        read_state_dict(path)


@given(st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_kind_are_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "some.pth"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about versions that the bytes spell
        with pytest.raises(UsageError, match=r"some\.pth"):
            read_state_dict(path)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "cut.pth"
    torch.save({"w": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cut"):
        read_state_dict(path)


def test_a_missing_file_and_a_broken_safetensors_are_usage_errors(tmp_path):
    with pytest.raises(UsageError, match="there is no checkpoint"):
        read_state_dict(tmp_path / "absent.pth")
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(UsageError, match="broken"):
        read_state_dict(path)
