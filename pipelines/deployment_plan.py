"""What is to be registered with a Prefect server, as validated values; nothing here knows Prefect.

A plan is a file in the form of Prefect's own `prefect.yaml`, so that `prefect deploy` reads it too.
Beyond that form it lists work pools with their limits, which only `vlpipe deploy` makes, and the
parameters of each deployment are the typed job of its flow.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.ingestion import IngestionJob
from vlpipe.pipelines.store_care import StoreCareJob
from vlpipe.stores.datasets import dataset_class
from vlpipe.stores.errors import EnvironmentLacks, UsageError
from vlpipe.stores.problems import problems_of

PACKAGED_PLAN = Path(__file__).with_name("prefect.yaml")

Stage = Literal["ingest", "extract", "train", "retrain", "care"]

ENTRY_POINTS: Mapping[Stage, str] = {
    "ingest": "vlpipe.pipelines.ingest_flow.ingest",
    "extract": "vlpipe.pipelines.extract_flow.extract",
    "train": "vlpipe.pipelines.train_flow.train",
    "retrain": "vlpipe.pipelines.retrain_flow.retrain",
    "care": "vlpipe.pipelines.store_care_flow.care",
}
_STAGES = {entry_point: stage for stage, entry_point in ENTRY_POINTS.items()}
_VARIABLE = re.compile(r"\{\{\s*\$(\w+)\s*\}\}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkPool(_Strict):
    """A pool of process workers. concurrency_limit: runs at once in it; one for each GPU, or group
    of GPUs that a job takes."""

    name: str
    concurrency_limit: PositiveInt | None = None


class Schedule(_Strict):
    """When a deployment runs by itself; an inactive one waits to be switched on."""

    cron: str
    timezone: str = "UTC"
    active: bool = True


class PoolChoice(_Strict):
    name: str
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = {}


class DeploymentPlan(_Strict):
    """One deployment. parameters: {"job": ...}, the typed job of the flow. concurrency_limit: runs
    of this deployment at once."""

    name: str = Field(pattern=r"^[^/%&<>]+$")
    entrypoint: str
    description: str | None = None
    parameters: dict[str, Any]
    tags: tuple[str, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    concurrency_limit: PositiveInt = 1
    work_pool: PoolChoice

    @field_validator("entrypoint")
    @classmethod
    def _is_ours(cls, value: str) -> str:
        if value not in _STAGES:
            raise ValueError(f"{value!r} is none of {', '.join(_STAGES)}")
        return value

    @property
    def stage(self) -> Stage:
        return _STAGES[self.entrypoint]

    @property
    def full_name(self) -> str:
        """As the server calls it: FLOW/NAME."""
        return f"{self.stage}/{self.name}"

    @property
    def job(self) -> BaseModel:
        """The typed job, with absolute paths; UsageError for wrong parameters."""
        if set(self.parameters) != {"job"}:
            raise UsageError(
                f"deployment {self.full_name}: the parameters are "
                f"{', '.join(self.parameters) or 'none'}, expected `job`"
            )
        try:
            job = _job_class(self.stage).model_validate(self.parameters["job"])
        except ValidationError as error:
            raise UsageError(f"deployment {self.full_name}: {problems_of(error)}") from error
        return with_absolute_paths(job)


@dataclass(frozen=True)
class Plan:
    """All that a file asks for. remarks: what is not there yet, such as a dataset's folder."""

    pools: tuple[WorkPool, ...]
    deployments: tuple[DeploymentPlan, ...]
    remarks: tuple[str, ...] = ()

    def in_pool(self, name: str) -> "Plan":
        """The same with all deployments in one work pool."""
        known = [pool for pool in self.pools if pool.name == name]
        moved = [
            d.model_copy(update={"work_pool": d.work_pool.model_copy(update={"name": name})})
            for d in self.deployments
        ]
        return replace(self, pools=tuple(known) or (WorkPool(name=name),), deployments=tuple(moved))


def read_plan(path: Path = PACKAGED_PLAN, only: Sequence[str] = ()) -> Plan:
    """The plan of a file. `{{ $NAME }}` in it stands for an environment variable.

    only: names of deployments (FLOW/NAME or NAME), or flows; empty: all of them.
    Raises UsageError for a file that is not of this form, unknown names and wrong parameters.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("deployments"), list):
        raise UsageError(f"{path} has no list of deployments", hint="see docs/operations.md")
    try:
        filled = _filled(content["deployments"], path)
        deployments = [DeploymentPlan.model_validate(d) for d in filled]
        pools = [WorkPool.model_validate(p) for p in _filled(content.get("work_pools", []), path)]
    except ValidationError as error:
        raise UsageError(f"{path}: {problems_of(error)}") from error
    chosen = _chosen(path, deployments, only)
    known = {pool.name: pool for pool in pools}
    used = dict.fromkeys(deployment.work_pool.name for deployment in chosen)
    return Plan(
        pools=tuple(known.get(name, WorkPool(name=name)) for name in used),
        deployments=tuple(chosen),
        remarks=tuple(r for deployment in chosen for r in missing_parts(deployment.job)),
    )


def _chosen(
    path: Path, deployments: list[DeploymentPlan], only: Sequence[str]
) -> list[DeploymentPlan]:
    names = [d.full_name for d in deployments]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{path} describes {', '.join(sorted(twice))} more than once")
    unknown = [
        name for name in only
        if not any(name in (d.full_name, d.name, d.stage) for d in deployments)
    ]  # fmt: skip
    if unknown:
        raise UsageError(
            f"{path} has no deployment {', '.join(map(repr, unknown))}",
            hint=f"it has: {', '.join(names)}",
        )
    if not only:
        return deployments
    return [d for d in deployments if {d.full_name, d.name, d.stage} & set(only)]


def _filled(value: Any, path: Path) -> Any:  # noqa: ANN401 - YAML
    """The same with environment variables in place of their names."""
    if isinstance(value, dict):
        return {key: _filled(inner, path) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, path) for inner in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if found is None:
            raise UsageError(f"{path} names the environment variable {match[1]}, which is not set")
        return found

    return _VARIABLE.sub(variable, value)


def _job_class(stage: Stage) -> type[BaseModel]:
    if stage in ("train", "retrain"):  # torch takes seconds to load
        from vlpipe.pipelines.training.job import TrainingJob
        from vlpipe.pipelines.training.retraining import RetrainingJob

        return TrainingJob if stage == "train" else RetrainingJob
    classes: dict[str, type[BaseModel]] = {
        "ingest": IngestionJob, "extract": ExtractionJob, "care": StoreCareJob
    }  # fmt: skip
    return classes[stage]


def with_absolute_paths(job: BaseModel) -> BaseModel:
    """The same job, independent of the current folder: a worker runs in a folder of its own."""
    if isinstance(job, ExtractionJob):
        return job.with_absolute_paths()
    changes: dict[str, Any] = {}
    for name in type(job).model_fields:
        value = getattr(job, name)
        if isinstance(value, Path):
            changes[name] = value.absolute()
        elif isinstance(value, BaseModel):
            changes[name] = with_absolute_paths(value)
        elif name == "store" and "://" not in value:
            changes[name] = str(Path(value).absolute())
    return job.model_copy(update=changes)


def missing_parts(job: BaseModel) -> list[str]:
    """What a job needs and is not there yet, in words; it may come before the first run does.

    Raises UsageError for names and settings that will not do then either.
    """
    found = []
    try:
        _check_names(job)
    except EnvironmentLacks as error:  # checkpoints may lie where the worker is
        found.append(error.message)
    root = getattr(job, "root", None)
    if root is not None and not root.is_dir():
        found.append(f"{root} is no folder yet")
    store = getattr(job, "store", "://")
    if "://" not in store and not Path(store).is_dir() and not isinstance(job, ExtractionJob):
        found.append(f"{store} is no store yet")
    return found


def _check_names(job: BaseModel) -> None:
    if isinstance(job, ExtractionJob):
        job.specs()
    if (dataset := getattr(job, "dataset", None)) is not None:
        dataset_class(dataset)
    if hasattr(job, "model"):
        from vlpipe.models import find_model
        from vlpipe.models.tasks import find_task

        find_model(job.model)
        find_task(job.task)  # type: ignore[attr-defined]  # what has a model has a task
