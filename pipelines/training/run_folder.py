"""The folder that a training leaves: what was asked, what was read, what came out.

run.json                  the job, the store's snapshot, versions, seeds, metrics
task.json, splits.json    vocabularies and answer sets; ids of the examples of each split
checkpoints/last.pt       what `--resume` reads
checkpoints/best.safetensors       the model of the best epoch, with its settings and its task
checkpoints/TASK_FIGURE.pth        the same in the layout of the paper's own code
history.json, tensorboard/         figures of each epoch
predictions-SPLIT.*       in the benchmark's form; records-SPLIT.jsonl has scores besides
report.html               all that to look at
"""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import vlpipe
from vlpipe.models import Model, create_model
from vlpipe.models.tasks import Record, Task, find_task
from vlpipe.pipelines.training.job import TrainingJob
from vlpipe.stores.errors import UsageError

RUN_VERSION = 1


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run. A link to one, such as `current`, is followed once, so that what is
    read of a run is all of the same, also when the link turns meanwhile."""

    path: Path

    def __post_init__(self) -> None:
        if self.path.is_symlink():
            object.__setattr__(self, "path", self.path.resolve())

    @property
    def facts(self) -> Path:
        return self.path / "run.json"

    @property
    def state(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def create(self) -> None:
        """Makes the folder; UsageError if there is something in it."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            hint = f"--resume {self.path} carries it on" if self.facts.exists() else "--out DIR"
            raise UsageError(f"{self.path} is there already", hint=hint)
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    @property
    def has_begun(self) -> bool:
        """Whether something was learnt: curves are written from the first step on."""
        return self.state.exists() or (self.path / "tensorboard").exists()

    def discard(self, *, with_folder: bool) -> None:
        """Deletes all that is in the folder, and the folder itself if it was made for the run."""
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if with_folder:
            self.path.rmdir()

    def change_device(self, device: str) -> None:
        """Has the run go on elsewhere. UsageError as `read_facts`."""
        facts = self.read_facts()
        facts["job"]["settings"]["device"] = device
        self.write_json("run.json", facts)

    def read_facts(self) -> dict[str, Any]:
        """What run.json says; UsageError if this is no run."""
        try:
            facts: dict[str, Any] = json.loads(self.facts.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UsageError(
                f"{self.path} is no run: there is no run.json in it",
                hint="name the folder that vlpipe train made",
            ) from error
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.facts} cannot be read: {error}") from error
        if facts.get("run_version") != RUN_VERSION:
            raise UsageError(
                f"{self.facts} has the form {facts.get('run_version')!r}, expected {RUN_VERSION}"
            )
        return facts

    def read_json(self, name: str) -> Any:  # noqa: ANN401 - JSON
        """Another of its JSON files."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path / name} cannot be read: {error}") from error

    def write_json(self, name: str, value: object) -> None:
        """Replaces one of its JSON files as a whole."""
        write_json(self.path / name, value)

    def write_records(self, records: Sequence[Record], split: str) -> Path:
        """A line of JSON for each prediction, with all that the task says of it."""
        path = self.path / f"records-{split}.jsonl"
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def read_records(self, split: str) -> list[Record]:
        """What `write_records` wrote."""
        path = self.path / f"records-{split}.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]

    def job(self) -> TrainingJob:
        """The job of the run, with its settings resolved."""
        return TrainingJob.model_validate(self.read_facts()["job"])

    def task(self) -> Task[Any]:
        """The task as this run's training examples made it."""
        return find_task(self.job().task).from_json(self.read_json("task.json"))


def write_json(path: Path, value: object) -> None:
    """Replaces the file as a whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def code_version() -> dict[str, str]:
    """Which code ran: vlpipe and the SHA-256 of its source, torch, Python."""
    digest = hashlib.sha256()
    root = Path(vlpipe.__file__).parent
    for room in ("models", "pipelines", "stores"):
        for path in sorted((root / room).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "vlpipe": vlpipe.__version__,
        "source_sha256": digest.hexdigest(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def save_model(path: Path, model: Model, settings: Mapping[str, Any], task: Task[Any]) -> None:
    """Writes weights, the model's name and settings, and the fitted task into one file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    description = {
        "model": model.name, "settings": dict(settings), "task": task.name, "fitted": task.to_json()
    }  # fmt: skip
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    # Written here: safetensors' own writer makes files that only their owner may read.
    temporary.write_bytes(save(state, metadata={"vlpipe": json.dumps(description)}))
    temporary.replace(path)


def load_model(path: Path) -> tuple[Model, Task[Any]]:
    """The model, in evaluation mode on the CPU, and the task, of a file of `save_model`."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        description = json.loads(metadata["vlpipe"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise UsageError(
            f"{path} is not a checkpoint of vlpipe: {type(error).__name__}: {error}",
            hint="expected checkpoints/best.safetensors of a run",
        ) from error
    task = find_task(description["task"]).from_json(description["fitted"])
    model = create_model(description["model"], task=task.name, **description["settings"])
    model.load_state_dict(state)
    return model.eval(), task
