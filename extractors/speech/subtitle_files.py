"""Files of subtitles, one for each video: found, hashed and read.

SubRip (.srt), WebVTT (.vtt) and YouTube's .sbv are read by webvtt-py. They are data of others: read
within limits, and looked up among the names of the folder.
"""

import hashlib
from io import StringIO
from pathlib import Path

from vlpipe.extractors.errors import MediaError
from vlpipe.extractors.speech.subtitle_words import Cue
from vlpipe.extractors.weights.checkpoint import sha256_of

SUFFIXES = (".vtt", ".srt", ".sbv")
"""In the order in which files of one language are preferred: WebVTT may say when each word is."""

_MAX_BYTES = 16 * 2**20
_ACTIVITYNET = "v_"  # its videos are v_ID, its published subtitles ID


def sha256_of_subtitles(folder: Path) -> str:
    """Hex SHA-256 over the names and contents of its subtitles.

    ValueError if there is no such folder, or none in it.
    """
    if not folder.is_dir():
        raise ValueError(f"folder: {folder} is not there, or no folder")
    digest, count = hashlib.sha256(), 0
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            digest.update(f"{path.name}\0{sha256_of(path)}\n".encode())
            count += 1
    if not count:
        raise ValueError(f"folder: {folder} holds no file {' or '.join(SUFFIXES)}")
    return digest.hexdigest()


def find_subtitles(folder: Path, video: str, language: str | None) -> Path | None:
    """The subtitles of a video: NAME.SUFFIX or NAME.LANGUAGE.SUFFIX; None if there are none.

    language: `en` takes `en-GB` too, and before a file that names no language. Raises MediaError
    if none is wanted and the files are of several.
    """
    stem = Path(video).stem
    found: dict[str, list[Path]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        name, _, tag = path.stem.rpartition(".")
        if _is_name_of(path.stem, stem):
            found.setdefault("", []).append(path)
        elif name and _is_name_of(name, stem):
            found.setdefault(tag.lower(), []).append(path)
    if language is not None:
        wanted = language.lower()
        tags = [t for t in sorted(found) if t == wanted or t.startswith(f"{wanted}-")] or [""]
    elif "" in found:
        tags = [""]
    else:
        tags = sorted(found)
    if len(tags) > 1 and language is None:
        raise MediaError(
            "unreadable",
            f"{video} has subtitles in several languages: {', '.join(tags)}",
            hint=f"--set given_subtitles.language={tags[0]}",
        )
    files = found.get(tags[0], []) if tags else []
    return min(
        files, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path.name), default=None
    )


def read_cues(path: Path, encoding: str) -> list[Cue]:
    """The cues of a file in the order of their starts, tags as they are.

    encoding: of a file that does not begin with its mark. MediaError names the file.
    """
    import webvtt
    from webvtt.errors import MalformedCaptionError, MalformedFileError

    try:
        text = _read_text(path, encoding)
        found = webvtt.from_buffer(StringIO(text), format=path.suffix.lower()[1:])
        cues = [
            Cue(
                caption.start_time.in_milliseconds() / 1000,
                caption.end_time.in_milliseconds() / 1000,
                tuple(caption.raw_text.splitlines()),
            )
            for caption in found.captions
        ]
    except UnicodeDecodeError as error:
        raise MediaError(
            "damaged", f"{path} is not {encoding}: {error}",
            hint="--set given_subtitles.encoding=NAME, such as cp1252",
        ) from error  # fmt: skip
    except (OSError, ValueError, MalformedFileError, MalformedCaptionError) as error:
        raise MediaError(
            "damaged", f"the subtitles {path} cannot be read: {error}",
            hint="take the file away, or mend it",
        ) from error  # fmt: skip
    return sorted(cues, key=lambda cue: cue.start_s)


def _is_name_of(name: str, stem: str) -> bool:
    return name in (stem, stem.removeprefix(_ACTIVITYNET))


def _read_text(path: Path, encoding: str) -> str:
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"has more than {_MAX_BYTES:,} bytes")
    content = path.read_bytes()
    for mark, named in _MARKS:
        if content.startswith(mark):
            return content.decode(named)
    return content.decode(encoding)


_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
