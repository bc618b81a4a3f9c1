"""The training under Prefect: the same run as the core's, carried on by a repeated call."""

import pytest
from made_training import make_job

from vlpipe.pipelines.training.run_folder import RunFolder


@pytest.mark.slow
def test_the_flow_makes_the_run_of_the_core_and_only_reads_a_finished_one(tmp_path):
    from vlpipe.pipelines.train_flow import outcome_markdown, run_as_flow, train
    from vlpipe.pipelines.training.train import run_training

    by_core = make_job(tmp_path, "count", "epochs=1", out="core")
    by_flow = by_core.model_copy(update={"out": tmp_path / "flow"})
    wanted = run_training(by_core)
    found = train(by_flow)
    assert found["metrics"]["test"] == wanted.evaluated["test"].metrics
    before = RunFolder(by_flow.out).best.stat().st_mtime_ns
    again = run_as_flow(by_flow)
    assert again.to_json() == found
    assert RunFolder(by_flow.out).best.stat().st_mtime_ns == before
    assert "| test | mse |" in outcome_markdown(again, RunFolder(by_flow.out))
