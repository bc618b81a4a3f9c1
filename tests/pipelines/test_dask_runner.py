"""The Dask runner: the store of a quiet run whatever becomes of the workers, and nothing twice."""

import json
import os
import pkgutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import dask.config
import psutil
import pytest
from extraction_results import contents

import vlpipe.extractors
from vlpipe.pipelines.cli import run
from vlpipe.pipelines.extraction import batches
from vlpipe.pipelines.extraction.extract import plan_extraction, run_extraction
from vlpipe.pipelines.extraction.job import DaskOptions
from vlpipe.pipelines.extraction.observer import Silent
from vlpipe.pipelines.extraction.runners.dask_cluster import unchanged_environment
from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, UsageError
from vlpipe.stores.ledger import Ledger
from vlpipe.stores.storage import open_storage

ROOT = Path(__file__).parents[2]

pytestmark = [
    # Dask's own: sockets and processes that its event loop closes a moment later.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    """Three workers; a batch may cost one of them its life, and is halved after the second.

    They are forked from a process that has loaded all extractors, so that a dead one is soon
    replaced.
    """
    from distributed import LocalCluster
    from distributed.utils import get_mp_context

    settings = {
        "distributed.worker.multiprocessing-method": "forkserver",
        "distributed.deploy.lost-worker-timeout": "10 minutes",
    }
    with (
        unchanged_environment(),
        pytest.MonkeyPatch.context() as paths,
        dask.config.set(settings),
    ):
        paths.syspath_prepend(ROOT)
        found = pkgutil.iter_modules(vlpipe.extractors.__path__, "vlpipe.extractors.")
        get_mp_context().set_forkserver_preload(
            ["distributed", "vlpipe.pipelines.extraction.worker", *(m.name for m in found)]
        )
        with LocalCluster(
            n_workers=3, threads_per_worker=1, dashboard_address=None, memory_limit=0
        ) as made:
            made.scheduler.allowed_failures = 1
            yield made


@pytest.fixture
def make_simulated(tmp_path, monkeypatch, cluster):
    """Builds a simulated job of batches of four videos; keywords override its fields."""
    from poisoned_extraction import PoisonedJob

    monkeypatch.setattr(batches, "MAX_VIDEOS", 4)

    def build(names, **changes):
        folder = tmp_path / "media"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}.gif").touch()
        fields = {
            "paths": (folder,),
            "store": str(tmp_path / "by-dask"),
            "dask": DaskOptions(address=cluster.scheduler_address),
        }
        return PoisonedJob(**(fields | changes))

    return build


def names(count):
    return [f"video{n}" for n in range(count)]


def alone(job, tmp_path):
    """The contents of the store that the local runner makes."""
    local = job.model_copy(update={"dask": None, "store": str(tmp_path / "alone"), "seconds": 0.0})
    run_extraction(local)
    return contents(local.store)


def times_added(url):
    """How often each video was committed to the ledger."""
    entries = Ledger(open_storage(url)).entries(0, None, None)
    ops = [op for entry in entries for op in entry.ops if op["op"] == "add"]
    return Counter(video_id for op in ops for video_id in op["videos"]["id"])


class Watching(Silent):
    """Keeps what it is told, and calls `then` after the first batch."""

    def __init__(self, then=lambda: None):
        self.videos, self.batches, self.notices = [], [], []
        self.then = then

    def on_notice(self, text):
        self.notices.append(text)

    def on_video(self, video_id, failures):
        self.videos.append(video_id)

    def on_batch(self, receipt):
        self.batches.append(receipt.batch)
        if len(self.batches) == 1:
            self.then()


def kill_a_busy_worker(cluster):
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        pids = client.run(os.getpid)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for address, tasks in client.processing().items():
                if tasks:
                    os.kill(pids[address], signal.SIGKILL)
                    return
    raise AssertionError("no worker was busy")


def test_a_worker_killed_in_the_middle_of_a_batch_changes_nothing(
    make_simulated, cluster, tmp_path
):
    job = make_simulated(names(60), seconds=0.05)
    observer = Watching(then=lambda: kill_a_busy_worker(cluster))
    summary = run_extraction(job, observer=observer)
    assert (summary.exit_code, summary.extracted, summary.not_reached) == (0, 60, 0)
    assert Counter(observer.videos) == dict.fromkeys(names(60), 1)
    assert sorted(observer.batches) == sorted(b.id for b in plan_of(job, tmp_path).batches)
    assert any("Dask scheduler at tcp://" in text for text in observer.notices)
    assert times_added(job.store) == dict.fromkeys(names(60), 1)
    with FeatureStore.open(job.store) as store:
        assert store.verify().is_sound
    assert contents(job.store) == alone(job, tmp_path)


def plan_of(job, tmp_path):
    return plan_extraction(job.model_copy(update={"store": str(tmp_path / "none")}))


def test_a_video_that_kills_its_workers_is_found_and_put_in_quarantine(
    make_simulated, cluster, tmp_path, monkeypatch
):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    job = make_simulated([*names(3), "poison"])
    observer = Watching()
    summary = run_extraction(job, observer=observer)
    (failure,) = summary.failed
    assert (failure.id, failure.kind, summary.extracted) == ("poison", "killed_worker", 3)
    assert summary.exit_code == 1
    assert "poison.gif" in failure.message
    assert Counter(observer.videos) == dict.fromkeys([*names(3), "poison"], 1)
    assert any("halves" in text for text in observer.notices)
    with FeatureStore.open(job.store) as store:
        (found,) = store.failed().to_pylist()
    assert (found["video_id"], found["kind"], found["retry"]) == ("poison", "killed_worker", True)
    assert times_added(job.store) == dict.fromkeys(names(3), 1)
    assert run_extraction(job).failed_before == ("poison",)


def test_a_stop_lets_begun_videos_finish_and_the_local_runner_carries_on(make_simulated, tmp_path):
    stop = threading.Event()
    job = make_simulated(names(80), seconds=0.05)
    summary = run_extraction(job, observer=Watching(then=stop.set), stop=stop)
    assert summary.exit_code == 130
    assert 0 < summary.extracted < 80
    assert summary.extracted + summary.not_reached == 80
    local = job.model_copy(update={"dask": None})
    rest = run_extraction(local)
    assert (rest.stored_before, rest.extracted) == (summary.extracted, summary.not_reached)
    assert times_added(job.store) == dict.fromkeys(names(80), 1)
    assert contents(job.store) == alone(job, tmp_path)


def test_no_more_batches_are_handed_out_than_there_are_workers_and_one(make_simulated, monkeypatch):
    from vlpipe.pipelines.extraction.runners.dask_runner import DaskRunner

    in_flight = []
    plain = DaskRunner._wait

    def wait(self, future, stop):
        in_flight.append(len(self._in_flight))
        return plain(self, future, stop)

    monkeypatch.setattr(DaskRunner, "_wait", wait)
    assert run_extraction(make_simulated(names(64))).extracted == 64
    assert max(in_flight) <= 4


def kill_a_worker_that_decodes(killed, is_over):
    """Kills the first process below this one whose child decodes, and appends it to `killed`."""
    while not is_over.is_set():
        for process in psutil.Process().children(recursive=True):
            try:
                is_decoding = "vlpipe.extractors.media.worker" in process.cmdline()
                worker = process.parent() if is_decoding else None
            except psutil.NoSuchProcess:
                continue
            # Decoders of this very process are left from other tests.
            if worker is not None and worker.pid != os.getpid():
                worker.kill()
                killed.append(worker)
                return
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")  # for its settings: this command makes a cluster of its own
def test_the_command_starts_workers_of_its_own_and_outlives_one(
    make_job, monkeypatch, tmp_path, clips, capfd
):
    monkeypatch.setattr(batches, "MAX_VIDEOS", 2)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    killed, is_over = [], threading.Event()
    killer = threading.Thread(target=kill_a_worker_that_decodes, args=[killed, is_over])
    killer.start()
    store = str(tmp_path / "by-dask")
    settings = ["--set", "resnet18.resize=40", "--set", "resnet18.crop=32", "--store", store]
    words = ["extract", str(clips), "--features", "resnet18,vggish", "--weights", "untrained"]
    code = run([*words, *settings, "--runner", "dask", "--dask-workers", "2", "--json"])
    is_over.set()
    killer.join()
    out, err = capfd.readouterr()
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["extracted"], summary["failed"]) == (6, [])
    assert "Dask scheduler at tls://127.0.0.1" in err
    assert "dashboard at http://127.0.0.1" in err
    assert killed
    assert "MKL_NUM_THREADS" not in os.environ  # which the workers have, and had from this process
    job = make_job()
    run_extraction(job)
    assert contents(store) == contents(job.store)
    assert set(times_added(store).values()) == {2}  # once for each feature


def test_an_error_of_a_worker_is_that_of_the_command(make_simulated, tmp_path):
    job = make_simulated(names(2), store=str(tmp_path / "taken" / "store"))
    plan_extraction(job)
    other = job.model_copy(update={"device": "cuda"})
    with pytest.raises(EnvironmentLacks, match="cuda"):
        run_extraction(other)


def test_workers_with_other_checkpoints_are_refused(make_simulated, monkeypatch):
    from benchmarks._simulation import SleepingExtractor

    # Workers are processes of their own, and have the other version.
    job = make_simulated(names(2))
    monkeypatch.setattr(SleepingExtractor, "version", 2)
    with pytest.raises(EnvironmentLacks, match="was planned as"):
        run_extraction(job)


def test_a_store_in_memory_and_a_scheduler_that_is_not_there_are_refused(make_simulated):
    with pytest.raises(UsageError, match="workers cannot see"):
        run_extraction(make_simulated(names(1), store="memory://somewhere"))
    job = make_simulated(names(1), dask=DaskOptions(address="tcp://127.0.0.1:9"))
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "300ms"}),
        pytest.raises(EnvironmentLacks, match=r"no Dask scheduler answers at tcp://127.0.0.1:9"),
    ):
        run_extraction(job)
    assert not Path(job.store).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dask-workers", "2"], "--runner dask"),
        (["--runner", "dask", "--dask-cluster", "slurm"], "--dask-workers"),
        (
            ["--runner", "dask", "--dask-address", "tcp://x:1", "--dask-workers", "2"],
            "runs already",
        ),
        (["--dask-cluster", "slurm"], "--runner dask"),
        (["--runner", "dask", "--dask-address", "nofile.json"], "no such scheduler file"),
        (["--shard", "0/4"], "shard '0/4': expected k/n with k from 1 to n, as 3/16\n"),
    ],
)
def test_options_that_do_not_fit_together_are_explained(clips, capfd, words, said):
    code = run(["extract", str(clips), "--features", "resnet18", "--weights", "untrained", *words])
    assert code == 2
    assert said in capfd.readouterr().err


def test_each_gpu_has_a_worker_that_sees_no_other(monkeypatch):
    from vlpipe.pipelines.extraction.runners.dask_cluster import local_workers

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    workers = local_workers(("cuda:0", "cuda:1"))
    assert [w["env"]["CUDA_VISIBLE_DEVICES"] for w in workers] == ["0", "1"]
    assert [(w["resources"], w["nthreads"]) for w in workers] == [({"GPU": 1}, 1)] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    (worker,) = local_workers(("cuda:1",))
    assert worker["env"]["CUDA_VISIBLE_DEVICES"] == "6"
    with pytest.raises(UsageError, match="there is no cuda:2"):
        local_workers(("cuda:2",))
    with pytest.raises(UsageError, match="3 workers were asked for"):
        local_workers(("cuda:0", "cuda:1"), 3)
    assert [w["resources"] for w in local_workers(("cpu",), 3)] == [{}] * 3


def test_a_slurm_worker_is_one_thread_with_the_cores_and_the_gpu_of_its_job():
    from vlpipe.pipelines.extraction.runners.dask_cluster import slurm_cluster

    pytest.importorskip("dask_jobqueue")
    with pytest.raises(UsageError, match="not configured"):
        slurm_cluster(("cpu",))
    settings = {
        "jobqueue.slurm.cores": 8,
        "jobqueue.slurm.memory": "32GB",
        "jobqueue.slurm.job-extra-directives": ["--gres=gpu:1"],
    }
    with dask.config.set(settings), slurm_cluster(("cuda",)) as made:
        script = made.job_script()
    assert "#SBATCH --cpus-per-task=8" in script
    assert "#SBATCH --gres=gpu:1" in script
    assert "--nthreads 1" in script
    assert "--resources GPU=1" in script
