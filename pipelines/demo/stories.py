"""Who is who in stories: CiSIN on clips about the same figures."""

from pathlib import Path

from vlpipe.pipelines.demo.part import Figure, Page, PartResult, Workplace
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.pipelines.training.material import TEST, VALIDATION
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.stores.datasets.demo import DemoDataset

# A detector takes figures of paper for no persons, so that their boxes are given; which boxes are
# one figure is for the tracker to find, and who it is for the network. Every frame is read: the
# truth is numbered by frames. Figures move far between two.
_FPS = {"fps": None}
_FEATURES = ("person_tracks", "person_track_table", "track_crops", "track_paths")

_SETTINGS = (
    "features.face=track_crops",
    "features.face_count=track_crops_count",
    "features.motion=track_paths",
    "features.parts=none",
    "features.visible=none",
    # Faces are compared as they are, as the published code does: a few stories are too few to
    # learn from how to look at them.
    "model.variant=public",
    # Sentences alone tell nothing here: who somebody is can only be seen.
    "model.text_graph=false",
    "model.normalise_inputs=true",
    "model.hidden=64",
    "model.text_width=64",
    "model.dropout=0.1",
    "task.text=words",
    "task.track_loss=cross_entropy",
    "task.weights.text=1",
    "task.weights.video=1",
    "task.weights.gender=0.1",
    "batch_size=4",
    "learning_rate=0.003",
    "epochs=24",
    "schedule=cosine",
    "warmup_epochs=2",
    "device=cpu",
)


def learn_stories(place: Workplace) -> PartResult:
    """CiSIN on the stories, and a page of one that it has not seen."""
    result = PartResult()
    result.summaries.append(place.extract(_extraction(place)))
    if place.stop.is_set():
        return result
    job = TrainingJob(
        model="cisin",
        task="reid",
        dataset="demo",
        root=place.dataset_root,
        store=place.store,
        out=place.out / "runs" / "reid",
        settings=parse_settings(changes=_SETTINGS),
    )
    run = result.take("reid", place.train(job))
    if run is not None:
        result.pages.append(_page(place, run))
        results = run.read_facts()["results"]
        metrics = results[TEST if TEST in results else VALIDATION]["metrics"]
        if "video" in metrics:
            result.figures.append(
                Figure(
                    "figures called the same or different rightly across clips of a story",
                    f"{metrics['video']:.1f} %",
                    f"{metrics['video/all_same']:.1f} % all the same, "
                    f"{metrics['video/all_different']:.1f} % all different",
                )
            )
    return result


def _extraction(place: Workplace) -> ExtractionJob:
    """Tracks and their looks and paths, of the stories alone."""
    clips = sorted((place.dataset_root / "stories").rglob("*.mp4"))
    return ExtractionJob(
        paths=tuple(clips),
        store=place.store,
        features=_FEATURES,
        settings={
            "given_boxes": {"folder": place.dataset_root / "boxes", **_FPS},
            "person_boxes": {"detector": "given_boxes", **_FPS},
            "person_tracks": {"min_iou": 0.05, **_FPS},
            "person_track_table": _FPS,
            "track_crops": {
                "network": "resnet18", "crop": 64, "inset": 0.15, "max_crops": 4, **_FPS,
            },
            "track_paths": _FPS,
        },
        weights={"*": "untrained"},
    )  # fmt: skip


def _page(place: Workplace, run: RunFolder) -> Page:
    """The first story of the test, as `vlpipe who` shows it; a dataset of a few has none for it."""
    from vlpipe.pipelines.story_characters import identify_characters, write_characters_page

    dataset = DemoDataset(place.dataset_root)
    story = next(story for split in ("test", "val", "train") for story in dataset.stories(split))
    found = identify_characters(
        run.path,
        [line.video_id for line in story.lines],
        [line.sentence for line in story.lines],
        device="cpu",
    )
    path = write_characters_page(found, Path(place.out) / "who.html")
    return Page("Who is who", "five clips and their sentences, everybody labelled", path)
