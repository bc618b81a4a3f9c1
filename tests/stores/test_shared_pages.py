"""Pages that are provided before they are written to."""

import ctypes
import mmap
import os

import pytest

from vlpipe.stores import shared_pages
from vlpipe.stores.errors import EnvironmentLacks
from vlpipe.stores.shared_pages import provide_pages

PAGES = 64


@pytest.fixture
def mapping(tmp_path):
    """A shared mapping of a file of 64 pages: its address and the file."""
    path = tmp_path / "pages"
    path.write_bytes(b"")
    os.truncate(path, PAGES * mmap.PAGESIZE)
    with path.open("r+b") as file:
        area = mmap.mmap(file.fileno(), PAGES * mmap.PAGESIZE)
    view = ctypes.c_char.from_buffer(area)
    yield ctypes.addressof(view), path
    del view
    area.close()


def are_in_memory(address):
    """Of each page, whether it is in memory."""
    found = (ctypes.c_ubyte * PAGES)()
    length = ctypes.c_size_t(PAGES * mmap.PAGESIZE)
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), length, found) == 0
    return [bool(byte & 1) for byte in found]


def test_all_pages_are_there_afterwards(mapping):
    address, _ = mapping
    assert not any(are_in_memory(address))
    # From within the first page to within the eleventh; the kernel may add those beside them.
    provide_pages(address + 64, 10 * mmap.PAGESIZE)
    assert all(are_in_memory(address)[:11])


def test_no_room_is_an_error_and_not_a_killed_process(mapping):
    address, path = mapping
    os.truncate(path, 0)
    with pytest.raises(EnvironmentLacks, match="no room for a batch of 8,192 bytes") as caught:
        provide_pages(address, 8192)
    assert "/dev/shm" in caught.value.hint


def test_a_system_that_cannot_is_left_alone(monkeypatch):
    monkeypatch.setattr(shared_pages, "_madvise", lambda: None)
    provide_pages(4096, 4096)
    monkeypatch.setattr(shared_pages, "_madvise", lambda: lambda *_: pytest.fail("was asked"))
    provide_pages(4096, 0)
