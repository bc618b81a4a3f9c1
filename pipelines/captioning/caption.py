"""Captions of media files, or of videos of a store, by a run that learnt to tell of them."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlpipe.extractors.media import DecodePool
from vlpipe.models.tasks.dense_captioning import DenseCaptioning
from vlpipe.models.tasks.description import DescriptionTask
from vlpipe.pipelines.captioning.describing import Describer
from vlpipe.pipelines.captioning.events import CaptionedVideo
from vlpipe.pipelines.captioning.page import EMBED_BYTES, FRAMES_PER_EVENT, write_page
from vlpipe.pipelines.captioning.subtitles import subrip, webvtt
from vlpipe.pipelines.captioning.telling import EventChoice, Teller
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.media_features import features_like
from vlpipe.pipelines.training.devices import choose_device
from vlpipe.pipelines.training.material import Material, open_material
from vlpipe.pipelines.training.run_folder import RunFolder, load_model, write_json
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.datasets.folder import FolderDataset
from vlpipe.stores.errors import UsageError, VlpipeError

_USUAL_CHOICE = EventChoice()


@dataclass(frozen=True)
class Captions:
    """What a run says of several videos. failed: as they were named, and what is wrong with each.

    is_untrained: whether any feature that the run reads came from random numbers.
    """

    run: Path
    videos: tuple[CaptionedVideo, ...]
    failed: dict[str, str]
    is_untrained: bool


@dataclass(frozen=True, slots=True)
class CaptionFiles:
    """The files of one captioned video."""

    json: Path
    webvtt: Path
    subrip: Path
    page: Path

    def to_json(self) -> dict[str, str]:
        return {
            "json": str(self.json),
            "webvtt": str(self.webvtt),
            "subrip": str(self.subrip),
            "page": str(self.page),
        }


@dataclass(frozen=True, slots=True)
class _Source:
    """A video to caption: its id and the store of its features; path: of its media, if known."""

    named: str
    id: str
    store: FeatureStore
    path: Path | None


def caption_videos(
    run: Path | str,
    videos: Sequence[Path | str],
    *,
    choice: EventChoice = _USUAL_CHOICE,
    device: str = "auto",
    observer: Observer | None = None,
    on_captioned: Callable[[CaptionedVideo], None] | None = None,
) -> Captions:
    """Events and sentences of each video by the run's best model; a run that learnt `description`
    has one sentence for the whole of each.

    videos: ids of the run's store, media files, and folders of them. Features of files are made as
    those of the run were. choice: which events are told. observer: is told how the
    extraction goes.
    A video that cannot be captioned is in `failed` and stops no other. Raises UsageError when the
    run learnt something else, or its features cannot be made again.
    """
    folder = RunFolder(Path(run))
    task = folder.task()
    if not isinstance(task, DenseCaptioning | DescriptionTask):
        raise UsageError(
            f"run {folder.path} learnt {task.name}, which does not tell of videos",
            hint="vlpipe train bmt --task dense_captioning ... makes a run that does, and ct-san "
            "--task description one for short clips",
        )
    material = open_material(folder)
    teller = _teller(folder, material, device)
    told: list[CaptionedVideo] = []
    with (
        tempfile.TemporaryDirectory(prefix="vlpipe-caption-") as temporary,
        DecodePool(workers=1, tolerance="lenient") as pool,
    ):
        sources, failed = _find(material, videos, Path(temporary) / "store", device, observer)
        for source in sources:
            try:
                told.append(_caption(teller, material, source, choice, pool))
            except VlpipeError as error:
                failed[source.named] = error.message
                continue
            if on_captioned is not None:
                on_captioned(told[-1])
    infos = (material.store[feature].info for feature in material.slots.values())
    return Captions(folder.path, tuple(told), failed, any(info.is_untrained for info in infos))


def write_captions(
    captions: Captions,
    out: Path | str,
    *,
    frames_per_event: int = FRAMES_PER_EVENT,
    embed_bytes: int = EMBED_BYTES,
) -> dict[str, CaptionFiles]:
    """Writes OUT/ID.json, ID.vtt, ID.srt and ID.html of each video; the paths by id.

    frames_per_event: pictures of each event on the page. embed_bytes: media files up to this size
    go into the page, larger ones are linked from it.
    """
    written = {}
    with DecodePool(workers=1, tolerance="lenient") as pool:
        for video in captions.videos:
            files = CaptionFiles(
                *(Path(out) / f"{video.id}.{suffix}" for suffix in ("json", "vtt", "srt", "html"))
            )
            files.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(files.json, _document(captions, video))
            files.webvtt.write_text(webvtt(video.events), encoding="utf-8")
            files.subrip.write_text(subrip(video.events), encoding="utf-8")
            write_page(
                files.page,
                video,
                run=str(captions.run),
                is_untrained=captions.is_untrained,
                frames_per_event=frames_per_event,
                embed_bytes=embed_bytes,
                pool=pool,
            )
            written[video.id] = files
    return written


def _document(captions: Captions, video: CaptionedVideo) -> dict[str, Any]:
    return {"run": str(captions.run), "is_untrained": captions.is_untrained} | video.to_json()


def _teller(folder: RunFolder, material: Material, device: str) -> Teller | Describer:
    model, task = load_model(folder.best)
    chosen = choose_device(device)
    if isinstance(task, DescriptionTask):
        return Describer(model.to(chosen), material.config, task, chosen)
    assert isinstance(task, DenseCaptioning)
    return Teller(model.to(chosen), material.config, task, chosen)


def _find(
    material: Material,
    videos: Sequence[Path | str],
    temporary: Path,
    device: str,
    observer: Observer | None,
) -> tuple[list[_Source], dict[str, str]]:
    """The videos in the order named, and those that there are not or that cannot be read."""
    if not videos:
        raise UsageError("no video was named")
    readers = [material.store[feature] for feature in material.slots.values()]
    stored = [name for name in map(str, videos) if all(name in reader for reader in readers)]
    media = _media_of(material, stored)
    files: dict[str, list[Path]] = {
        name: _files(Path(name)) for name in map(str, videos) if name not in stored
    }
    paths = [path for of in files.values() for path in of]
    failed: dict[str, str] = {
        name: "there is no media in this folder" for name, of in files.items() if not of
    }
    made = features_like(material, paths, temporary, device=device, observer=observer)
    failed |= {str(path): reason for path, reason in made.failed.items()}
    sources = []
    for name in dict.fromkeys(map(str, videos)):
        if name in stored:
            sources.append(_Source(name, name, material.store, media.get(name)))
        sources += [
            _Source(str(path), made.ids[path], made.store, path)
            for path in files.get(name, ())
            if path in made.ids
        ]
    return sources, failed


def _files(path: Path) -> list[Path]:
    """The file itself, or the media below a folder."""
    if not path.is_dir():
        return [path]
    return [v.path for v in FolderDataset.from_paths([path]).videos() if v.path is not None]


def _media_of(material: Material, ids: Sequence[str]) -> Mapping[str, Path]:
    """The media files of videos of the run's dataset, as far as they are still there."""
    if not ids:
        return {}
    try:
        videos = open_dataset(material.job.dataset, material.job.root).videos()
    except VlpipeError:
        return {}
    wanted = set(ids)
    return {v.id: v.path for v in videos if v.id in wanted and v.path is not None}


def _caption(
    teller: Teller | Describer,
    material: Material,
    source: _Source,
    choice: EventChoice,
    pool: DecodePool,
) -> CaptionedVideo:
    readers = {slot: source.store[feature] for slot, feature in material.slots.items()}
    duration_s = None if source.path is None else _duration_s(source.path, pool)
    if duration_s is None:
        spans = [reader.read_spans(source.id) for reader in readers.values()]
        duration_s = max((float(of[-1, 1]) for of in spans if len(of)), default=0.0)
    events = teller.tell(readers, source.id, duration_s, choice)
    return CaptionedVideo(source.id, source.path, duration_s, tuple(events))


def _duration_s(path: Path, pool: DecodePool) -> float | None:
    """None if the file cannot be read, though its features are there, or has no length."""
    try:
        return pool.probe(path).duration_s or None
    except VlpipeError:
        return None
