"""Mending what `verify` found, as far as the store itself says what is right.

- Damaged checkpoints are removed; the ledger says the same, and a new one is made.
- `zarr.json` files are functions of the ledger and are written again.
- Videos whose bytes are damaged become missing again, by a ledger entry that names them: extraction
  makes them anew. Older versions keep showing the damage.
- Parts that are damaged around their rows are rewritten; all rows are compared on the way.

Entries of the ledger, tags and pins exist once: they can only come from a backup.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from vlpipe.stores import zarr_metadata
from vlpipe.stores.compaction import Commit, Compactor, CompactReport
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.layout import DATA, NODE_FILE, new_batch_id
from vlpipe.stores.ledger import Op
from vlpipe.stores.part import Part
from vlpipe.stores.part_verification import part_nodes
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage
from vlpipe.stores.verification import Problem, VerifyReport


@dataclass
class Repairs:
    """What was done, in sentences, and which videos are missing now.

    lost: (feature, generation, video id): extract them again.
    """

    done: list[str] = field(default_factory=list)
    lost: list[tuple[str, str, str]] = field(default_factory=list)


def repair_store(
    storage: Storage, newest: Callable[[], State], commit: Commit, report: VerifyReport
) -> Repairs:
    """Mends the problems of a deep report; `newest` gives the state with all that was committed."""
    repairs = Repairs()
    for problem in report.problems:
        if problem.area == "checkpoint" and problem.path is not None:
            storage.remove(problem.path)
            repairs.done.append(f"removed the damaged checkpoint {problem.path}")
    state = newest()
    _mend_nodes(storage, state, repairs)
    _lose_videos(state, commit, report.problems, repairs)
    _rewrite_parts(storage, newest(), commit, report.problems, repairs)
    return repairs


def _mend_nodes(storage: Storage, state: State, repairs: Repairs) -> None:
    nodes = {f"{DATA}/{NODE_FILE}": zarr_metadata.group()}
    for generation in state.generations.values():
        parts = {row.part for _, row in generation.rows()}
        if parts:
            nodes |= zarr_metadata.groups_above(generation.definition)
        for part in parts:
            if part.is_plain and not _is_lost(storage, part):
                nodes |= part_nodes(generation.definition, part)
    for name, node in nodes.items():
        try:
            is_same = json.loads(storage.read(name)) == node
        except (OSError, ValueError):
            is_same = False
        if not is_same:
            storage.replace(name, zarr_metadata.encode(node))
            repairs.done.append(f"wrote {name} again")


def _is_lost(storage: Storage, part: Part) -> bool:
    """Whether nothing of a part exists, so that writing metadata would make it look alive."""
    return not storage.names(part.folder)


def _lose_videos(state: State, commit: Commit, problems: list[Problem], repairs: Repairs) -> None:
    lost: dict[tuple[str, str, str], dict[str, None]] = {}
    for problem in problems:
        if problem.area == "video" and problem.feature and problem.generation and problem.part:
            key = (problem.feature, problem.generation, problem.part)
            lost.setdefault(key, {})[problem.video_id or ""] = None
    if not lost:
        return

    def resolve(now: State) -> list[Op]:
        ops: list[Op] = []
        for (feature, generation, part), video_ids in lost.items():
            found = now.generations.get((feature, generation))
            ids = list(video_ids)
            rows = [None] * len(ids) if found is None else found.find_many(ids)
            still = [
                video_id
                for video_id, row in zip(ids, rows, strict=True)
                if row is not None and row.part.id == part
            ]
            if still:
                ops.append(
                    {
                        "op": "lose",
                        "feature": feature,
                        "generation": generation,
                        "part": part,
                        "videos": still,
                        "reason": "damaged",
                    }
                )
        return ops

    commit(resolve, new_batch_id())
    for (feature, generation, _), video_ids in lost.items():
        repairs.lost += [(feature, generation, video_id) for video_id in video_ids]


def _rewrite_parts(
    storage: Storage, state: State, commit: Commit, problems: list[Problem], repairs: Repairs
) -> None:
    # Also those that lost a video: what is damaged there would be found again and again.
    broken = {problem.part for problem in problems if problem.part}
    for generation in list(state.generations.values()):
        parts = _named_parts(generation, broken)
        if not parts:
            continue
        report = CompactReport(is_dry_run=False)
        Compactor(storage, commit, report).rewrite(generation, parts)
        repairs.done += [f"rewrote the sound rows of {part.folder}" for part in parts]


def _named_parts(generation: GenerationState, ids: set[str]) -> list[Part]:
    found = {row.part for _, row in generation.rows() if row.part.id in ids and row.part.is_plain}
    return sorted(found, key=lambda part: part.id)
