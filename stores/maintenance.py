"""Which parts compaction takes, and which deleted videos still take space."""

from collections.abc import Callable, Sequence

from vlpipe.stores.compaction import Commit, Compactor, CompactReport, worth_rewriting
from vlpipe.stores.errors import StoreDamaged
from vlpipe.stores.folders import find_parts
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.layout import array_file
from vlpipe.stores.lookup import feature_missing, find_generation
from vlpipe.stores.part import Part
from vlpipe.stores.small_array import decode_texts
from vlpipe.stores.state import State
from vlpipe.stores.storage import Storage


def compact_store(
    storage: Storage,
    state: State,
    commit: Commit,
    features: Sequence[str] | None,
    *,
    target_bytes: int,
    is_dry_run: bool,
    progress: Callable[[int], None] | None = None,
) -> CompactReport:
    """Rewrites the parts that are worth it of some or all features."""
    if target_bytes < 1:
        raise ValueError(f"target_bytes is {target_bytes}, expected at least 1")
    report = CompactReport(is_dry_run)
    compactor = Compactor(storage, commit, report)
    for generation in _chosen(storage.url, state, features):
        must_go = _purging(storage, state, generation)
        parts = worth_rewriting(generation, target_bytes=target_bytes, must_go=must_go)
        if parts:
            compactor.rewrite(generation, parts, target_bytes=target_bytes, progress=progress)
    return report


def unpurged_videos(storage: Storage, state: State) -> list[str]:
    """Videos deleted with `purge` of which some part still has rows that are not live."""
    marks = [(key, mark) for key, mark in state.deletions.items() if mark.purge]
    found: set[str] = set()
    for folder in find_parts(storage) if marks else []:
        _, feature, generation, part_id = folder.split("/")
        held = set(_video_ids(storage, folder))
        for (video_id, name), _ in marks:
            if video_id in held and name in (None, feature):
                owner = state.generations.get((feature, generation))
                row = None if owner is None else owner.find(video_id)
                if row is None or row.part.id != part_id:
                    found.add(video_id)
    return sorted(found)


def _chosen(url: str, state: State, features: Sequence[str] | None) -> list[GenerationState]:
    if features is None:
        return [generation for _, generation in sorted(state.generations.items())]
    chosen: dict[tuple[str, str], GenerationState] = {}
    for name in features:
        if "@" in name:
            generation = find_generation(url, state, name)
            chosen[generation.key] = generation
            continue
        found = {key: g for key, g in sorted(state.generations.items()) if key[0] == name}
        if not found:
            raise feature_missing(url, state, name)
        chosen |= found
    return list(chosen.values())


def _purging(storage: Storage, state: State, generation: GenerationState) -> Callable[[Part], bool]:
    """Whether a part with dead rows has some of a video that was deleted with `purge`."""
    name = generation.definition.name
    marked = {
        video_id
        for (video_id, feature), mark in state.deletions.items()
        if mark.purge and feature in (None, name)
    }

    def must_go(part: Part) -> bool:
        return bool(marked) and not marked.isdisjoint(_video_ids(storage, part.folder))

    return must_go


def _video_ids(storage: Storage, folder: str) -> list[str]:
    """The ids in a part; none where it is unfinished or damaged, which `verify` tells."""
    name = array_file(folder, "video_id", 1)
    try:
        return decode_texts(storage.read(name), f"{storage.url}/{name}")
    except (FileNotFoundError, StoreDamaged):
        return []
