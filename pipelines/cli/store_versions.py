"""Versions of a store on the command line: which one is read, and `vlpipe store tag`."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_json, print_table, remark
from vlpipe.stores.errors import UsageError

if TYPE_CHECKING:
    from vlpipe.stores import FeatureStore

Version = Annotated[
    str | None,
    typer.Option(
        help="An older version: its number or its tag (`vlpipe store log`, `vlpipe store tag`).",
        metavar="NUMBER|TAG",
    ),
]
At = Annotated[
    str | None,
    typer.Option(
        help="The newest version of that time, UTC where it names no zone; a date is its first "
        "moment.",
        metavar="2026-05-04T10:11:12Z",
    ),
]

EXAMPLE = (
    "Examples:  vlpipe store tag vlpipe-store baseline --version 17   vlpipe store tag vlpipe-store"
)


def open_version(url: str, version: str | None = None, at: str | None = None) -> "FeatureStore":
    """The store as it is, or as it was; raises as `FeatureStore.open`."""
    from vlpipe.stores import FeatureStore

    # No tag looks like a number, so that nothing is meant by two.
    is_number = version is not None and re.fullmatch(r"-?[0-9]{1,18}", version)
    store = FeatureStore.open(url, int(version) if version and is_number else version, at=at)
    if at is not None and store.version == 0:
        remark(f"{url} had no commits at {at}")
    return store


def tag(
    url: Annotated[str, typer.Argument(metavar="STORE", help="The feature store.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Left out: the tags are listed.")
    ] = None,
    version: Version = None,
    at: At = None,
    note: Annotated[str | None, typer.Option(help="Kept with the tag.")] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the name away; the version loses its protection.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Name a version for ever, so that it stays readable; or list the names."""
    is_of_version = version is not None or at is not None or note is not None
    if name is None and (remove or is_of_version):
        raise UsageError("no tag named", hint="vlpipe store tag STORE NAME")
    if remove and is_of_version:
        raise UsageError("a tag is taken away by its name alone", hint=f"--remove {name}")
    with open_version(url, version, at) as store:
        if name is None:
            pass
        elif remove:
            store.untag(name)
        else:
            store.tag(name, note)
        tags = store.tags()
        if as_json:
            found = [{"tag": t.name, "version": t.version, "note": t.note} for t in tags]
            print_json({"store": url, "tags": found})
        elif name is not None:
            what = "no version any more" if remove else f"version {store.version}"
            typer.echo(f"{name} names {what} of {url}")
        elif tags:
            print_table(
                ("tag", "version", "note"), [(t.name, t.version, t.note or "") for t in tags]
            )
        else:
            remark(f"{url} has no tags")
