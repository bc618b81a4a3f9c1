"""Any media files, without annotations: the ids are the file names."""

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
            if not path.exists():
                raise UsageError(f"no such file or folder: {path}")
            if not path.is_dir() and not path.is_file():
                raise UsageError(f"neither a file nor a folder: {path}")
        dataset = cls.__new__(cls)
        dataset.root = resolved[0] if resolved[0].is_dir() else resolved[0].parent
        dataset._paths = resolved
        return dataset

    def videos(self, split: str | None = None) -> list[Video]:
        self._require_split(split)
        files: dict[str, list[Path]] = {}
        for text, path in self._named_files():
            files.setdefault(text, []).append(path)
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

    def _named_files(self) -> Iterator[tuple[str, Path]]:
        for given in self._paths:
            if given.is_dir():
                for path in walk_media(given):
                    yield path.relative_to(given).with_suffix("").as_posix(), path
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
