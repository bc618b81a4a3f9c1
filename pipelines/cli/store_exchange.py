"""`vlpipe store export`, `import` and `layouts`: feature files of others."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlpipe.pipelines.cli.output import (
    AsJson,
    messages,
    print_facts,
    print_json,
    print_table,
    readable_bytes,
    remark,
)
from vlpipe.pipelines.cli.store_versions import At, Version, open_version
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.stores.exchange import KeyTable, Layout, RowTimes

_MOST_NAMED = 20
_LINE_EVERY_S = 30.0

Url = Annotated[str, typer.Argument(metavar="STORE", help="The feature store.")]
LayoutName = Annotated[
    str, typer.Option("--layout", help="How the files are laid out: see `vlpipe store layouts`.")
]
Features = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="SLOT=FEATURE",
        help="Which feature of the store a slot is; can be repeated.",
    ),
]
Places = Annotated[
    list[str] | None,
    typer.Option(
        "--place",
        metavar="SLOT=PLACE",
        help="Where a slot lies, {key} standing for the video; can be repeated.",
    ),
]
KeyTables = Annotated[
    list[Path] | None,
    typer.Option(
        "--keys",
        metavar="TABLE",
        help="A table of videos and their keys in the files, such as TGIF-QA's question tables; "
        "can be repeated.",
    ),
]
IdColumn = Annotated[str, typer.Option(help="The column of video ids in --keys.")]
KeyColumn = Annotated[str, typer.Option(help="The column of keys in --keys.")]
KeyPrefix = Annotated[str, typer.Option(help="What stands before every key in the files.")]

EXPORT_EXAMPLE = (
    "Example:  vlpipe store export tgif-store --layout masn --to masn-features "
    "--keys Train_count_question.csv --keys Test_count_question.csv"
)
IMPORT_EXAMPLE = (
    "Example:  vlpipe store import tgif-store --layout npy --from rgb-folder "
    "--place 'i3d_rgb={key}_rgb.npy' --rate i3d_rgb=25/64"
)
LAYOUTS_EXAMPLE = "Example:  vlpipe store layouts"


def add_commands(app: typer.Typer) -> None:
    """Adds the commands to `vlpipe store`."""
    app.command("export", epilog=EXPORT_EXAMPLE)(export)
    app.command("import", epilog=IMPORT_EXAMPLE)(import_)
    app.command("layouts", epilog=LAYOUTS_EXAMPLE)(layouts)


def layouts(as_json: AsJson = False) -> None:
    """List the layouts of feature files that can be exported or imported."""
    from vlpipe.stores.exchange import list_layouts

    facts = [_facts(layout) for layout in list_layouts()]
    if as_json:
        print_json({"layouts": facts})
        return
    print_table(
        ("layout", "what", "read by", "export"),
        [(f["layout"], f["what"], f["origin"], "yes" if f["export"] else "no") for f in facts],
    )
    print_table(
        ("layout", "slot", "rows", "feature", "place"),
        [
            (f["layout"], s["slot"], s["rows"], " + ".join(s["features"]), s["places"][0])
            for f in facts
            for s in f["slots"]
        ],
    )


def export(
    url: Url,
    layout: LayoutName,
    to: Annotated[Path, typer.Option("--to", help="The folder for the files.")],
    feature: Features = None,
    place: Places = None,
    video: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="ID", help="Only this video; can be repeated."),
    ] = None,
    keys: KeyTables = None,
    id_column: IdColumn = "gif_name",
    key_column: KeyColumn = "key",
    key_prefix: KeyPrefix = "",
    pad: Annotated[
        list[str] | None,
        typer.Option(metavar="SLOT=ROWS", help="Rows of every video in padded layouts."),
    ] = None,
    link: Annotated[
        bool,
        typer.Option(
            "--link", help="HDF5 files that point into the store's own files and hold no rows."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of another export.")
    ] = False,
    version: Version = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Write features as the files that somebody's code reads; exit code 1 if videos were left out.

    Files get their names when they are whole, and the same command finishes an interrupted export.
    """
    from vlpipe.stores.exchange import export_features

    with open_version(url, version, at) as store, _show_progress("videos") as progress:
        report = export_features(
            store,
            layout,
            to,
            features=_features(feature),
            places=_pairs(place, "--place"),
            ids=video,
            keys=_key_table(keys, id_column, key_column, key_prefix),
            pad_rows={name: _count(text) for name, text in _pairs(pad, "--pad").items()},
            link=link,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json({"store": url} | _named(report, ("video", "problem")))
    else:
        title = f"{layout} in {to}" + (" (was there already)" if report.is_repeat else "")
        print_table(("slot", "videos"), list(report.written.items()), title=title)
        print_facts(
            [
                ("files", ", ".join(report.files)),
                ("bytes written", readable_bytes(report.num_bytes)),
                ("written before", report.kept),
                ("seconds", report.seconds),
            ]
        )
        for ids, slots in _by_videos(report.missing).items():
            _name_some(f"no rows of {', '.join(slots)}", ids)
        for slot, ids in report.empty.items():
            _name_some(f"zero rows of {slot}, not written", ids)
        for slot, ids in report.shortened.items():
            _name_some(f"more rows than {slot} has room for, shortened", ids)
        _name_some("without a key, not written", report.unnamed)
        _name_some("slots without a feature in the store", report.left_out)
        _name_some("left out", [f"{video_id}: {what}" for video_id, what in report.problems])
    raise typer.Exit(1 if report.problems else 0)


def import_(
    url: Url,
    layout: LayoutName,
    source: Annotated[
        Path, typer.Option("--from", metavar="PATH", help="The file, or the folder of the files.")
    ],
    feature: Features = None,
    place: Places = None,
    name: Annotated[
        str | None, typer.Option(help="What you call these features, for their provenance.")
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SLOT=]RATE", help="Rows a second, such as 1.5 or 25/64; can be repeated."
        ),
    ] = None,
    spans: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SLOT=]FILE",
            help="Seconds of rows: an .npz or HDF5 file with an array (T, 2) for each key.",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SLOT=]DTYPE", help="Store as this dtype, such as float16, and not as it is."
        ),
    ] = None,
    row_shape: Annotated[
        list[str] | None,
        typer.Option(metavar="SLOT=SHAPE", help="Shape of one row, such as 2048 or 10x2048."),
    ] = None,
    raw_dtype: Annotated[
        str | None, typer.Option(help="Dtype of LMDB values that have no header.")
    ] = None,
    keys: KeyTables = None,
    id_column: IdColumn = "gif_name",
    key_column: KeyColumn = "key",
    key_prefix: KeyPrefix = "",
    replace: Annotated[
        bool, typer.Option("--replace", help="Store videos again whose files have changed.")
    ] = False,
    restore_deleted: Annotated[
        bool, typer.Option("--restore-deleted", help="Bring deleted videos back.")
    ] = False,
    activate: Annotated[
        bool,
        typer.Option("--activate", help="Make these the generations that readers get by name."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring feature files of others into a store; exit code 1 if some videos could not be read.

    What is stored already is skipped, so that the same command carries on after an interruption.
    Pickled arrays are refused.
    """
    from vlpipe.stores import FeatureStore
    from vlpipe.stores.exchange import import_features

    times = _row_times(rate, spans)
    table = _key_table(keys, id_column, key_column, key_prefix)
    _check_layout(layout, source)
    with FeatureStore.open_or_create(url) as store, _show_progress("videos") as progress:
        report = import_features(
            store,
            layout,
            source,
            name=name,
            features=_pairs(feature, "--feature"),
            places=_pairs(place, "--place"),
            keys=table,
            times=times,
            dtypes=_for_all(dtype),
            row_shapes={n: _shape(text) for n, text in _pairs(row_shape, "--row-shape").items()},
            raw_dtype=raw_dtype,
            replace=replace,
            restore=restore_deleted,
            activate=activate,
            progress=progress,
        )
    if as_json:
        print_json({"store": url} | _named(report, ("video", "slot", "problem")))
    else:
        print_table(("slot", "feature"), list(report.generations.items()), title=f"into {url}")
        print_facts(
            [
                ("videos", report.videos),
                ("stored now, once per feature", report.added),
                ("stored before", report.kept),
                ("deleted before, see --restore-deleted", report.deleted),
                ("failed", len(report.failed)),
                ("bytes", readable_bytes(report.num_bytes)),
                ("seconds", report.seconds),
            ]
        )
        _name_some("failed", [f"{video} ({slot}): {what}" for video, slot, what in report.failed])
        _name_some("changed since, see --replace", [v for v, _ in report.changed])
        _name_some("slots of the layout that were not found, see --place", report.absent)
        _name_some("keys that --keys does not have, not stored", report.unnamed)
        _name_some("not read", report.left_out)
        _name_some("not active, see --activate", report.inactive)
    raise typer.Exit(1 if report.failed else 0)


# below


def _facts(layout: "Layout") -> dict[str, Any]:
    return {
        "layout": layout.name,
        "what": layout.description,
        "origin": layout.origin,
        "export": layout.container.is_exported,
        "slots": [
            {
                "slot": slot.name,
                "rows": slot.shown_shape(),
                "features": list(slot.features),
                "places": list(slot.places),
            }
            for slot in layout.slots
        ],
    }


def _named(report: Any, failure: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401
    """A report as JSON; triples of failures get names."""
    facts = dataclasses.asdict(report)
    for field in ("failed", "problems"):
        if field in facts:
            facts[field] = [dict(zip(failure, entry, strict=True)) for entry in facts[field]]
    return facts


def _by_videos(missing: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], list[str]]:
    """The slots that lack the same videos, by these videos: sixteen features of one extractor
    need not name them sixteen times."""
    slots: dict[tuple[str, ...], list[str]] = {}
    for slot, ids in missing.items():
        slots.setdefault(ids, []).append(slot)
    return slots


def _name_some(what: str, names: Sequence[str]) -> None:
    if names:
        remark(f"{what}: {len(names)}")
        for name in names[:_MOST_NAMED]:
            remark(f"  {name}")
        if len(names) > _MOST_NAMED:
            remark(f"  ... and {len(names) - _MOST_NAMED} more: --json lists all")


def _pairs(options: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in options or ():
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"{option} {text!r} is not of the form NAME=VALUE")
        if name in pairs:
            raise UsageError(f"{option} names {name!r} twice")
        pairs[name] = value
    return pairs


def _features(options: Sequence[str] | None) -> dict[str, str] | None:
    """SLOT=FEATURE; where features are slots, FEATURE alone will do."""
    if not options:
        return None
    return _pairs([o if "=" in o else f"{o}={o}" for o in options], "--feature")


def _for_all(options: Sequence[str] | None) -> dict[str, str]:
    """NAME=VALUE, or VALUE for all names: "*"."""
    return _pairs([o if "=" in o else f"*={o}" for o in options or ()], "option")


def _row_times(rates: Sequence[str] | None, spans: Sequence[str] | None) -> "RowTimes":
    from vlpipe.stores.exchange import RowTimes, parse_rate

    files = {name: Path(text) for name, text in _for_all(spans).items()}
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"--spans: there is no file {path}")
    return RowTimes({n: parse_rate(text) for n, text in _for_all(rates).items()}, files)


def _key_table(
    paths: Sequence[Path] | None, id_column: str, key_column: str, prefix: str
) -> "KeyTable":
    from vlpipe.stores.exchange import KeyTable, read_key_tables

    if not paths:
        return KeyTable(prefix=prefix)
    return read_key_tables(paths, id_column, key_column, prefix)


def _check_layout(name: str, source: Path) -> None:
    """Before a store is made: is there such a layout, and something to import?"""
    from vlpipe.stores.exchange import find_layout

    find_layout(name)
    if not source.exists():
        raise UsageError(f"there is nothing at {source}", hint="check --from")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{text!r} is no number of rows")
    return int(text)


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.replace(",", "x").split("x")
    return tuple(_count(size) for size in sizes)


@contextmanager
def _show_progress(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """What exports and imports report to: a bar on a terminal, else a line now and then."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%"),
        )
        with Progress(*columns, TimeRemainingColumn(), console=messages()) as bar:
            tasks: dict[str, Any] = {}

            def draw(stage: str, done: int, total: int) -> None:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=total)
                bar.update(tasks[stage], completed=done, total=total)

            yield draw
        return
    last = time.monotonic()

    def write(stage: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_EVERY_S or (stage != "hash" and done == total):
            last = now
            what = "bytes" if stage == "hash" else unit
            remark(f"{stage}: {done:,} of {total:,} {what}")

    yield write
