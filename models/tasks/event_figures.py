"""Figures of records of events: with the reduced METEOR, and with Java's own where it is wanted."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from vlpipe.models.metrics.captioning import MeteorKind
from vlpipe.models.metrics.dense_captioning import evaluate_captions
from vlpipe.models.metrics.java_scoring import Meteor
from vlpipe.models.metrics.reduced_meteor import EXACT_STEM, ReducedMeteor
from vlpipe.models.metrics.soda import SodaVariant, evaluate_soda
from vlpipe.models.tasks.event_records import predictions_of, references_of
from vlpipe.models.tasks.task import Record


def caption_figures(
    records: Sequence[Record],
    place: int,
    annotators: Sequence[int],
    tious: Sequence[float],
    *,
    most: int | None,
    with_java: bool,
) -> dict[str, float]:
    """Of the lists of predictions at that place against those annotators, by the challenge's
    program."""
    predictions = predictions_of(records, place)
    references = [found for n in annotators if (found := references_of(records, n))]
    figures: dict[str, float] = {}
    for make in _meteors(with_java=with_java):
        with make() as meteor:
            figures |= evaluate_captions(
                predictions, references, tious=tious, most=most, meteor=meteor
            )
    return figures


def soda_figures(
    records: Sequence[Record], variant: SodaVariant, *, most: int, with_java: bool
) -> dict[str, float]:
    """SODA of the first lists of predictions, the events of both annotators as one story."""
    predictions = predictions_of(records, 0)
    references = [found for n in (0, 1) if (found := references_of(records, n))]
    figures: dict[str, float] = {}
    for make in _meteors(with_java=with_java):
        with make() as meteor:
            figures |= evaluate_soda(
                predictions, references, variant=variant, meteor=meteor, most=most
            )
    return figures


def _meteors(*, with_java: bool) -> list[Callable[[], AbstractContextManager[MeteorKind]]]:
    return [_reduced, Meteor] if with_java else [_reduced]


def _reduced() -> AbstractContextManager[MeteorKind]:
    return nullcontext(ReducedMeteor(EXACT_STEM))
