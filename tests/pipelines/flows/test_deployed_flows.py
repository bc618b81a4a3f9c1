"""The flows behind deployments: what they leave in artifacts, and what a server is told to do."""

import json
import shutil
from pathlib import Path

import pytest
from made_training import make_dataset, make_job, make_store

from vlpipe.pipelines.ingestion import IngestionJob
from vlpipe.pipelines.store_care import StoreCareJob
from vlpipe.pipelines.training.retraining import RetrainingJob
from vlpipe.stores import Features, FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, StoreDamaged, UsageError


@pytest.fixture
def client():
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        yield client


def newest(client, key):
    """The data of the newest artifact of that key."""
    found = [artifact for artifact in client.read_artifacts() if artifact.key == key]
    return max(found, key=lambda artifact: artifact.created).data


@pytest.mark.slow
def test_retraining_says_why_it_did_nothing_and_why_it_promoted(tmp_path, client):
    from vlpipe.pipelines.retrain_flow import retrain

    late = {f"gif{n}" for n in range(40, 48)}
    truth = make_dataset(tmp_path / "tables")
    full = make_store(tmp_path / "full", truth)
    make_store(tmp_path / "store", truth, without=late)
    job = RetrainingJob(**make_job(tmp_path, "count", "epochs=1", out="runs").model_dump())
    parameters = job.model_dump(mode="json")

    assert retrain(parameters)["verdict"] == "promoted"
    assert "there is no run yet" in newest(client, "retraining")
    assert newest(client, "retraining-report").endswith("/run-0001/report.html)")
    figures = newest(client, "retraining-figures")
    assert {row["split"] for row in json.loads(figures)} == {"validation", "test"}
    assert newest(client, "retraining-progress") == 100

    assert retrain(parameters)["verdict"] == "unchanged"
    told = newest(client, "retraining")
    assert told.startswith("# unchanged\n")
    assert "what run-0001 read" in told

    with FeatureStore.open(tmp_path / "store") as store:
        definitions = [store[name].info.definition for name in ("clips", "objects")]
        with store.writer(definitions) as writer:
            for name in sorted(late):
                rows = {d.name: Features(*full[d.name].read(name, with_spans=True))
                        for d in definitions}  # fmt: skip
                writer.add(name, rows)
    found = retrain(parameters)
    assert found["verdict"] in ("promoted", "refused")
    told = newest(client, "retraining")
    assert "- feature clips: 56 videos became 64" in told
    assert "| mse (lower is better) | new | in use before |" in told
    assert found["reason"] in told


def test_ingestion_and_care_tell_what_they_found(tmp_path, clips, client):
    from vlpipe.pipelines.ingest_flow import ingest
    from vlpipe.pipelines.store_care_flow import care

    shutil.copytree(clips, tmp_path / "media")
    (tmp_path / "media" / "empty.gif").write_bytes(b"")
    job = IngestionJob(dataset="folder", root=tmp_path / "media", table=tmp_path / "v.parquet")
    assert ingest(job)["num_probed"] == 7
    assert "- `empty` (empty): " in newest(client, "ingestion-summary")
    assert json.loads(newest(client, "ingestion-splits"))[0]["usable"] == 6

    url = str(tmp_path / "store")
    make_store(url, make_dataset(tmp_path / "tables", num_train=3, num_test=1))
    assert care(StoreCareJob(store=url))["is_sound"]
    assert "| sound | yes |" in newest(client, "store-care-summary")
    path = Path(url, FeatureStore.open(url)["clips"].locate("gif0")[0].rows_file)
    data = bytearray(path.read_bytes())
    data[4100] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreDamaged):
        care(StoreCareJob(store=url))
    assert "| sound | NO |" in newest(client, "store-care-summary")


def test_automations_are_made_once_and_stay_off_when_switched_off(client):
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    from vlpipe.pipelines.prefect_parts.automations import DEAD, RESTARTED, TOLD, put_automations

    assert put_automations(client) == [DEAD, RESTARTED]
    client.pause_automation(client.read_automations_by_name(RESTARTED)[0].id)
    CustomWebhookNotificationBlock(name="us", url="http://127.0.0.1:9/").save("alerts")
    put_automations(client, "custom-webhook/alerts")
    put_automations(client, "custom-webhook/alerts")
    by_name = {name: client.read_automations_by_name(name) for name in (DEAD, RESTARTED, TOLD)}
    assert [len(found) for found in by_name.values()] == [1, 1, 1]
    assert [found[0].enabled for found in by_name.values()] == [True, False, True]
    for wrong, message in (("custom-webhook/nobody", "has no block"), ("alerts", "is no block")):
        with pytest.raises(UsageError, match=message):
            put_automations(client, wrong)


def test_a_run_that_keeps_crashing_is_not_started_for_ever(monkeypatch):
    from prefect import flow

    from vlpipe.pipelines.prefect_parts.retries import MOST_STARTS, stop_if_it_keeps_crashing

    @flow
    def ours():
        stop_if_it_keeps_crashing()

    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MOST_STARTS))
    ours()
    monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__RUN_COUNT", str(MOST_STARTS + 1))
    with pytest.raises(EnvironmentLacks, match="crashed each time"):
        ours()
