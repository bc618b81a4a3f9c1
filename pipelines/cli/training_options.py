"""The options that describe a training, shared by the commands that make one or repeat one."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.pipelines.training.job import TrainingJob

Model = Annotated[
    str | None, typer.Argument(help="The model (`vlpipe models ls`).", show_default=False)
]
Task = Annotated[str | None, typer.Option(help="What it learns.", metavar="TASK")]
Dataset = Annotated[str | None, typer.Option(help="A known dataset.", metavar="NAME")]
Root = Annotated[Path | None, typer.Option(help="The folder of your copy of it.")]
Store = Annotated[str, typer.Option(help="The feature store.", metavar="URL")]
Config = Annotated[Path | None, typer.Option(help="Settings in a TOML file.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as model.hidden=256."),
]
Prefect = Annotated[
    bool | None,
    typer.Option(
        "--prefect/--no-prefect",
        help="Run as a Prefect flow (default: if PREFECT_API_URL is set).",
    ),
]


def build_training_job(
    *,
    config: Path | None,
    settings: list[str] | None,
    out: Path | None,
    **fields: Any,  # noqa: ANN401 - the other fields of TrainingJob, validated by it
) -> "TrainingJob":
    """The job that these options describe; UsageError for what is missing or wrong."""
    from vlpipe.pipelines.training.job import TrainingJob, parse_settings

    if fields["model"] is None:
        raise UsageError("no model is named", hint="`vlpipe models ls` lists them")
    for name in ("task", "dataset", "root"):
        if fields[name] is None:
            raise UsageError(f"--{name} is missing", hint="vlpipe train --help")
    return TrainingJob(
        out=out or Path("runs") / f"{fields['model']}-{fields['task']}-{fields['dataset']}",
        settings=parse_settings(config, settings or ()),
        **fields,
    )


def resumed_device(settings: Sequence[str]) -> str | None:
    """The device of `--resume RUN --set device=cpu`; UsageError for other settings: a run keeps
    them."""
    from vlpipe.pipelines.training.job import parse_settings

    if any(not change.startswith("device=") for change in settings):
        raise UsageError(
            "a run keeps its settings, but for its device",
            hint="--set device=cpu; leave the rest of --set out, or train a new run",
        )
    return parse_settings(changes=settings).device if settings else None
