"""Versions of a store on the command line: which one is read, and `vlpipe store tag`."""

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
        help="The newest version of that time, UTC where it names no zone.",
        metavar="2026-05-04T10:11:12Z",
    ),
]

EXAMPLE = (
    "Examples:  vlpipe store tag vlpipe-store baseline --version 17   vlpipe store tag vlpipe-store"
)


def open_version(url: str, version: str | None = None, at: str | None = None) -> "FeatureStore":
    """The store as it is, or as it was; raises as `FeatureStore.open`."""
    from vlpipe.stores import FeatureStore

    # A tag may not consist of digits alone, so that nothing is meant by two.
    number = int(version) if version is not None and version.isdecimal() else version
    return FeatureStore.open(url, number, at=at)


def tag(
    url: Annotated[str, typer.Argument(metavar="STORE", help="The feature store.")],
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Left out: the tags are listed.")
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
    with open_version(url, version, at) as store:
        if name is None:
            if remove or note is not None:
                raise UsageError("no tag named", hint="vlpipe store tag STORE NAME")
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
