"""Stanford's tokeniser and METEOR 1.5 as the official programs run them: in Java.

Both programs are files of the package pycocoevalcap (a copy made by git without large files lacks
them). METEOR's process takes 2 GB of memory.
"""

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from vlpipe.models.metrics.penn_treebank import DROPPED
from vlpipe.stores.errors import EnvironmentLacks

_TOKENISER = "tokenizer/stanford-corenlp-3.4.1.jar"
_METEOR, _PARAPHRASES = "meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"
_SEPARATOR = " ||| "


def missing_for_java() -> str | None:
    """What METEOR and Stanford's tokeniser lack here, in words; None: both can run."""
    if shutil.which("java") is None:
        return "there is no java program"
    for name in (_TOKENISER, _METEOR, _PARAPHRASES):
        if not _file(name).is_file():
            return f"{_file(name)} is missing"
    return None


def java_tokens(texts: Sequence[str]) -> list[list[str]]:
    """The tokens of each text, in lower case, without the dropped ones.

    Raises EnvironmentLacks without Java.
    """
    lines = "\n".join(" ".join(text.split()) for text in texts)
    done = subprocess.run(
        [_java(), "-cp", str(_file(_TOKENISER)), "edu.stanford.nlp.process.PTBTokenizer",
         "-preserveLines", "-lowerCase"],
        input=lines.encode(), capture_output=True, check=False,
    )  # fmt: skip
    found = done.stdout.decode(errors="replace").split("\n")[: len(texts)]
    if done.returncode or len(found) != len(texts):
        raise EnvironmentLacks(f"Stanford's tokeniser failed: {_last_line(done.stderr)}")
    return [[token for token in line.split() if token not in DROPPED] for line in found]


class Meteor:
    """METEOR 1.5 for English; a context manager, as it holds a process.

    Statistics of pairs add up to the figure of a whole set, which is not the mean of the pairs'.
    """

    name = "meteor"

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [_java(), "-jar", "-Xmx2G", str(_file(_METEOR)), "-", "-", "-stdio", "-l", "en",
             "-norm"],
            cwd=_file(_METEOR).parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._known: dict[tuple[str, tuple[str, ...]], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stream("stdin").close()
        self._stream("stdout").close()
        self._process.kill()
        self._process.wait()

    def statistics(self, hypothesis: str, references: Sequence[str]) -> str:
        """Of a hypothesis and the best of its references, both tokens joined by blanks."""
        key = (hypothesis, tuple(references))
        if key not in self._known:
            texts = [text.replace("|||", "") for text in (*references, hypothesis)]
            self._say(_SEPARATOR.join(("SCORE", *texts)))
            self._known[key] = self._answer()
        return self._known[key]

    def score(self, statistics: Sequence[str]) -> tuple[float, list[float]]:
        """The figure 0 to 1 of a set, and of each pair in it."""
        self._say(_SEPARATOR.join(("EVAL", *statistics)))
        each = [float(self._answer()) for _ in statistics]
        return float(self._answer()), each

    def _say(self, line: str) -> None:
        self._stream("stdin").write(f"{line}\n".encode())
        self._stream("stdin").flush()

    def _answer(self) -> str:
        line = self._stream("stdout").readline().decode().strip()
        if not line:
            raise EnvironmentLacks(
                "METEOR's Java process ended", hint="it needs Java 8 or later and 2 GB of memory"
            )
        return line

    def _stream(self, name: str) -> IO[bytes]:
        return cast(IO[bytes], getattr(self._process, name))


def _java() -> str:
    missing = missing_for_java()
    if missing is not None:
        raise EnvironmentLacks(
            f"METEOR and Stanford's tokeniser cannot run: {missing}",
            hint="install Java 8 or later and the package pycocoevalcap",
        )
    return cast(str, shutil.which("java"))


def _file(name: str) -> Path:
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        return Path("pycocoevalcap") / name
    return Path(spec.submodule_search_locations[0]) / name


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
