"""Word vectors of public files, for the words of one vocabulary.

Read are text files with a word and its numbers a line, parted by single spaces: GloVe's, word2vec's
and fastText's (whose first line holds two counts), plain, or compressed by gzip or zip. A file has
millions of lines, so what was found is kept in a cache: the second run does not read it again.
"""

import gzip
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from platformdirs import user_cache_path

from vlpipe.stores.errors import UsageError

_MOST_NUMBERS = 4096
_WHERE = (
    "GloVe 42B 300-d (MASN, JSFusion) is glove.42B.300d.zip of "
    "https://nlp.stanford.edu/projects/glove/, 840B (BMT) is glove.840B.300d.zip there"
)


@dataclass(frozen=True, slots=True)
class WordVectors:
    """vectors: float32 [found, width]. places: int64 [found], which words they belong to."""

    vectors: npt.NDArray[np.float32]
    places: npt.NDArray[np.int64]

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])


def read_word_vectors(
    path: Path, words: Sequence[str], *, cache: Path | None = None
) -> WordVectors:
    """The vectors of those words that the file has, looked up exactly as they are written.

    The first line of a word counts. cache: a folder; None: the user's cache folder.
    Raises UsageError when the file is not there (it says where to get one) or is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"there is no file of word vectors {path}", hint=_WHERE) from error
    folder = cache if cache is not None else user_cache_path("vlpipe") / "word_vectors"
    key = [str(path.resolve()), status.st_size, status.st_mtime_ns, list(words)]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    kept = folder / f"{name}.npz"
    found = _read_cache(kept)
    if found is None:
        found = _look_up(path, words)
        _write_cache(kept, found)
    return found


def _look_up(path: Path, words: Sequence[str]) -> WordVectors:
    places = {word.encode(): place for place, word in reversed(list(enumerate(words)))}
    found: dict[int, npt.NDArray[np.float32]] = {}
    width = 0
    with _lines(path) as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip(b" \r\n").split(b" ")
            if number == 1:
                if len(fields) == 2 and all(field.isdigit() for field in fields):
                    continue  # word2vec: how many words, how many numbers
                width = len(fields) - 1
            elif number == 2 and not width:
                width = len(fields) - 1
            if not 1 <= width <= _MOST_NUMBERS:
                raise _no_vectors(path, number, "a word and its numbers, parted by spaces")
            # A few words of the large files hold spaces; the numbers are the last fields.
            place = places.get(b" ".join(fields[:-width]))
            if place is None or place in found:
                continue
            try:
                vector = np.array(fields[-width:], dtype=np.float32)
            except ValueError as error:
                raise _no_vectors(path, number, f"a word and {width} numbers") from error
            if not np.isfinite(vector).all():
                raise _no_vectors(path, number, "finite numbers")
            found[place] = vector
    if not found:
        raise UsageError(
            f"{path} has not one of the {len(words):,} words of the vocabulary",
            hint=f"is it a file of word vectors in the task's language? {_WHERE}",
        )
    order = sorted(found)
    return WordVectors(np.stack([found[place] for place in order]), np.array(order))


@contextmanager
def _lines(path: Path) -> Iterator[BinaryIO]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                texts = [name for name in archive.namelist() if name.endswith((".txt", ".vec"))]
                if len(texts) != 1:
                    raise UsageError(
                        f"{path} holds {len(texts)} text files, expected one with vectors",
                        hint="unpack it and name the file",
                    )
                with archive.open(texts[0]) as file:
                    yield cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, file), 1 << 20))
        elif path.suffix == ".gz":
            with gzip.open(path) as packed:
                yield cast(BinaryIO, packed)
        else:
            with path.open("rb", buffering=1 << 20) as plain:
                yield plain
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint=_WHERE) from error


def _no_vectors(path: Path, line: int, expected: str) -> UsageError:
    return UsageError(
        f"{path}, line {line}: this is no file of word vectors; expected {expected}", hint=_WHERE
    )


def _read_cache(path: Path) -> WordVectors | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return WordVectors(arrays["vectors"], arrays["places"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # never written, or cut off: it is made again


def _write_cache(path: Path, found: WordVectors) -> None:
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, vectors=found.vectors, places=found.places)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # without a cache the next run reads the file again
