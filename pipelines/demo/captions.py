"""Movies that are told: BMT finds their events and says who does what, and pages show it."""

from collections.abc import Sequence

import torch

from vlpipe.models.proposals import temporal_iou
from vlpipe.models.tasks import Record
from vlpipe.models.tasks.dense_captioning import DenseCaptioning
from vlpipe.pipelines.captioning.caption import caption_videos, write_captions
from vlpipe.pipelines.captioning.telling import EventChoice
from vlpipe.pipelines.demo.part import Figure, Page, PartResult, Workplace
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.pipelines.training.material import TEST, TRAIN, open_material
from vlpipe.pipelines.training.run_folder import RunFolder
from vlpipe.stores.datasets.demo import MIN_CLIPS, DemoDataset, Happening, make_demo, said_in

# Movies have a dataset and a store of their own: more of them are needed than other parts want,
# and a coarser look at each is enough.
_MOST_MOVIES, _LEAST_MOVIES, _MOVIES_FOR_100_CLIPS = 160, 4, 40
_FEATURES = {
    "resnet18": {"fps": 4, "whole_frame": True, "crop": 112, "outputs": ("conv2_x",)},
}

# A small network of the same parts. The rows of untrained extractors hardly differ: they are
# normalised. The published smoothing of 0.7 and the weight of 100 are for ten thousand words and
# for videos of minutes.
_SETTINGS = (
    "features.rgb=resnet18_conv2_x",
    "features.flow=none",
    "features.audio=vggish",
    "model.normalise_inputs=true",
    "model.project_video=128",
    "model.project_audio=64",
    "model.word_width=64",
    "model.inner=128",
    "model.layers=1",
    "model.heads=4",
    "model.dropout=0.1",
    "model.smoothing=0.1",
    "model.train_words=true",
    "model.head_width=64",
    "model.audio_kernels=[5]",
    "model.video_kernels=[5, 13]",
    "model.audio_anchors_s=[1, 2]",
    "model.video_anchors_s=[1, 1.5, 2, 3]",
    "model.audio_rows=20",
    "model.video_rows=80",
    "model.other_weight=10",
    "task.max_words=14",
    "task.proposals=20",
    "task.suppress_from=0.4",
    "batch_size=4",
    "learning_rate=0.002",
    "schedule=cosine",
    "warmup_epochs=1",
    "epochs=18",
    "validation_by=video",
    "validation_share=0.06",
    "weight_decay=0.1",
    "device=cpu",
)

_RECALL = "recall/tiou_0.5"
_TIOU = 0.5  # from which on a proposal is an event's
_NUM_PAGES, _LEAST_CONFIDENCE = 3, 0.25


def learn_captions(place: Workplace) -> PartResult:
    """BMT on movies of `out/movies`: the run, how many events are told rightly, and pages."""
    result = PartResult()
    root, store = place.out / "movies", str(place.out / "movies-store")
    parameters = DemoDataset(place.dataset_root).record["parameters"]
    wanted = max(_LEAST_MOVIES, parameters["clips"] * _MOVIES_FOR_100_CLIPS // 100)
    movies = make_demo(
        root, clips=MIN_CLIPS, videos=min(wanted, _MOST_MOVIES), stories=0,
        seed=parameters["seed"],
    )  # fmt: skip
    job = ExtractionJob(
        paths=(root / "videos",),
        store=store,
        features=("resnet18", "vggish"),
        settings=_FEATURES,
        weights={"*": "untrained"},
    )
    result.summaries.append(place.extract(job))
    if place.stop.is_set():
        return result
    job_of_run = TrainingJob(
        model="bmt",
        task="dense_captioning",
        dataset="demo",
        root=root,
        store=store,
        out=place.out / "runs" / "captions",
        settings=parse_settings(changes=_SETTINGS),
    )
    run = result.take("dense_captioning", place.train(job_of_run))
    if run is not None:
        result.figures += _figures(run, movies)
        result.pages += _pages(run, place)
    return result


def told_rightly(
    record: Record, happenings: Sequence[Happening], *, tiou: float = _TIOU
) -> list[bool]:
    """For each event of a movie: whether the surest proposal that is the event's, by its times,
    names its shape, its colour and its action."""
    proposals = record["prediction"][0]
    if not proposals or not happenings:
        return [False] * len(happenings)
    overlaps = temporal_iou(
        torch.tensor([[h.start_s, h.end_s] for h in happenings], dtype=torch.float64),
        torch.tensor([[p["start_s"], p["end_s"]] for p in proposals], dtype=torch.float64),
    )
    found = []
    for happening, row in zip(happenings, overlaps >= tiou, strict=True):
        sentences = [p["sentence"] for p, is_its in zip(proposals, row, strict=True) if is_its]
        said = said_in(sentences[0] if sentences else "")
        told = (said.color, said.shape, said.action)
        found.append(told == (happening.color, happening.shape, happening.action))
    return found


def _figures(run: RunFolder, movies: DemoDataset) -> list[Figure]:
    happenings, records = movies.happenings(), run.read_records(TEST)
    told = [right for r in records for right in told_rightly(r, happenings[r["id"]])]
    events = [event for record in records for event in happenings[record["id"]]]
    material = open_material(run)
    assert isinstance(material.task, DenseCaptioning)
    usual = said_in(material.task.most_frequent_sentence(material.splits[TRAIN]))
    guessed = [
        (e.color, e.shape, e.action) == (usual.color, usual.shape, usual.action) for e in events
    ]
    results = run.read_facts()["results"][TEST]
    return [
        Figure(
            f"events of {len(records)} held-out movies whose caption names the right shape, colour "
            "and action; without video: the most frequent sentence at the right time",
            _percent(100 * sum(told) / len(told)),
            _percent(100 * sum(guessed) / len(guessed)),
        ),
        Figure(
            f"recall of their events at tIoU {_TIOU:g}; without video: one event, the whole movie",
            _percent(results["metrics"][_RECALL]),
            _percent(results["baseline"][_RECALL]),
        ),
    ]


def _pages(run: RunFolder, place: Workplace) -> list[Page]:
    shown = [record["id"] for record in run.read_records(TEST)[:_NUM_PAGES]]
    captions = caption_videos(
        run.path, shown, choice=EventChoice(least_confidence=_LEAST_CONFIDENCE), device="cpu"
    )
    files = write_captions(captions, place.out / "captions")
    return [
        Page(
            f"Captions of {video.id}",
            f"A held-out movie of {video.duration_s:.1f} s plays beside the {len(video.events)} "
            "events that the network found in it. Its subtitles lie beside the page.",
            files[video.id].page,
        )
        for video in captions.videos
    ]


def _percent(value: float) -> str:
    return f"{value:.0f} %"
