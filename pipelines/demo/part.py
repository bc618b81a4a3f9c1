"""What the parts of the demonstration share: where they work, and what they leave."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.extraction.receipts import ExtractionSummary
from vlpipe.pipelines.training.job import TrainingJob
from vlpipe.pipelines.training.loop import TrainingObserver
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.pipelines.training.train import resume_training, run_training
from vlpipe.stores.errors import UsageError


@dataclass(frozen=True)
class Workplace:
    """dataset_root: the made-up dataset. store: features of all its videos, which parts may add
    to. out: the folder of the demonstration."""

    dataset_root: Path
    store: str
    out: Path
    stop: threading.Event
    observer: Observer | None = None
    training_observer: TrainingObserver | None = None

    def extract(self, job: ExtractionJob) -> ExtractionSummary:
        """Does what is left of a job."""
        return run_extraction(job, observer=self.observer, stop=self.stop)

    def train(self, job: TrainingJob) -> RunFolder | str | None:
        """The finished run of a job: a fresh one, or one of an earlier call, carried on if need be.

        A text says why it cannot be trained, such as too few examples in a dataset of a few clips;
        None: it was stopped.
        """
        run = RunFolder(job.out)
        try:
            if not run.facts.exists():
                run_training(job, observer=self.training_observer, stop=self.stop)
            elif run.read_facts()["status"] != "finished":
                resume_training(job.out, observer=self.training_observer, stop=self.stop)
        except UsageError as error:
            return error.message
        return None if self.stop.is_set() else run


@dataclass(frozen=True, slots=True)
class Page:
    """A page that a part wrote beside the report. text: a sentence on what there is to see."""

    title: str
    text: str
    path: Path


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure that no task reports, with the same of the best answer that sees no video."""

    name: str
    value: str
    baseline: str


@dataclass
class PartResult:
    """runs: finished. untrained: what could not be trained, and why. summaries: extractions besides
    the common one."""

    runs: list[RunFolder] = field(default_factory=list)
    untrained: list[tuple[str, str]] = field(default_factory=list)
    summaries: list[ExtractionSummary] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)

    def take(self, name: str, trained: RunFolder | str | None) -> RunFolder | None:
        """Files what `Workplace.train` gave under runs or untrained; the run, if there is one."""
        if isinstance(trained, str):
            self.untrained.append((name, trained))
            return None
        if trained is not None:
            self.runs.append(trained)
        return trained

    def add(self, other: "PartResult") -> None:
        """Appends what another part left."""
        self.runs += other.runs
        self.untrained += other.untrained
        self.summaries += other.summaries
        self.pages += other.pages
        self.figures += other.figures


Part = Callable[[Workplace], PartResult]
"""Trains and shows. Repeating it does only what is not done yet; it ends early once stopped."""
