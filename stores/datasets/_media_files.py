"""Which media files lie below a folder. Links are followed, loops and hidden names are not."""

import os
from collections.abc import Iterator
from pathlib import Path

MEDIA_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv"}
    | {".ts", ".webm", ".wmv"}
)


def is_media_name(name: str) -> bool:
    """True for a file name with a known media extension, in any case of letters."""
    return os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES  # noqa: PTH122 - a name, not a path


def walk_media(folder: Path, unlisted: list[str]) -> Iterator[Path]:
    """Media files below a folder, sorted folder by folder, without names that start with a dot.

    Links are followed wherever they lead, because datasets are often assembled from links. A link
    that leads nowhere is yielded too: the folder names the file, and its absence should be seen.
    Folders that cannot be listed are added to `unlisted`, with the reason.
    """
    yield from _walk(folder, set(), unlisted)


def _walk(folder: Path, seen: set[tuple[int, int]], unlisted: list[str]) -> Iterator[Path]:
    try:
        status = folder.stat()
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        unlisted.append(f"{folder} cannot be listed: {error.strerror}")
        return
    identity = (status.st_dev, status.st_ino)
    if identity in seen:  # a second way to the same folder, possibly without end
        return
    seen.add(identity)
    folders = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            folders.append(folder / entry.name)
        elif is_media_name(entry.name) and _is_file_or_dead_link(entry):
            yield folder / entry.name
    for below in folders:
        yield from _walk(below, seen, unlisted)


# DirEntry answers from the listing itself, without a call to a possibly distant file system for
# each of tens of thousands of files; a link that leads to itself makes it raise.


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_file_or_dead_link(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return entry.is_symlink()


def same_file(paths: list[Path]) -> bool:
    """True if all paths lead to one file, as several links to it do."""
    return len({os.path.realpath(path) for path in paths}) == 1
