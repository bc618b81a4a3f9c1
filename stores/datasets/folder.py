"""Any media files, without annotations: the ids are the file names."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from vlpipe.stores.datasets._ids import id_problem, printable, shown_id
from vlpipe.stores.datasets._media_files import same_file, walk_media
from vlpipe.stores.datasets._registry import Dataset, DatasetCheck, Video, register_dataset
from vlpipe.stores.errors import UsageError


@register_dataset("folder")
class FolderDataset(Dataset):
    """Media files below one or several paths.

    The id is the path relative to the given folder, without the extension, with "/" between its
    parts ("day1/clip7"); for a file that was named itself it is the file's name without extension.
    """

    description = "Any media files below a folder; ids are file names, there are no annotations."
    homepage = "your own files"
    terms = "those of your files"
    splits = ()

    def __init__(self, root: Path | str) -> None:
        super().__init__(root)
        self._paths = [self.root]

    @classmethod
    def from_paths(cls, paths: Sequence[Path | str]) -> Self:
        """A dataset of the named files and of the media below the named folders.

        A named file is taken whatever its extension: the user means it.
        """
        if not paths:
            raise UsageError("no file or folder was named")
        resolved = [Path(path).expanduser().absolute() for path in paths]
        for path in resolved:
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                raise UsageError(f"no such file or folder: {path}") from None
            except OSError as error:
                raise UsageError(f"{path} cannot be looked at: {error.strerror}") from error
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise UsageError(f"neither a file nor a folder: {path}")
        dataset = cls.__new__(cls)
        dataset.root = resolved[0] if resolved[0].is_dir() else resolved[0].parent
        dataset._paths = resolved
        return dataset

    def videos(self, split: str | None = None) -> list[Video]:
        self._require_split(split)
        files: dict[str, list[Path]] = {}
        unlisted: list[str] = []
        for text, path in self._named_files(unlisted):
            files.setdefault(text, []).append(path)
        self.left_out = tuple(unlisted)
        return [_video(text, paths) for text, paths in files.items()]

    def check(self) -> DatasetCheck:
        videos = self.videos()
        usable = [video for video in videos if video.problem is None]
        return DatasetCheck(
            dataset=self.name,
            root=self.root,
            tables=(),
            media_named=len(videos),
            media_present=sum(video.path is not None for video in usable),
            missing=tuple(video.id for video in usable if video.path is None),
            unnamed=(),
            unusable=tuple(video for video in videos if video.problem is not None),
            bad_rows=(),
        )

    def _named_files(self, unlisted: list[str]) -> Iterator[tuple[str, Path]]:
        for given in self._paths:
            if given.is_dir():
                # Texts and not paths: this is done for each of perhaps a million files.
                num_above = len(os.path.join(given, ""))  # noqa: PTH118
                for path in walk_media(given, unlisted):
                    below = os.path.splitext(str(path)[num_above:])[0]  # noqa: PTH122
                    yield below.replace(os.sep, "/"), path
            else:
                yield given.stem, given


def _video(text: str, paths: list[Path]) -> Video:
    reason = id_problem(text, may_have_folders=True)
    if reason is not None:
        return Video(
            shown_id(text), paths[0], None, f"{reason}: {printable(str(paths[0]))}", "bad_id"
        )
    if len(paths) > 1 and not same_file(paths):
        named = " and ".join(str(path) for path in paths)
        reason = (
            f"{len(paths)} files have the id {text!r}: {named}; "
            "rename all but one, or give the folder above them"
        )
        return Video(text, None, None, reason, "duplicate_id")
    path = paths[0]
    return Video(text, path if path.exists() else None, None)
