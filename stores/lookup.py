"""Finding a feature by name, and saying what there is when it is not found."""

from vlpipe.stores.errors import FeatureMissing, UsageError, VideoMissing
from vlpipe.stores.generation import GenerationState
from vlpipe.stores.state import State


def find_generation(url: str, state: State, name: str) -> GenerationState:
    """The active generation of `feature`, or the generation of `feature@generation`."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a feature is text, found {name!r}")
    feature, separator, generation = name.partition("@")
    key = (feature, generation if separator else state.active.get(feature, ""))
    found = state.generations.get(key)
    if found is None:
        raise feature_missing(url, state, name)
    return found


def feature_missing(url: str, state: State, name: str) -> FeatureMissing:
    """The error for a name that is not in the store; it lists those that are."""
    known = sorted(state.active)
    known += [
        f"{feature}@{generation}"
        for feature, generation in sorted(state.generations)
        if state.active.get(feature) != generation
    ]
    return FeatureMissing(
        f"{url} has no feature {name!r}; it has: {', '.join(known) if known else 'none'}",
        hint=f"vlpipe store ls {url} shows features and generations",
    )


def check_complete(state: State, old: GenerationState, new: GenerationState) -> None:
    """Raises UsageError when videos of `old` are neither stored nor failed in `new`."""
    ids = old.video_ids()
    missing = [
        video_id
        for video_id, row in zip(ids, new.find_many(ids), strict=True)
        if row is None and state.failures.get((*new.key, video_id)) is None
    ]
    if missing:
        raise UsageError(
            f"{'@'.join(new.key)} lacks {len(missing)} of {len(ids)} videos, among them "
            f"{', '.join(missing[:3])}",
            hint="extract them first, or allow_missing=True",
        )


def video_missing(url: str, state: State, key: tuple[str, str], video_id: str) -> VideoMissing:
    """Why a feature generation has no rows of a video."""
    feature, generation = key
    what = f"video {video_id!r} has no rows of {'@'.join(key)} in {url}"
    deletion = state.deletion(video_id, feature)
    if deletion is not None:
        reason = f" ({deletion.reason})" if deletion.reason else ""
        return VideoMissing(f"{what}: deleted by version {deletion.version}{reason}")
    failure = state.failures.get((feature, generation, video_id))
    if failure is not None:
        return VideoMissing(
            f"{what}: failed ({failure.kind}) at attempt {failure.attempt}: {failure.message}",
            hint="vlpipe extract --retry-failed tries again",
        )
    return VideoMissing(f"{what}: never written", hint="vlpipe extract makes it")
