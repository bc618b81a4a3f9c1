"""Features of media that stand in no dataset, made as those that a run was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.training.material import Material
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import UsageError


@dataclass(frozen=True)
class MediaFeatures:
    """store: holds the features. ids: file -> its id in the store, of the files that could be read.
    failed: file -> what is wrong with it."""

    store: FeatureStore
    ids: dict[Path, str]
    failed: dict[Path, str]


def features_like(
    material: Material,
    paths: Sequence[Path],
    store: Path,
    *,
    device: str = "auto",
    observer: Observer | None = None,
) -> MediaFeatures:
    """Makes the features of media files as those of the run's snapshot were made, in a new store.

    store: the folder of that store. A file that cannot be read fails alone.
    Raises UsageError if the features were not made by vlpipe, or come out as another generation:
    then other numbers than in training would reach the network.
    """
    from vlpipe.pipelines.extraction.extract import run_extraction
    from vlpipe.pipelines.extraction.job import ExtractionJob

    ids, failed = _file_ids(paths)
    if not ids:  # of videos of the store alone it does not matter who made their features
        return MediaFeatures(material.store, {}, failed)
    wanted = {name: material.store[name].info for name in dict.fromkeys(material.slots.values())}
    names, settings, weights = _extractors({n: i.provenance for n, i in wanted.items()})
    dtypes = {info.dtype for info in wanted.values()}
    job = ExtractionJob.model_validate(
        {
            "paths": [path.absolute() for path in ids],
            "store": str(store),
            "features": names,
            "settings": settings,
            "weights": weights,
            "device": "cpu" if device == "auto" else device,
            "store_dtype": dtypes.pop() if len(dtypes) == 1 else "float16",
        }
    )
    summary = run_extraction(job, observer=observer)
    reasons = {failure.id: failure.message for failure in summary.failed}
    failed |= {path: reasons[video_id] for path, video_id in ids.items() if video_id in reasons}
    readable = {path: video_id for path, video_id in ids.items() if path not in failed}
    made = FeatureStore.open(store)
    for name, info in wanted.items() if readable else ():
        if name not in made or made[name].info.generation != info.generation:
            raise UsageError(
                f"{name} of {next(iter(readable))} cannot be made as the run's were: generation "
                f"{info.generation} was read in training",
                hint="extract the files into the run's store with the same options, and name ids",
            )
    return MediaFeatures(made, readable, failed)


def _file_ids(paths: Sequence[Path]) -> tuple[dict[Path, str], dict[Path, str]]:
    """(file -> id, file -> what is wrong): the names of files are their ids in a store."""
    from vlpipe.stores.datasets.folder import FolderDataset

    ids, failed = dict[Path, str](), dict[Path, str]()
    for path in dict.fromkeys(paths):
        if not path.is_file():
            failed[path] = "there is no such file"
            continue
        (video,) = FolderDataset.from_paths([path.absolute()]).videos()
        if video.problem is not None:
            failed[path] = video.problem
        elif video.id in ids.values():
            failed[path] = f"another file here has the same name, {video.id!r}: rename one"
        else:
            ids[path] = video.id
    return ids, failed


def _extractors(
    provenances: Mapping[str, Mapping[str, Any]],
) -> tuple[tuple[str, ...], dict[str, dict[str, Any]], dict[str, str]]:
    """Extractors, their settings and weights, of the provenance of features."""
    from vlpipe.extractors.registry import find_extractor

    settings: dict[str, dict[str, Any]] = {}
    weights: dict[str, str] = {}
    for feature, provenance in provenances.items():
        try:
            name, config = provenance["extractor"]["name"], provenance["config"]
        except (KeyError, TypeError) as error:
            raise UsageError(
                f"{feature} was not made by an extractor of vlpipe, so that it cannot be made of "
                "another file",
                hint="name a video of the run's store, by its id",
            ) from error
        own = settings.setdefault(name, dict(config))
        if "outputs" in find_extractor(name).Config.model_fields:
            own["outputs"] = (*own.get("outputs", ()), provenance["output"])
        if provenance.get("weights", {}).get("untrained"):
            weights[name] = "untrained"
    names = tuple(settings)
    for provenance in provenances.values():
        _add_sources(provenance, settings, weights)
    return names, settings, weights


def _add_sources(
    provenance: Mapping[str, Any], settings: dict[str, dict[str, Any]], weights: dict[str, str]
) -> None:
    """Settings and weights of what an extractor reads, of what that reads, and so on."""
    for source in provenance.get("sources", {}).values():
        name = source["extractor"]["name"]
        # The outputs of a source are those that its readers ask for.
        config = {key: value for key, value in source["config"].items() if key != "outputs"}
        settings.setdefault(name, config)
        if source.get("weights", {}).get("untrained"):
            weights[name] = "untrained"
        _add_sources(source, settings, weights)
