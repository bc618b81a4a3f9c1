"""The folder of a training that is repeated: numbered runs, and a link to the one in use.

run-0001/, run-0002/, ...   runs as `vlpipe train` makes them, each with a retraining.json beside
                            its run.json: what it read, and what became of it
current                     a link to the run in use: `vlpipe ask ... --run FOLDER/current`
promotions.jsonl            each turn of that link: when, to which run, from which, and why
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.stores.errors import UsageError

_RUN_NAME = re.compile(r"run-(\d{4,})")
_NOTES = "retraining.json"


@dataclass(frozen=True, slots=True)
class RunsFolder:
    """The paths of one folder of runs, which need not exist yet."""

    path: Path

    def runs(self) -> list[RunFolder]:
        """The runs that retraining has begun, oldest first."""
        if not self.path.is_dir():
            return []
        found = {
            int(match[1]): RunFolder(entry)
            for entry in self.path.iterdir()
            if (match := _RUN_NAME.fullmatch(entry.name)) and (entry / _NOTES).is_file()
        }
        return [found[number] for number in sorted(found)]

    def next_run(self) -> Path:
        """The path of a run to come: a number above all there are, also of unfinished leftovers."""
        names = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        numbers = [int(match[1]) for name in names if (match := _RUN_NAME.fullmatch(name))]
        return self.path / f"run-{max(numbers, default=0) + 1:04d}"

    @property
    def current(self) -> RunFolder | None:
        """The run in use; UsageError if the link leads nowhere."""
        link = self.path / "current"
        if not link.is_symlink():
            return None
        run = RunFolder(link)
        if not run.best.is_file():
            raise UsageError(
                f"{link} leads to {run.path}, and there is no trained run there",
                hint="vlpipe promote RUN turns it to another run",
            )
        return run

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other retrainings out of the folder; the lock ends with the process that has it.
        Raises UsageError if another has it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"another retraining is at work in {self.path}",
                    hint="wait for its end, or choose another --out",
                ) from None
            yield


def read_notes(run: RunFolder) -> dict[str, Any]:
    """What retraining wrote beside a run: `reads`, and `verdict`, `reason` once it has ended."""
    notes: dict[str, Any] = run.read_json(_NOTES)
    return notes


def write_notes(run: RunFolder, notes: dict[str, Any]) -> None:
    """Replaces what `read_notes` gives."""
    run.write_json(_NOTES, notes)


def promote_run(run: RunFolder, reason: str) -> Path | None:
    """Makes this run the current one of the folder it lies in; the one before comes back.

    Raises UsageError for what is no finished run.
    """
    status = run.read_facts()["status"]
    if status != "finished" or not run.best.is_file():
        raise UsageError(
            f"{run.path} cannot be promoted: its status is {status!r}, expected 'finished'",
            hint=f"vlpipe train --resume {run.path}",
        )
    folder, link = run.path.parent, run.path.parent / "current"
    if link.exists() and not link.is_symlink():
        raise UsageError(f"{link} is no link that vlpipe made", hint="move it away")
    before = link.readlink() if link.is_symlink() else None
    temporary = folder / f".current.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(run.path.name)
    temporary.replace(link)
    note = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": run.path.name,
        "before": None if before is None else before.name,
        "reason": reason,
    }
    with (folder / "promotions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(note, ensure_ascii=False) + "\n")
    return None if before is None else folder / before
