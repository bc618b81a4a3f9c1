"""Curves of a training for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter  # type: ignore[import-untyped]

_EVERY_STEPS = 10


class TrainingLog:
    """Event files below RUN/tensorboard; what an interrupted run wrote after `step` is hidden."""

    def __init__(self, run: Path, step: int, *, is_active: bool = True) -> None:
        self._folder, self._step, self._is_active = run / "tensorboard", step, is_active
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        if self._is_active:
            from tensorboardX import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=self._step)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def is_due(self, step: int) -> bool:
        """Whether the loss of this step is to be written."""
        return self._writer is not None and step % _EVERY_STEPS == 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A point on each curve."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
