"""Everything in order: dataset, features, the parts, and a report to look at."""

import threading
from dataclasses import dataclass
from pathlib import Path

from vlpipe.pipelines.checkup import python_and_platform
from vlpipe.pipelines.demo.broken_media import make_broken_media
from vlpipe.pipelines.demo.captions import learn_captions
from vlpipe.pipelines.demo.part import Part, PartResult, Workplace
from vlpipe.pipelines.demo.questions import learn_questions
from vlpipe.pipelines.demo.sentences import learn_sentences
from vlpipe.pipelines.demo.stories import learn_stories
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.extraction.observer import Observer
from vlpipe.pipelines.extraction.receipts import ExtractionSummary
from vlpipe.pipelines.report import Example, write_report
from vlpipe.pipelines.training.loop import TrainingObserver
from vlpipe.pipelines.training.report import run_section
from vlpipe.stores import FeatureStore
from vlpipe.stores.datasets.demo import DemoDataset, make_demo

_NUM_GIFS_SHOWN = 6
_NUM_MOVIES_SHOWN = 3
_NUM_ANSWERS_SHOWN = 3

# Small inputs: the networks are untrained, and the demonstration is to take minutes on two cores.
# Maps of the first stage: where something is lies in them, and colours and outlines, which an
# untrained network has hardly mixed yet.
_SETTINGS = {
    "resnet18": {"fps": 8, "whole_frame": True, "crop": 112, "outputs": ("conv2_x",)},
}
_MOST_VIDEOS, _MOST_STORIES = 24, 40

PARTS: tuple[Part, ...] = (learn_questions, learn_captions, learn_stories, learn_sentences)


@dataclass(frozen=True)
class DemoOutcome:
    """Where the demonstration left its results. runs: the folders of the trained models."""

    report: Path
    store: str
    summaries: tuple[ExtractionSummary, ...]
    was_interrupted: bool
    runs: tuple[Path, ...] = ()


def run_demo(
    out: Path,
    *,
    clips: int = 400,
    seed: int = 0,
    observer: Observer | None = None,
    training_observer: TrainingObserver | None = None,
    stop: threading.Event | None = None,
) -> DemoOutcome:
    """Makes the dataset below `out`, extracts features of it, lets every part learn from them, and
    writes `out/report.html`.

    clips: GIFs in the dataset; MP4s with sound come with them, some as stories.
    Three files that nobody can read go through the same pipeline, to show what becomes of them.
    Repeating the call does only what is not done yet.
    """
    stop = stop or threading.Event()
    dataset_root = out / "dataset"
    make_demo(
        dataset_root,
        clips=clips,
        videos=min(max(3, clips // 5), _MOST_VIDEOS),
        stories=min(max(2, clips // 10), _MOST_STORIES),
        seed=seed,
    )
    broken = make_broken_media(out / "broken", sample=_first_movie(dataset_root))
    store_url = str(out / "store")
    common = ExtractionJob(
        features=("resnet18", "vggish"),
        settings=_SETTINGS,
        weights={"*": "untrained"},
        store=store_url,
    )
    jobs = [
        common.model_copy(update={"dataset": "demo", "root": dataset_root}),
        common.model_copy(update={"paths": (broken,)}),
    ]
    place = Workplace(dataset_root, store_url, out, stop, observer, training_observer)
    summaries = [place.extract(job) for job in jobs if not stop.is_set()]
    result = PartResult()
    for part in PARTS:
        if not stop.is_set():
            result.add(part(place))
    was_interrupted = stop.is_set()
    report = out / "report.html"
    summaries += result.summaries
    if not was_interrupted:
        with FeatureStore.open(store_url) as store:
            write_report(
                report,
                title="vlpipe demo",
                store=store,
                summaries=summaries,
                examples=choose_examples(DemoDataset(dataset_root), store),
                machine=python_and_platform(),
                runs=[run_section(run, num_examples=_NUM_ANSWERS_SHOWN) for run in result.runs],
                untrained=result.untrained,
                pages=[(p.title, p.text, p.path.relative_to(out).as_posix()) for p in result.pages],
                figures=[(f.name, f.value, f.baseline) for f in result.figures],
            )
    paths = tuple(run.path for run in result.runs)
    return DemoOutcome(report, store_url, tuple(summaries), was_interrupted, paths)


def choose_examples(dataset: DemoDataset, store: FeatureStore) -> list[Example]:
    """Some test videos with the questions asked of them, or the sentences said of them."""
    asked: dict[str, list[str]] = {}
    for count in dataset.questions("count", "test"):
        asked.setdefault(count.gif_name, []).append(f"{count.question} {count.answer}")
    for choice in (q for t in ("action", "transition") for q in dataset.questions(t, "test")):
        text = f"{choice.question} {choice.choices[choice.answer]}"
        asked.setdefault(choice.gif_name, []).append(text)
    for frame in dataset.questions("frameqa", "test"):
        asked.setdefault(frame.gif_name, []).append(f"{frame.question} {frame.answer}")
    told = {
        captions.video_id: [
            f"{start:.1f} to {end:.1f} s: {sentence}"
            for (start, end), sentence in zip(captions.spans, captions.sentences, strict=True)
        ]
        for captions in dataset.captions("val_1")
    }
    shown: list[Example] = []
    stored = store["resnet18_conv2_x"]
    for texts, most in ((asked, _NUM_GIFS_SHOWN), (told, _NUM_MOVIES_SHOWN)):
        found = [
            Example(video.id, video.path, tuple(texts[video.id]))
            for video in dataset.videos()
            if video.id in texts and video.path is not None and video.id in stored
        ]
        shown += sorted(found, key=lambda example: -len(example.captions))[:most]
    return shown


def _first_movie(root: Path) -> Path:
    return min((root / "videos").glob("*.mp4"))
