"""How far a training is, as the progress artifact of its flow run."""

from vlpipe.pipelines.prefect_parts.progress import ProgressArtifact
from vlpipe.pipelines.training.material import Material
from vlpipe.pipelines.training.state import Progress


class TrainingBar:
    """An observer of training that moves a bar; it appears when a training begins."""

    def __init__(self, key: str, description: str) -> None:
        self._key, self._description = key, description
        self._bar: ProgressArtifact | None = None
        self._epochs = 1

    def on_start(self, material: Material, progress: Progress) -> None:
        self._epochs = material.job.settings.epochs or 1
        self._bar = ProgressArtifact(self._key, self._description)
        self._show(progress.epoch)

    def on_step(self, progress: Progress, num_batches: int) -> None:
        self._show(progress.epoch + progress.batch / max(1, num_batches))

    def on_epoch(self, row: dict[str, float]) -> None:
        del row

    def _show(self, epochs: float) -> None:
        if self._bar is not None:
            self._bar.show(epochs / self._epochs)
