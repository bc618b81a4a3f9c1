"""How far an extraction is, as the progress artifact of its flow run."""

import threading

from vlpipe.pipelines.extraction.observer import Silent
from vlpipe.pipelines.extraction.planning import Plan
from vlpipe.pipelines.extraction.receipts import Failure
from vlpipe.pipelines.prefect_parts.progress import ProgressArtifact


class ExtractionBar(Silent):
    """An observer of extraction that moves a bar, video by video."""

    def __init__(self) -> None:
        self._bar: ProgressArtifact | None = None
        self._lock = threading.Lock()
        self._done = self._total = 0

    def on_plan(self, plan: Plan) -> None:
        self._total = plan.num_tasks
        if self._total:
            self._bar = ProgressArtifact(
                "extraction-progress", f"{self._total} videos of {plan.job.source_name}"
            )

    def on_video(self, video_id: str, failures: tuple[Failure, ...]) -> None:
        del video_id, failures
        with self._lock:
            self._done += 1
            share = self._done / self._total
        if self._bar is not None:
            self._bar.show(share)
