"""The Prefect flow: the same store as the core, each carrying on what the other began."""

import threading

import pytest

from vlpipe.pipelines.extraction import batches
from vlpipe.pipelines.extraction.extract import run_extraction
from vlpipe.pipelines.extraction.receipts import BatchReceipt
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import StoreUnwritable


def contents(url):
    with FeatureStore.open(url) as store:
        return {name: store.digest(name) for name in store.features}


def test_the_flow_and_the_core_make_equal_stores_and_skip_each_others_work(make_job, tmp_path):
    from vlpipe.pipelines.extract_flow import extract

    by_core, by_flow = (make_job(store=str(tmp_path / name)) for name in ("core", "flow"))
    run_extraction(by_core)
    summary = extract(by_flow)
    assert summary.extracted == 6
    assert contents(by_flow.store) == contents(by_core.store)
    assert extract(by_core).extracted == 0
    assert run_extraction(by_flow).extracted == 0


def test_a_run_begun_in_one_is_carried_on_in_the_other(make_job, tmp_path):
    from vlpipe.pipelines.extract_flow import extract

    for name, first, second in (("a", run_extraction, extract), ("b", extract, run_extraction)):
        job = make_job(store=str(tmp_path / name))
        first(job.model_copy(update={"limit": 2}))
        summary = second(job)
        assert (summary.stored_before, summary.extracted) == (2, 4)


def test_parameters_travel_as_json(make_job):
    from vlpipe.pipelines.extract_flow import extract

    assert extract(make_job(limit=1).model_dump(mode="json")).extracted == 1


def test_the_summary_becomes_an_artifact(make_job, tmp_path):
    from prefect.client.orchestration import get_client

    from vlpipe.pipelines.extract_flow import extract

    (tmp_path / "empty.gif").write_bytes(b"")
    extract(make_job(paths=(tmp_path / "empty.gif",)))
    with get_client(sync_client=True) as client:
        summaries = [a for a in client.read_artifacts() if a.key == "extraction-summary"]
    artifact = max(summaries, key=lambda found: found.created)
    assert "| failed now | 1 |" in artifact.data
    assert "`empty` (empty)" in artifact.data


def test_only_infrastructure_is_tried_again(make_job, monkeypatch):
    from vlpipe.pipelines import extract_flow
    from vlpipe.pipelines.extraction.worker import ExtractionWorker

    attempts = []
    plain = ExtractionWorker.run

    def flaky(self, batch, **options) -> BatchReceipt:
        attempts.append(batch.id)
        if len(attempts) == 1:
            raise error
        return plain(self, batch, **options)

    monkeypatch.setattr(ExtractionWorker, "run", flaky)
    quick = extract_flow.extract_batch.with_options(retry_delay_seconds=[0, 0])
    monkeypatch.setattr(extract_flow, "extract_batch", quick)
    error = StoreUnwritable("disk full")
    assert extract_flow.extract(make_job(limit=1)).extracted == 1
    assert len(attempts) == 2

    attempts.clear()
    error = ValueError("a mistake")
    with pytest.raises(ValueError, match="a mistake"):
        extract_flow.extract(make_job(limit=2))
    assert len(attempts) == 1


def test_a_stop_reaches_the_flow(make_job):
    from vlpipe.pipelines.extract_flow import run_as_flow

    stop = threading.Event()
    stop.set()
    summary = run_as_flow(make_job(), stop=stop)
    assert (summary.exit_code, summary.not_reached) == (130, 6)


def test_devices_share_the_batches_of_a_flow(make_job, tmp_path, monkeypatch):
    from vlpipe.pipelines.extract_flow import extract

    monkeypatch.setattr(batches, "MAX_VIDEOS", 2)
    alone = make_job(store=str(tmp_path / "alone"))
    shared = make_job(store=str(tmp_path / "shared"), device="cpu,cpu")
    run_extraction(alone)
    assert extract(shared).extracted == 6
    assert contents(shared.store) == contents(alone.store)
