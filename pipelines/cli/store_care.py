"""`vlpipe store care`: all that a store needs now and then, in one command."""

from typing import TYPE_CHECKING, Annotated

import typer

from vlpipe.pipelines.cli.count_progress import show_count
from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, readable_bytes, remark
from vlpipe.stores.errors import StoreDamaged

if TYPE_CHECKING:
    from vlpipe.pipelines.store_care import StoreCareReport

_MOST_NAMED = 50


def care(
    url: Annotated[str, typer.Argument(metavar="STORE", help="The feature store.")],
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Mend what can be mended; videos with damaged rows become missing, so that "
            "extraction makes them again.",
        ),
    ] = False,
    keep_days: Annotated[
        float, typer.Option(help="Older versions stay readable so long.", min=0)
    ] = 7.0,
    grace_hours: Annotated[
        float,
        typer.Option(help="Leave younger files alone. Under 24 no writer may be at work.", min=0),
    ] = 24.0,
    as_json: AsJson = False,
) -> None:
    """Verify every byte; if the store is sound, compact it and remove what nobody needs.

    For cron and schedules: it asks nothing. Readers and writers may go on meanwhile. Exit code 4 if
    the store is damaged.
    """
    from vlpipe.pipelines.store_care import StoreCareJob, care_for_store

    job = StoreCareJob(store=url, repair=repair, keep_days=keep_days, grace_hours=grace_hours)
    with show_count("% verified") as progress:
        report = care_for_store(job, progress=lambda share: progress(round(100 * share), 100))
    if as_json:
        print_json(report.to_json())
    else:
        _show(report)
    raise typer.Exit(0 if report.is_sound else StoreDamaged.exit_code)


def _show(report: "StoreCareReport") -> None:
    print_facts(
        [
            ("store", f"{report.store} (version {report.version})"),
            ("videos, once per feature", report.num_videos),
            ("bytes compared", readable_bytes(report.compared_bytes)),
            ("problems", len(report.problems)),
            ("parts rewritten", f"{report.parts_before} into {report.parts_after}"),
            ("removed", f"{report.num_removed}, {readable_bytes(report.removed_bytes)}"),
            (
                "free on the disk",
                None if report.free_bytes is None else readable_bytes(report.free_bytes),
            ),
        ]
    )
    for sentence in report.repaired[:_MOST_NAMED]:
        remark(f"repaired: {sentence}")
    for feature, video_id in report.lost[:_MOST_NAMED]:
        remark(f"missing now: {video_id} of {feature}")
    for message in report.problems[:_MOST_NAMED]:
        remark(f"damaged: {message}")
    for message in report.past_damage[:_MOST_NAMED]:
        remark(f"damaged, only older versions use it: {message}")
    if report.problems:
        remark(f"hint: vlpipe store care {report.store} --repair")
