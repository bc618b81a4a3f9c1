"""A small copy of ActivityNet Captions, and runs trained on it, for tests of captioning."""

import json

from made_media import make_video

from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.training.job import TrainingJob, parse_settings

FPS, DURATION_S = 4, 4.0
SENTENCES = ("A <b>ball</b> rolls & falls.", "It's raining on the moon.")

# A network of the same parts, small enough for a test.
TINY = (
    "features.rgb=resnet18", "features.flow=none", "features.audio=none",
    "model.normalise_inputs=true", "model.project_video=16", "model.audio_width=8",
    "model.word_width=8", "model.inner=16", "model.heads=2", "model.layers=1",
    "model.head_width=8", "model.train_words=true", "model.audio_kernels=[3]",
    "model.video_kernels=[3]", "model.audio_anchors_s=[1]", "model.video_anchors_s=[1,2]",
    "model.audio_rows=6", "model.video_rows=20", "task.max_words=8", "batch_size=4", "epochs=1",
    "learning_rate=0.01", "device=cpu",
)  # fmt: skip


def make_dataset(root):
    """Five videos to train on and one for testing, of two events each."""
    told = {
        name: {
            "duration": DURATION_S,
            "timestamps": [[0.0, 1.5], [1.0, 4.0]],
            "sentences": list(SENTENCES),
        }
        for name in (f"v_{n}" for n in range(6))
    }
    root.mkdir(parents=True)
    for name in told:
        make_video(root / f"{name}.mp4", seconds=DURATION_S, fps=8)
    test = {"v_5": told.pop("v_5")}
    for name, part in (("train", told), ("val_1", test), ("val_2", test)):
        (root / f"{name}.json").write_text(json.dumps(part))
    return root


def make_features(root, store):
    """Rows of a network of pictures, four a second."""
    job = ExtractionJob(
        dataset="activitynet",
        root=root,
        store=str(store),
        features=("resnet18",),
        settings={"resnet18": {"fps": FPS, "resize": 40, "crop": 32}},
        weights={"*": "untrained"},
        store_dtype="float32",
    )
    assert not run_extraction(job).failed


def captioning_job(folder, task, *changes):
    """A job on the dataset and the store below `folder`."""
    return TrainingJob(
        model="bmt",
        task=task,
        dataset="activitynet",
        root=folder / "data",
        store=str(folder / "store"),
        out=folder / task,
        settings=parse_settings(changes=(*TINY, *changes)),
    )
