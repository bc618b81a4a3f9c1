"""The options that describe an extraction, shared by the commands that run or schedule one."""

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlpipe.pipelines.extraction.presets import PRESETS, find_preset
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.pipelines.extraction.job import ExtractionJob


class Precision(StrEnum):
    """Arithmetic of the networks."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class StoreDtype(StrEnum):
    """How rows are stored."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"


class DamagedMedia(StrEnum):
    """What becomes of a video whose decoder reports errors."""

    STRICT = "strict"
    LENIENT = "lenient"


Paths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[VIDEO_OR_FOLDER]...", help="Media files and folders."),
]
Features = Annotated[
    list[str] | None,
    typer.Option(help="Extractors, comma separated (`vlpipe extractors ls`).", metavar="NAME,..."),
]
For = Annotated[
    str | None,
    typer.Option("--for", help=f"The features that a paper reads: {', '.join(PRESETS)}."),
]
Dataset = Annotated[
    str | None, typer.Option(help="A known dataset (`vlpipe datasets ls`).", metavar="NAME")
]
Root = Annotated[Path | None, typer.Option(help="The folder of your copy of it.")]
Store = Annotated[str, typer.Option(help="The feature store.", metavar="URL")]
Split = Annotated[str | None, typer.Option(help="Only this split of the dataset.")]
Limit = Annotated[int | None, typer.Option(min=0, help="Only the first so many videos on disk.")]
Shard = Annotated[
    str | None,
    typer.Option(help="Only the k-th of n shares of the videos, 1 to n.", metavar="k/n"),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="untrained|NAME=FILE,...",
        help="Checkpoint of an extractor: a file or a published name; or random numbers. "
        "Left out: what `vlpipe weights add` added.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="EXTRACTOR.KEY=VALUE",
        help="A setting of an extractor (`vlpipe extractors show NAME`).",
    ),
]
Device = Annotated[
    str, typer.Option(help="cpu, cuda, cuda:1, ...; several with commas share the videos.")
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Let torch.compile rewrite the networks first.")
]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="Of the networks.")]
StoreDtypeOption = Annotated[StoreDtype, typer.Option("--store-dtype", help="Of the rows.")]
DamagedMediaOption = Annotated[
    DamagedMedia,
    typer.Option("--damaged-media", help="Quarantine damaged videos, or keep what decodes."),
]
DecodeWorkers = Annotated[
    int, typer.Option(min=0, help="Decoding processes; 0: one less than the cores.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try videos in quarantine again.")
]


def build_job(
    *,
    paths: Sequence[Path] | None,
    features: Sequence[str] | None,
    preset: str | None,
    weights: Sequence[str] | None,
    settings: Sequence[str] | None,
    **fields: Any,  # noqa: ANN401 - the other fields of ExtractionJob, validated by it
) -> "ExtractionJob":
    """The job that these options describe; UsageError when they do not make sense."""
    from pydantic import ValidationError

    from vlpipe.pipelines.extraction.job import ExtractionJob
    from vlpipe.stores.problems import problems_of

    names = _names(features or ())
    given = parse_settings(settings or ())
    if preset is not None:
        chosen = find_preset(preset)
        names = [*chosen.features, *names]
        given = {n: {**chosen.settings.get(n, {}), **given.get(n, {})} for n in {*names, *given}}
    if not names:
        raise UsageError(
            "no features named",
            hint="--features resnet152,vggish, or --for bmt; `vlpipe extractors ls`",
        )
    if str(fields.get("store", "")).startswith("memory:"):
        raise UsageError(
            f"--store {fields['store']}: a store in memory ends with this command",
            hint="name a folder",
        )
    try:
        return ExtractionJob(
            paths=tuple(paths or ()),
            features=tuple(dict.fromkeys(names)),
            settings={name: fields for name, fields in given.items() if fields},
            weights=parse_weights(weights or ()),
            **fields,
        )
    except ValidationError as error:
        raise UsageError(problems_of(error)) from None


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`resnet152.fps=6` as {"resnet152": {"fps": 6}}.

    Values are JSON, lists also `a,b`, `none` is JSON's null.
    """
    settings: dict[str, dict[str, Any]] = {}
    for text in texts:
        target, is_assignment, value = text.partition("=")
        extractor, _, key = target.rpartition(".")
        if not (is_assignment and extractor and key):
            raise UsageError(f"--set {text!r}: expected EXTRACTOR.KEY=VALUE, as resnet152.fps=6")
        parsed: Any
        try:
            parsed = None if value.lower() == "none" else json.loads(value)
        except ValueError:
            parsed = value.split(",") if "," in value else value
        settings.setdefault(extractor, {})[key] = parsed
    return settings


def parse_weights(texts: Sequence[str]) -> dict[str, str]:
    """`untrained` as {"*": "untrained"}, `vggish=FILE` as {"vggish": "FILE"}; commas separate."""
    weights: dict[str, str] = {}
    # A comma may stand in a file's name: it separates only what names a checkpoint again.
    parts = [part for text in texts for part in re.split(r",(?=[\w:.-]+=|untrained)", text)]
    for text in parts:
        name, is_assignment, source = text.partition("=")
        if not is_assignment:
            if not text.startswith("untrained"):
                raise UsageError(
                    f"--weights {text!r}: expected `untrained` or NAME=FILE",
                    hint=f"--weights EXTRACTOR={text}",
                )
            name, source = "*", text
        weights[name] = source
    return weights


def _names(texts: Sequence[str]) -> list[str]:
    return [name.strip() for text in texts for name in text.split(",") if name.strip()]
