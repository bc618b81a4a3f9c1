"""The blocks of a GIF file, walked without decoding, to see whether the file is whole."""

import mmap
from dataclasses import dataclass
from pathlib import Path

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


@dataclass(frozen=True, slots=True)
class GifStructure:
    """num_images: complete images; is_cut: ends inside a block; has_trailer: ends as it should."""

    num_images: int
    is_cut: bool
    has_trailer: bool


def read_gif_structure(path: Path) -> GifStructure:
    """The number of complete images of a GIF and how the file ends."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _walk(data)


def _walk(data: mmap.mmap) -> GifStructure:
    images = 0
    try:
        at = 13 + _color_table_bytes(data[10])
        while at < len(data):
            kind = data[at]
            if kind == _TRAILER:
                return GifStructure(images, is_cut=False, has_trailer=True)
            if kind == _IMAGE:
                # Descriptor of 10 bytes, local colours, LZW code size, data.
                at = _skip_sub_blocks(data, at + 11 + _color_table_bytes(data[at + 9]))
                images += 1
            elif kind == _EXTENSION:
                at = _skip_sub_blocks(data, at + 2)
            else:
                # Some writers pad between blocks; decoders skip to the next block.
                at += 1
    except IndexError:
        return GifStructure(images, is_cut=True, has_trailer=False)
    return GifStructure(images, is_cut=at > len(data), has_trailer=False)


def _color_table_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip_sub_blocks(data: mmap.mmap, at: int) -> int:
    while size := data[at]:
        at += size + 1
    return at + 1
