"""From subtitles beside videos to a network that listens: extraction, training, figures."""

import json

import numpy as np
import pytest

from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.job import ExtractionJob
from vlpipe.pipelines.training.job import TrainingJob, parse_settings
from vlpipe.pipelines.training.material import open_material
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.pipelines.training.train import run_training
from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.datasets import make_demo
from vlpipe.stores.text_rows import texts_of_rows

TINY = (
    "device=cpu", "epochs=1", "batch_size=2", "validation_share=0.3", "model.speech_width=8",
    "model.inner=8", "model.heads=2", "model.longest_speech=50", "task.max_words=6",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The demo dataset with subtitles for all but one video, their words, and drawn features."""
    folder = tmp_path_factory.mktemp("speech")
    demo = make_demo(folder / "demo", clips=8, videos=5, stories=0, seed=3)
    told = {of.video_id: of for name in ("train", "val_1") for of in demo.captions(name)}
    for number, (video, of) in enumerate(told.items()):
        if number == 1:
            continue
        events = sorted(zip(of.spans, of.sentences, strict=True))
        cues = [
            f"{n}\n00:00:{start:06.3f} --> 00:00:{end:06.3f}\n{text}\n".replace(".", ",", 2)
            for n, ((start, end), text) in enumerate(events, 1)
        ]
        (folder / "demo" / "videos" / f"{video}.en.srt").write_text("\n".join(cues))
    store = str(folder / "store")
    summary = run_extraction(
        ExtractionJob(
            dataset="demo", root=folder / "demo", store=store, features=("given_subtitles",)
        )
    )
    assert not summary.failed
    random = np.random.default_rng(0)
    definitions = [
        FeatureDefinition(name, "float32", (width,), ("channel",))
        for name, width in (("i3d_rgb", 8), ("i3d_flow", 8), ("vggish", 4))
    ]
    with FeatureStore.open(store).writer(definitions) as writer:
        for video in told:
            spans = np.arange(10)[:, None] + [[0.0, 1.0]]
            writer.add(
                video,
                {
                    d.name: Features(random.normal(size=(10, *d.row_shape)).astype("f4"), spans)
                    for d in definitions
                },
            )
    return folder, told


def trained(folder, model, task, out, *changes):
    job = TrainingJob(
        model=model, task=task, dataset="demo", root=folder / "demo", store=str(folder / "store"),
        out=folder / out, settings=parse_settings(changes=(*TINY, *changes)),
    )  # fmt: skip
    return run_training(job)


def test_words_of_subtitles_are_stored_with_their_seconds(place):
    folder, told = place
    reader = FeatureStore.open(str(folder / "store"))["speech_words"]
    rows, spans = reader.read(next(iter(told)), with_spans=True)
    first = next(iter(told.values()))
    spoken = " ".join(text for _, text in sorted(zip(first.spans, first.sentences, strict=True)))
    assert texts_of_rows(rows) == spoken.split()
    assert spans[0, 0] == pytest.approx(min(start for start, _ in first.spans), abs=1e-3)
    assert len(reader[list(told)[1]]) == 0


def test_mdvc_learns_and_writes_with_speech(place):
    folder, told = place
    outcome = trained(folder, "mdvc", "captioning", "mdvc")
    facts = json.loads((folder / "mdvc" / "run.json").read_text())
    assert facts["slots"]["speech"] == "speech_words"
    assert facts["model_config"]["has_speech"] is True
    model, task = load_model(RunFolder(outcome.run).best)
    assert len(task.speech.vocabulary) > 8
    assert len(model.speech_words.weight) == len(task.speech.vocabulary)
    trained_on = {e.id for of in open_material(RunFolder(outcome.run)).splits.values() for e in of}
    assert list(told)[1] in trained_on  # the video without subtitles is silent, not left out
    assert "bleu_1" in outcome.evaluated["test"].metrics


def test_iperceive_finds_events_and_tells_soda(place):
    folder, _ = place
    outcome = trained(
        folder, "iperceive_dvc", "dense_captioning", "iperceive", "model.has_commonsense=false",
        "model.proposal_hidden=8", "task.proposals=5", "task.soda=c",
    )  # fmt: skip
    metrics = outcome.evaluated["test"].metrics
    assert {"f1", "soda_c_meteor_exact_stem"} <= metrics.keys()
    assert 0 <= metrics["soda_c_meteor_exact_stem"] <= 100


def test_without_speech_no_words_are_wanted(place):
    folder, _ = place
    trained(folder, "mdvc", "captioning", "deaf", "model.has_speech=false")
    facts = json.loads((folder / "deaf" / "run.json").read_text())
    assert "speech" not in facts["slots"]
    trained(folder, "mdvc", "captioning", "left_out", "features.speech=none")
    facts = json.loads((folder / "left_out" / "run.json").read_text())
    assert facts["model_config"]["has_speech"] is False
