"""What a writer wants to commit, and what is left of it once others have committed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlpipe.stores.errors import UsageError
from vlpipe.stores.features import FeatureDefinition
from vlpipe.stores.ledger import Op
from vlpipe.stores.part import Part
from vlpipe.stores.state import State

Mode = Literal["keep", "replace"]

# The columns of the videos of an `add` operation.
VIDEO_COLUMNS = (
    "id",
    "row_start",
    "row_size",
    "crc32c",
    "spans_crc32c",
    "source",
    "seconds",
    "source_size",
    "source_mtime_ns",
    "note",
)


@dataclass(frozen=True)
class PendingPart:
    """A finished part and its videos, one list a column of VIDEO_COLUMNS."""

    definition: FeatureDefinition
    part: Part
    videos: dict[str, list[Any]]


@dataclass(frozen=True)
class PendingFailure:
    video_id: str
    definition: FeatureDefinition
    kind: str
    message: str
    retry: bool


@dataclass
class Resolution:
    """The operations to commit, and what becomes of each (video, feature) of the change."""

    ops: list[Op] = field(default_factory=list)
    added: int = 0
    kept: int = 0
    deleted: int = 0
    failed: int = 0
    num_bytes: int = 0
    unused: list[Part] = field(default_factory=list)


@dataclass
class Change:
    """Everything between entering and leaving a writer's block.

    base_version: version of the store when the block was entered.
    activate: whether to make the generations the active ones; None: where there is none.
    restore: whether videos may come back that were deleted.
    """

    definitions: Sequence[FeatureDefinition]
    base_version: int
    mode: Mode = "keep"
    activate: bool | None = None
    restore: bool = False
    parts: list[PendingPart] = field(default_factory=list)
    failures: list[PendingFailure] = field(default_factory=list)

    def resolve(self, state: State) -> Resolution:
        """What is left to do on this state. The rules make every repetition harmless."""
        result = Resolution()
        body: list[Op] = []
        for pending in self.parts:
            body += self._resolve_part(state, pending, result)
        body += self._resolve_failures(state, result)
        for definition in self.definitions:
            result.ops += self._resolve_definition(state, definition, body)
        result.ops += body
        return result

    def _resolve_part(self, state: State, pending: PendingPart, result: Resolution) -> list[Op]:
        name, generation = pending.definition.name, pending.definition.generation
        found = state.generations.get((name, generation))
        ids = pending.videos["id"]
        live = [None] * len(ids) if found is None else found.find_many(ids)
        may_be_deleted = bool(state.deletions) and not self.restore
        chosen = []
        for number, (video_id, row) in enumerate(zip(ids, live, strict=True)):
            if row is not None and self.mode == "keep":
                result.kept += 1
            elif row is None and may_be_deleted and state.deletion(video_id, name) is not None:
                result.deleted += 1  # a straggler does not bring a deleted video back
            else:
                chosen.append(number)
        if not chosen:
            result.unused.append(pending.part)
            return []
        result.added += len(chosen)
        result.num_bytes += pending.part.num_bytes
        columns = pending.videos  # the usual case: all of them
        if len(chosen) < len(ids):
            columns = {
                column: [pending.videos[column][number] for number in chosen]
                for column in VIDEO_COLUMNS
            }
        return [
            {
                "op": "add",
                "feature": name,
                "generation": generation,
                "mode": self.mode,
                "part": pending.part.to_json(),
                "videos": columns,
            }
        ]

    def _resolve_failures(self, state: State, result: Resolution) -> list[Op]:
        columns: dict[str, list[Any]] = {
            name: []
            for name in ("id", "feature", "generation", "kind", "message", "attempt", "retry")
        }
        for failure in self.failures:
            name, generation = failure.definition.name, failure.definition.generation
            found = state.generations.get((name, generation))
            if found is not None and found.locate(failure.video_id) is not None:
                result.kept += 1
                continue
            if state.deletion(failure.video_id, name) is not None:
                result.deleted += 1
                continue
            before = state.failures.get((name, generation, failure.video_id))
            values = (
                failure.video_id,
                name,
                generation,
                failure.kind,
                failure.message,
                1 if before is None else before.attempt + 1,
                failure.retry,
            )
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
        result.failed = len(columns["id"])
        return [{"op": "fail", "videos": columns}] if columns["id"] else []

    def _resolve_definition(
        self, state: State, definition: FeatureDefinition, body: list[Op]
    ) -> list[Op]:
        name, generation = definition.name, definition.generation
        is_used = any(
            op.get("generation") == generation
            if op["op"] == "add"
            else generation in op["videos"]["generation"]
            for op in body
        )
        is_known = (name, generation) in state.generations
        ops: list[Op] = []
        if is_used and not is_known:
            dropped = state.dropped.get((name, generation))
            if dropped is not None and dropped > self.base_version:
                raise UsageError(
                    f"{name}@{generation} was dropped by entry {dropped} while it was written",
                    hint="write it again, if the drop was a mistake",
                )
            ops.append(define_op(definition))
        is_wanted = name not in state.active if self.activate is None else self.activate
        if is_wanted and (is_used or is_known) and state.active.get(name) != generation:
            ops.append({"op": "activate", "feature": name, "generation": generation})
        return ops


def define_op(definition: FeatureDefinition) -> Op:
    value = definition.to_json()
    return {
        "op": "define",
        "feature": value.pop("name"),
        "generation": definition.generation,
        "provenance": value.pop("provenance"),
        "spec": value,
    }
