"""Who is told how an extraction goes."""

from typing import Protocol

from vlpipe.pipelines.extraction.planning import Plan
from vlpipe.pipelines.extraction.receipts import BatchReceipt, Failure


class Observer(Protocol):
    """Is told how an extraction goes; the command line draws progress from it."""

    def on_plan(self, plan: Plan) -> None: ...

    def on_notice(self, text: str) -> None:
        """Something to know about how it runs, such as the address of a dashboard."""

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None: ...

    def on_batch(self, receipt: BatchReceipt) -> None: ...


class Silent:
    """An observer that says nothing."""

    def on_plan(self, plan: Plan) -> None:
        del plan

    def on_notice(self, text: str) -> None:
        del text

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None:
        del video_id, failures

    def on_batch(self, receipt: BatchReceipt) -> None:
        del receipt
