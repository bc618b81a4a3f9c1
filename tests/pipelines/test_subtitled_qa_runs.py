"""iPerceive VideoQA learns from subtitles and regions, and answers; hidden answers stay hidden."""

import json

import pytest
import torch
import typer
from made_subtitled import COLORS, THINGS, make_features, make_job, make_tables, make_tokens
from typer.testing import CliRunner

from vlpipe.models.layers.bert import Bert
from vlpipe.pipelines.answering import answer_question
from vlpipe.pipelines.cli import datasets, evaluate
from vlpipe.pipelines.training.run_folder import RunFolder, load_model
from vlpipe.pipelines.training.train import run_training
from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import UsageError


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tvqa")
    make_features(folder / "store", make_tables(folder / "tables"))
    return folder


@pytest.fixture(scope="module")
def trained(place):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the tensors are too small to share
    yield run_training(make_job(place, "epochs=6")).run
    torch.set_num_threads(threads)


def test_what_is_said_and_seen_is_learnt(trained):
    facts = RunFolder(trained).read_facts()
    result = facts["results"]["validation"]
    assert result["metrics"]["accuracy"] >= 50  # chance is 20
    assert result["baseline"]["accuracy"] < 30
    assert set(result["metrics"]) >= {"accuracy/bbt", "accuracy/friends", "accuracy/castle"}
    losses = [row["loss"] for row in RunFolder(trained).read_json("history.json")]
    assert losses[-1] < losses[0] / 2
    assert facts["left_out"] == {"train": [], "validation": [], "test_public": []}
    report = RunFolder(trained).report.read_text(encoding="utf-8")
    assert "iPerceive VideoQA, claimed, val" in report


def test_no_figure_of_hidden_answers_is_printed(trained):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(evaluate.evaluate)
    words = [str(trained), "--split", "test_public", "--device", "cpu"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "the answers of test_public are hidden: there are no figures" in done.stderr
    assert "accuracy" not in done.stdout
    found = json.loads((trained / "predictions-test_public.json").read_text())
    assert len(found) == 12
    assert set(found.values()) <= set(range(5))
    as_json = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert json.loads(as_json.stdout)["metrics"] == {}


def test_a_trained_run_answers_about_clips_of_its_dataset(trained):
    for record in RunFolder(trained).read_records("validation")[:4]:
        asked = (record["video_id"], record["question"], record["candidates"])
        answer = answer_question(trained, *asked)
        assert answer.answer == record["candidates"][record["prediction"]]
        assert answer.record["scores"] == pytest.approx(record["scores"], abs=1e-4)
        assert answer.record["answer"] is None
    with pytest.raises(UsageError, match="chooses among candidates, and 1 are given"):
        answer_question(trained, "s01e01_val_clip_00", "What is its color?", ["red"])


def test_token_features_and_common_sense_of_a_store_are_trained_on(place):
    make_tokens(place / "tokens", open_dataset("tvqa", place / "tables"))
    job = make_job(place, "epochs=1", "model.text=tokens", "model.text_width=6",
                   "model.has_commonsense=true",
                   out="of-tokens").model_copy(update={"store": str(place / "tokens")})  # fmt: skip
    run = run_training(job).run
    facts = RunFolder(run).read_facts()
    assert facts["model_config"]["text_width"] == 6
    assert facts["model_config"]["commonsense_width"] == 3
    assert facts["results"]["validation"]["examples"] == 24
    with pytest.raises(UsageError, match="a new question has none"):
        answer_question(run, "s01e01_val_clip_00", "What does Ann hold?", THINGS)


def test_a_published_bert_reads_and_does_not_learn(place, tmp_path):
    pytest.importorskip("transformers")
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "ann", "hold", "?", *THINGS, *COLORS)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    bert = Bert("small", len(pieces), 0.0)
    torch.save(bert.state_dict(), tmp_path / "bert.pt")
    changes = (
        "epochs=1",
        "model.text=small",
        "task.max_subtitle_words=12",
        f"task.vocabulary={tmp_path / 'vocab.txt'}",
    )
    job = make_job(place, *changes, f"init_from={tmp_path / 'bert.pt'}", out="of-bert")
    run = run_training(job).run
    model, task = load_model(RunFolder(run).best)
    assert task.words()[4] == "what"
    for key, value in bert.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[key], value), key
    with pytest.raises(UsageError, match="BERT has no weights yet"):
        run_training(make_job(place, *changes, out="of-nothing"))
    assert not (place / "of-nothing").exists()


def test_the_check_of_a_copy(place):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.add_typer(datasets.app, name="datasets")
    words = ["datasets", "check", "tvqa", "--root", str(place / "tables"), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 1  # the made copy has neither the clips nor the published sizes
    found = json.loads(done.stdout)
    assert [table["rows"] for table in found["tables"]] == [80, 24, 12, 58]
    assert found["media"]["present"] == 0
