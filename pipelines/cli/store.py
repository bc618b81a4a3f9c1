"""`vlpipe store`: what a feature store holds, and whether it is sound."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlpipe.pipelines.cli import store_care, store_exchange, store_versions
from vlpipe.pipelines.cli.output import (
    AsJson,
    confirm,
    print_facts,
    print_json,
    print_table,
    readable_bytes,
    remark,
)
from vlpipe.pipelines.cli.store_versions import At, Version, open_version
from vlpipe.stores.errors import StoreDamaged, UsageError

if TYPE_CHECKING:
    from vlpipe.stores import FeatureInfo, FeatureStore
    from vlpipe.stores.verification import VerifyReport

app = typer.Typer(help="Feature stores: contents, checks, deletion.", no_args_is_help=True)
store_exchange.add_commands(app)
app.command("tag", epilog=store_versions.EXAMPLE)(store_versions.tag)
app.command("care", epilog="Example:  vlpipe store care vlpipe-store")(store_care.care)

Url = Annotated[str, typer.Argument(metavar="STORE", help="The feature store.")]

_MOST_NAMED = 50


@app.command("ls", epilog="Example:  vlpipe store ls vlpipe-store")
def list_(
    url: Url,
    videos: Annotated[bool, typer.Option("--videos", help="List videos instead.")] = False,
    version: Version = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """List the features of a store, or its videos."""
    with open_version(url, version, at) as store:
        if videos:
            rows = store.videos().to_pylist()
            if as_json:
                print_json({"store": url, "videos": [_plain(row) for row in rows]})
                return
            columns = ("video_id", "feature", "rows", "note", "version")
            print_table(columns, [[row[c] for c in columns] for row in rows])
            return
        facts = _features(store)
    if as_json:
        print_json({"store": url, "features": facts})
        return
    print_table(
        ("feature", "generation", "videos", "rows", "row", "dtype", "bytes", "weights"),
        [
            (
                f["feature"],
                f["generation"] + ("" if f["is_active"] else " (not active)"),
                f["videos"],
                f["rows"],
                " x ".join(map(str, f["row_shape"])),
                f["dtype"],
                readable_bytes(f["bytes"]),
                f["weights"],
            )
            for f in facts
        ],
    )


@app.command("info", epilog="Example:  vlpipe store info vlpipe-store --feature resnet152")
def info(
    url: Url,
    feature: Annotated[
        str | None, typer.Option(help="Show the whole provenance of this feature.")
    ] = None,
    version: Version = None,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """Show size, version and history of a store, or the provenance of one feature."""
    import json

    with open_version(url, version, at) as store:
        if feature is not None:
            definition = store[feature].info.definition.to_json()
            typer.echo(json.dumps({"schema_version": 1} | definition, indent=1))
            return
        facts = _features(store)
        entries = store.log()
        summary: dict[str, Any] = {
            "store": url,
            "version": store.version,
            "features": len({f["feature"] for f in facts}),
            "generations": len(facts),
            "videos": len(set(store.videos()["video_id"].to_pylist())),
            "in_quarantine": len(set(store.failed()["video_id"].to_pylist())),
            "bytes": sum(f["bytes"] for f in facts),
            "last_commit": entries[-1].time if entries else None,
        }
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary)


@app.command("verify", epilog="Example:  vlpipe store verify vlpipe-store --repair")
def verify(
    url: Url,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Mend what can be mended; videos with damaged rows become missing, so that "
            "extraction makes them again.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check every checksum, size and ledger entry; exit code 4 if something is damaged."""
    import dataclasses

    with open_version(url) as store:
        report = store.verify()
        if repair and not report.is_sound:
            _name_problems(report)
            num_lost = len({(p.feature, p.video_id) for p in report.problems if p.area == "video"})
            if num_lost and not yes:
                question = f"Put {num_lost} damaged videos of {url} back to missing?"
                confirm(question)
            report = store.verify(repair=True)
    if as_json:
        print_json({"store": url, "is_sound": report.is_sound} | dataclasses.asdict(report))
    else:
        print_facts(
            [
                ("store", f"{url} (version {report.version})"),
                ("ledger entries", report.num_entries),
                ("checkpoints", report.num_checkpoints),
                ("parts", report.num_parts),
                ("videos, once per feature", report.num_videos),
                ("bytes compared", readable_bytes(report.num_bytes)),
                ("orphan parts (harmless)", len(report.orphan_parts)),
                ("problems", len(report.problems)),
                ("repaired", len(report.repaired)),
                ("videos to extract again", len(report.lost)),
                ("seconds", report.seconds),
            ]
        )
        for sentence in report.repaired[:_MOST_NAMED]:
            remark(f"repaired: {sentence}")
        for feature, _, video_id in report.lost[:_MOST_NAMED]:
            remark(f"missing now: {video_id} of {feature}")
        _name_problems(report)
        for message in report.past_damage[:_MOST_NAMED]:
            remark(f"damaged, only older versions use it: {message}")
    raise typer.Exit(0 if report.is_sound else StoreDamaged.exit_code)


@app.command("compact", epilog="Example:  vlpipe store compact vlpipe-store")
def compact(
    url: Url,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="Only this feature (NAME or NAME@GENERATION); can be repeated."),
    ] = None,
    target_mb: Annotated[int, typer.Option(help="Size of the new parts in MiB.", min=1)] = 1024,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Rewrite small parts, and parts with deleted rows, into few large ones.

    Readers and writers may go on meanwhile. "vlpipe store gc" removes the old parts later.
    """
    with open_version(url) as store:
        report = store.compact(feature or None, target_bytes=target_mb * 2**20, dry_run=dry_run)
        version = store.version
    facts: dict[str, Any] = {
        "parts_before": report.parts_before,
        "parts_after": report.parts_after,
        "videos": report.num_videos,
        "bytes": report.num_bytes,
        "damaged": len(report.damaged),
        "version": version,
    }
    if as_json:
        print_json({"store": url, "is_dry_run": dry_run} | facts)
    else:
        _print_summary(facts)
        for name, _, video_id in report.damaged[:_MOST_NAMED]:
            remark(f"damaged: {video_id} of {name} stays where it is")
        if report.damaged:
            remark(f"hint: vlpipe store verify {url} --repair")
    raise typer.Exit(StoreDamaged.exit_code if report.damaged else 0)


@app.command("gc", epilog="Example:  vlpipe store gc vlpipe-store --yes")
def collect(
    url: Url,
    keep_days: Annotated[
        float, typer.Option(help="Older versions stay readable so long.", min=0)
    ] = 7.0,
    grace_hours: Annotated[
        float,
        typer.Option(help="Leave younger files alone. Under 24 no writer may be at work.", min=0),
    ] = 24.0,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove; without it only say what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what no retained version needs: leftovers of killed writers, old parts and history."""
    with open_version(url) as store:
        report = store.gc(grace_hours * 3600, retention_s=keep_days * 86400, dry_run=not yes)
        unpurged = store.unpurged()
    facts: dict[str, Any] = {
        "parts": len(report.parts),
        "leftovers": len(report.leftovers),
        "checkpoints": len(report.checkpoints),
        "ledger_entries": len(report.entries),
        "bytes": report.num_bytes,
        "videos_not_purged_yet": len(unpurged),
    }
    if as_json:
        print_json({"store": url, "is_dry_run": not yes} | facts | {"unpurged": unpurged})
        return
    _print_summary(facts)
    if not yes:
        remark("nothing was removed; --yes removes")


@app.command("failed", epilog="Example:  vlpipe store failed vlpipe-store")
def failed(url: Url, as_json: AsJson = False) -> None:
    """List the videos in quarantine, with the reasons."""
    with open_version(url) as store:
        rows = [_plain(row) for row in store.failed().to_pylist()]
    if as_json:
        print_json({"store": url, "failed": rows})
        return
    if not rows:
        remark("no video is in quarantine")
        return
    columns = ("video_id", "feature", "kind", "attempt", "message")
    print_table(columns, [[row[c] for c in columns] for row in rows])


@app.command("log", epilog="Example:  vlpipe store log vlpipe-store")
def log(url: Url, as_json: AsJson = False) -> None:
    """List the commits, oldest first."""
    with open_version(url) as store:
        entries = [
            {"version": e.version, "time": e.time, "host": e.host, "what": "; ".join(e.operations)}
            for e in store.log()
        ]
    if as_json:
        print_json({"store": url, "log": entries})
    else:
        print_table(
            ("version", "time", "host", "what"), [list(entry.values()) for entry in entries]
        )


@app.command("rm", epilog="Example:  vlpipe store rm vlpipe-store --video clip1 --yes")
def remove(
    url: Url,
    video: Annotated[
        list[str] | None, typer.Option(help="A video; can be repeated.", metavar="ID")
    ] = None,
    feature: Annotated[
        str | None,
        typer.Option(help="Only this feature; alone: the whole feature (NAME or NAME@GENERATION)."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept in the store's log.")] = "",
    purge: Annotated[
        bool, typer.Option("--purge", help="The bytes are to go as well, with compact and gc.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete videos or a feature: readers no longer see them, older versions still do."""
    ids = list(dict.fromkeys(video or ()))
    if not ids and feature is None:
        raise UsageError("nothing named to delete", hint="--video ID or --feature NAME")
    what = f"{len(ids)} videos" if ids else "all rows"
    what += f" of feature {feature}" if feature else ""
    with open_version(url) as store:
        store.check_writable()
        if ids:
            _require_known(store, ids)
        dropped = [] if feature is None or ids else _generations(store, feature)
        if not yes:
            confirm(f"Delete {what} from {url}?")
        if ids:
            features = [feature] if feature else None
            store.delete(ids, features=features, reason=reason, purge=purge)
        for info in dropped:
            store.drop(info.name, info.generation)
        version = store.version
    if as_json:
        print_json({"store": url, "deleted": ids, "feature": feature, "version": version})
    else:
        typer.echo(f"deleted {what} from {url} (version {version})")
        if purge:
            remark(
                f"the bytes are still there: vlpipe store compact {url}, then, when no version "
                f"that has them is retained, vlpipe store gc {url} --yes"
            )


def _name_problems(report: "VerifyReport") -> None:
    for problem in report.problems[:_MOST_NAMED]:
        remark(f"damaged: {problem.area}: {problem.message}")


def _print_summary(facts: dict[str, Any]) -> None:
    """Counts by name; those of bytes in a readable unit."""
    print_facts(
        (key.replace("_", " "), readable_bytes(value) if key == "bytes" else value)
        for key, value in facts.items()
    )


def _require_known(store: "FeatureStore", ids: list[str]) -> None:
    known = set(store.videos()["video_id"].to_pylist()) | set(
        store.failed()["video_id"].to_pylist()
    )
    unknown = [video_id for video_id in ids if video_id not in known]
    if unknown:
        raise UsageError(
            f"{store.url} has no video {', '.join(map(repr, unknown[:5]))}",
            hint=f"vlpipe store ls {store.url} --videos",
        )


def _generations(store: "FeatureStore", feature: str) -> "list[FeatureInfo]":
    """The one generation of `NAME@GENERATION`, all of `NAME`; FeatureMissing if there is none."""
    if "@" in feature:
        return [store[feature].info]
    return store.generations(feature)


def _features(store: "FeatureStore") -> list[dict[str, Any]]:
    return [
        {
            "feature": found.name,
            "generation": found.generation,
            "is_active": found.is_active,
            "videos": found.num_videos,
            "rows": found.num_rows,
            "row_shape": list(found.row_shape),
            "dtype": found.dtype,
            "bytes": found.num_bytes,
            "is_untrained": found.is_untrained,
            "weights": found.definition.weights,
        }
        for name in store.feature_names
        for found in store.generations(name)
    ]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.hex() if isinstance(value, bytes) else str(value) if hasattr(value, "isoformat")
        else value
        for key, value in row.items()
    }  # fmt: skip
