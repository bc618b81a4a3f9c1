"""What a server does by itself about runs of vlpipe: it notices dead ones, has them taken up again,
and tells about failures.

A run whose process or machine died stays `Running` on a server for ever, and keeps its place in the
limits. A self-hosted server has no automation against that until somebody makes one.
"""

from datetime import timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.settings import get_current_settings

from vlpipe.pipelines.prefect_parts.retries import MOST_STARTS
from vlpipe.stores.errors import UsageError

TAG = "vlpipe"
DEAD, RESTARTED, TOLD = (
    "vlpipe: runs without heartbeat have crashed",
    "vlpipe: crashed runs are started again",
    "vlpipe: tell about failures",
)
REQUIRED = (DEAD, RESTARTED)

_MISSED_HEARTBEATS = 3
_LONGEST_RUN = timedelta(days=30)
_ENDINGS = {"Completed", "Failed", "Crashed", "TimedOut", "Cancelled", "Cancelling", "Paused",
            "Suspended", "Scheduled", "AwaitingRetry"}  # fmt: skip
_BODY = """Flow run {{ flow.name }}/{{ flow_run.name }} is {{ flow_run.state.name }}:
{{ flow_run.state.message }}
{{ flow_run|ui_url }}"""


def put_automations(client: SyncPrefectClient, notify: str | None = None) -> list[str]:
    """The names of the automations that are there now; one of that name is brought up to date, and
    stays off if somebody switched it off.

    notify: TYPE/NAME of a notification block, such as slack-webhook/alerts; None leaves the
        automation that tells about failures as it is. Raises UsageError if there is no such block.
    """
    wanted = [_dead(), _restarted()]
    if notify is not None:
        wanted.append(_told(_find_block(client, notify)))
    for automation in wanted:
        found = client.read_automations_by_name(automation.name)
        if found:
            automation.enabled = found[0].enabled
            client.update_automation(found[0].id, automation)
        else:
            client.create_automation(automation)
    return [automation.name for automation in wanted]


def _events(*names: str) -> set[str]:
    return {f"prefect.flow-run.{name}" for name in names}


def _trigger(**fields: object) -> EventTrigger:
    """A trigger over runs of our deployments, each by itself."""
    return EventTrigger.model_validate(
        {
            "match": ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            "match_related": ResourceSpecification({"prefect.resource.id": f"prefect.tag.{TAG}"}),
            "for_each": {"prefect.resource.id"},
            **fields,
        }
    )


def _dead() -> AutomationCore:
    every_s = get_current_settings().flows.heartbeat_frequency or 180
    return AutomationCore(
        name=DEAD,
        description=f"No heartbeat for {_MISSED_HEARTBEATS * every_s} s: its process is gone.",
        trigger=_trigger(
            posture=Posture.Proactive,
            after=_events("heartbeat"),
            expect=_events("heartbeat", *_ENDINGS),
            within=timedelta(seconds=_MISSED_HEARTBEATS * every_s),
        ),
        actions=[
            ChangeFlowRunState(
                name="Crashed",
                state=StateType.CRASHED,
                force=False,
                message="No heartbeat any more: the process or its machine is gone.",
            )
        ],
    )


def _restarted() -> AutomationCore:
    return AutomationCore(
        name=RESTARTED,
        description=(
            f"At most {MOST_STARTS} starts. Nothing is done twice: stores and run folders say how "
            "far it was."
        ),
        # Only what had begun to run: what cannot even start would be started for ever.
        trigger=_trigger(
            posture=Posture.Reactive,
            after=_events("Running"),
            expect=_events("Crashed"),
            within=_LONGEST_RUN,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.SCHEDULED,
                name="AwaitingRetry",
                force=False,
                message="Crashed; a worker takes it up again.",
            )
        ],
    )


def _told(block: UUID) -> AutomationCore:
    return AutomationCore(
        name=TOLD,
        description="On failure, through the notification block of your choice.",
        trigger=_trigger(posture=Posture.Reactive, expect=_events("Failed", "TimedOut", "Crashed")),
        actions=[
            SendNotification(
                block_document_id=block,
                subject="vlpipe: {{ flow_run.name }} is {{ flow_run.state.name }}",
                body=_BODY,
            )
        ],
    )


def _find_block(client: SyncPrefectClient, name: str) -> UUID:
    from prefect.exceptions import ObjectNotFound

    kind, slash, document = name.partition("/")
    if not slash or not kind or not document:
        raise UsageError(f"{name!r} is no block", hint="TYPE/NAME, such as slack-webhook/alerts")
    try:
        return client.read_block_document_by_name(document, kind).id
    except ObjectNotFound as error:
        raise UsageError(
            f"the server has no block {name!r}", hint="`prefect block ls`; make one in its UI"
        ) from error
