"""Writes the demo dataset: plans everything, writes it beside its place, and moves it there."""

import dataclasses
import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vlpipe.stores.datasets._captions import read_json_object
from vlpipe.stores.datasets._demo_media import write_gif, write_mp4
from vlpipe.stores.datasets._demo_movies import STORY_FPS, Movie, movies
from vlpipe.stores.datasets._demo_questions import question_tables
from vlpipe.stores.datasets._demo_script import (
    VIDEO_SIZE,
    GifClip,
    VideoClip,
    gif_clips,
    video_clips,
)
from vlpipe.stores.datasets._demo_sentences import (
    Described,
    dense_caption_files,
    retrieval_tables,
)
from vlpipe.stores.datasets._demo_stories import story_files
from vlpipe.stores.datasets.demo import MIN_CLIPS, RECORD
from vlpipe.stores.errors import EnvironmentLacks, UsageError

GENERATOR_VERSION = 5  # rises whenever the same parameters give other files
_MEDIA_FOLDERS = ("gifs", "videos", "stories")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How much of each kind there is, and the seed of everything random."""

    clips: int
    videos: int
    stories: int
    seed: int

    def __post_init__(self) -> None:
        if self.clips < MIN_CLIPS or self.videos < 0 or self.stories < 0:
            raise UsageError(
                f"a demo dataset of {self.clips} clips, {self.videos} videos and {self.stories} "
                f"stories cannot be made; expected at least {MIN_CLIPS} clips, 0 videos, 0 stories"
            )


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """All scenes of a demo dataset, and the text of all its files."""

    gifs: tuple[GifClip, ...]
    videos: tuple[VideoClip, ...]
    movies: tuple[Movie, ...]
    files: dict[str, str]


def plan_demo(size: DemoSize) -> DemoPlan:
    """Everything but the media."""
    gifs = gif_clips(size.seed, size.clips)
    videos = video_clips(size.seed, size.videos)
    shot = movies(size.seed, size.stories)
    described = [Described(clip.name, clip.split, clip.scene) for clip in gifs]
    described += [Described(clip.name, clip.split, clip.scene) for clip in videos]
    described += [
        Described(clip.name, movie.split, clip.scene)
        for movie in shot
        for story in movie.stories
        for clip in story
    ]
    files = {f"dataset/{name}": text for name, text in question_tables(size.seed, gifs).items()}
    for name, text in dense_caption_files(size.seed, videos).items():
        files[f"activitynet/{name}"] = text
    for name, text in retrieval_tables(size.seed, described).items():
        files[f"msrvtt/{name}"] = text
    files |= story_files(size.seed, shot)
    files["scenes.json"] = _scenes_text(described)
    return DemoPlan(tuple(gifs), tuple(videos), tuple(shot), files)


def write_demo(root: Path, size: DemoSize, progress: Progress | None) -> None:
    """Makes root hold the demo dataset of that size; nothing happens if it does already."""
    if _is_there(root, size):
        return
    plan = plan_demo(size)
    partial_root = root.with_name(f".{root.name}.partial-{secrets.token_hex(4)}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        partial_root.mkdir()
        for name, text in plan.files.items():
            path = partial_root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        _write_media(partial_root, plan, progress)
        record = json.dumps(_record(size, plan), indent=2) + "\n"
        (partial_root / RECORD).write_text(record, encoding="utf-8")
        partial_root.rename(root)  # takes the place of an empty folder, and of nothing else
    except OSError as error:
        raise EnvironmentLacks(
            f"the demo dataset cannot be written to {root}: {error.strerror}"
        ) from error
    finally:
        shutil.rmtree(partial_root, ignore_errors=True)


def _is_there(root: Path, size: DemoSize) -> bool:
    """True if root holds this very dataset, False if it is free; a UsageError otherwise."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise UsageError(f"{root} is a file; expected a folder, or a name that is free")
    if not (root / RECORD).is_file():
        if any(root.iterdir()):
            raise UsageError(
                f"{root} holds something else than a demo dataset",
                hint="name a folder that is empty or does not exist",
            )
        return False
    record = read_json_object(root / RECORD)
    wanted = _parameters(size)
    if record.get("parameters") != wanted:
        raise UsageError(
            f"{root} holds a demo dataset with other parameters: {record.get('parameters')}; "
            f"expected {wanted}",
            hint="name another folder, or remove this one",
        )
    media = [path for folder in _MEDIA_FOLDERS for path in (root / folder).rglob("*.*")]
    if len(media) != record.get("media"):
        raise UsageError(
            f"{root} has {len(media)} media files; its {RECORD} names {record.get('media')}",
            hint=f"remove {root} and make it again",
        )
    return True


def _write_media(root: Path, plan: DemoPlan, progress: Progress | None) -> None:
    """All GIFs and MP4s. Drawing shares one interpreter; the encoders beside it are processes."""
    jobs = _media_jobs(root, plan)
    done = 0
    with ThreadPoolExecutor(max_workers=min(4, (os.cpu_count() or 1) + 1)) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                if progress is not None:
                    progress(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _media_jobs(root: Path, plan: DemoPlan) -> list[Callable[[], None]]:
    for name in _MEDIA_FOLDERS:
        (root / name).mkdir()
    jobs: list[Callable[[], None]] = []
    for gif in plan.gifs:
        path = root / "gifs" / f"{gif.name}.gif"
        jobs.append(partial(write_gif, path, gif.scene, gif.size, gif.delays_cs))
    for video in plan.videos:
        path = root / "videos" / f"{video.name}.mp4"
        jobs.append(
            partial(write_mp4, path, video.scene, VIDEO_SIZE, video.fps, sound_s=video.sound_s)
        )
    for movie in plan.movies:
        folder = root / "stories" / movie.name
        folder.mkdir()
        for story in movie.stories:
            for clip in story:
                sound_s = (0.0, clip.scene.duration_s)
                path = folder / f"{clip.name}.mp4"
                jobs.append(
                    partial(write_mp4, path, clip.scene, VIDEO_SIZE, STORY_FPS, sound_s=sound_s)
                )
    return jobs


def _parameters(size: DemoSize) -> dict[str, int]:
    return {"generator": GENERATOR_VERSION, **dataclasses.asdict(size)}


def _record(size: DemoSize, plan: DemoPlan) -> dict[str, Any]:
    """What demo.json says: parameters, number of media files, and rows of each annotation file."""
    rows = {}
    for path, text in plan.files.items():
        name = path.removeprefix("dataset/")
        if name.startswith("boxes/"):
            continue  # one a clip
        if name.endswith(".json"):
            rows[name] = len(json.loads(text))
        else:
            has_header = not name.startswith("lsmdc/") and not name.endswith(".txt")
            rows[name] = text.count("\r\n") - has_header
    story_clips = sum(len(story) for movie in plan.movies for story in movie.stories)
    return {
        "about": "a made-up dataset, written by vlpipe demo; see docs/datasets.md of vlpipe",
        "parameters": _parameters(size),
        "media": len(plan.gifs) + len(plan.videos) + story_clips,
        "rows": rows,
    }


def _scenes_text(described: Sequence[Described]) -> str:
    scenes = {
        clip.video_id: {"split": clip.split, **dataclasses.asdict(clip.scene)} for clip in described
    }
    return json.dumps(scenes, indent=None, separators=(",", ":")) + "\n"
