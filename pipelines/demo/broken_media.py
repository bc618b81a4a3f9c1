"""Files that nobody can read, as they occur in downloads."""

from pathlib import Path


def make_broken_media(folder: Path, *, sample: Path) -> Path:
    """A folder of three files: an error page, nothing, and half of `sample`."""
    folder.mkdir(parents=True, exist_ok=True)
    page = "<!doctype html><title>404</title><p>Not found</p>"
    (folder / "error_page.gif").write_text(page, encoding="utf-8")
    (folder / "nothing.mp4").write_bytes(b"")
    whole = sample.read_bytes()
    (folder / "half.mp4").write_bytes(whole[: len(whole) // 2])
    return folder
