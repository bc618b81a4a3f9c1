"""What a file is, before any decoder sees it: regular, readable, not empty, its first bytes."""

import os
import stat
from pathlib import Path

from vlpipe.extractors.errors import MediaError

_HEAD_BYTES = 4096
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_IMAGES = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"BM": "a BMP image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
}


def check_file(path: Path) -> tuple[int, bytes]:
    """(size in bytes, first bytes) of a regular file that can be read and is not empty.

    Raises MediaError: `missing`, `unreadable` (also folders, pipes, devices), `empty`.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(
            "missing", f"{path}: no such file", hint="check the path and the dataset's folder"
        ) from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe or a device may block for ever or never end.
        raise MediaError(
            "unreadable",
            f"{path}: is {_type_name(status.st_mode)}; expected a regular file",
            hint="give the path of one media file",
        )
    if status.st_size == 0:
        raise MediaError(
            "empty", f"{path}: the file is empty (0 bytes)", hint="fetch the file again"
        )
    try:
        with path.open("rb") as file:
            return status.st_size, file.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None


def refuse_by_content(path: Path, head: bytes) -> None:
    """Raises MediaError when the first bytes are known not to be those of a media file."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"#extm3u", b"ffconcat", b"<?xml", b"[playlist]", b"<mpd", b"<smil")) or (
        b"<html" in text or text.startswith((b"<!doctype html", b"<head", b"<body"))
    ):
        if b"html" in text[:512] and not text.startswith((b"#extm3u", b"ffconcat")):
            raise MediaError(
                "not_media",
                f"{path}: looks like an HTML page (an error page of a web server?); expected a "
                f"{path.suffix.lstrip('.') or 'media'} file",
                hint="fetch the file again and look at the server's answer",
            )
        raise format_refused(path, "a playlist or script that names other files")
    if not head.strip(b"\0") and len(head) >= 16:
        raise MediaError(
            "not_media",
            f"{path}: begins with {len(head)} zero bytes; expected a media file",
            hint="the download or copy was probably interrupted; fetch the file again",
        )
    for magic, name in _IMAGES.items():
        if head.startswith(magic):
            raise not_media(path, f"is {name}")


def is_known_media(head: bytes) -> bool:
    """Whether the first bytes are those of a container that is read here."""
    return (
        head[4:8] in _MP4_BOXES
        or head.startswith((b"\x1a\x45\xdf\xa3", b"GIF87a", b"GIF89a", b"FLV\x01", b"OggS"))
        or head.startswith((b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"fLaC", b"ID3"))
        or (head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"WAVE"))
        or head.startswith(b"\x00\x00\x01\xba")
    )


def not_media(path: Path, found: str) -> MediaError:
    """The error for a file that is something else."""
    return MediaError(
        "not_media",
        f"{path}: {found}; expected a video, GIF or audio file",
        hint="check that the dataset lists the right file, or fetch it again",
    )


def format_refused(path: Path, found: str) -> MediaError:
    """The error for a format that is not read here, on purpose."""
    return MediaError(
        "format_refused",
        f"{path}: {found}; expected a self-contained container such as mp4, webm, mkv, avi, gif",
        hint="convert the file to mp4 if you trust it",
    )


def _unreadable(path: Path, error: OSError | ValueError) -> MediaError:
    reason = getattr(error, "strerror", None) or str(error)
    return MediaError(
        "unreadable",
        f"{path}: cannot be read: {reason}",
        hint="check the permissions of the file and its folders",
    )


def _type_name(mode: int) -> str:
    names = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return names.get(stat.S_IFMT(mode), "not a regular file")


def media_path(path: str | os.PathLike[str]) -> Path:
    """The path made absolute, so that no part of it can be read as an option or a protocol."""
    return Path(os.path.abspath(os.fspath(path)))  # noqa: PTH100  (keeps links, unlike resolve)
