"""Several writers on one store: every video once, no commit lost, readers undisturbed."""

import os
import random
import signal
import threading
import time
import warnings

import pytest

from vlpipe.stores import FeatureStore
from vlpipe.stores.ledger import Ledger
from vlpipe.stores.memory_storage import MemoryStorage
from vlpipe.stores.storage import ReplyLost


def _fork(work):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of libraries
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def _write_missing(url, samples, ids, size=3):
    """What an interrupted and repeated extraction does."""
    store = FeatureStore.open(url, durability="process")
    status = store.status(samples.rgb, ids)
    missing = [video_id for video_id in ids if status[video_id].standing == "absent"]
    for start in range(0, len(missing), size):
        samples.write(store, missing[start : start + size], samples.rgb)


@pytest.mark.folder
def test_two_processes_with_the_same_videos(store, samples):
    ids = [f"v{i}" for i in range(60)]
    pids = [
        _fork(lambda order=order: _write_missing(store.url, samples, order))
        for order in (ids, ids[::-1], ids[20:] + ids[:20])
    ]
    for pid in pids:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    store.refresh()
    samples.check(store, ids, samples.rgb)
    assert store.verify().is_sound
    added = [operation for entry in store.log() for operation in entry.operations]
    counts = [int(operation.split()[-2]) for operation in added if operation.startswith("add ")]
    assert sum(counts) == len(ids)
    assert [entry.version for entry in store.log()] == list(range(1, store.version + 1))


@pytest.mark.slow
def test_storm_of_killed_writers(store, samples):
    """One to four writers are killed and started again, while a reader compares what it sees and
    another process compacts; VLPIPE_KILLS chooses how many are killed."""
    num_kills = int(os.environ.get("VLPIPE_KILLS", "24"))
    ids = [f"v{i}" for i in range(max(300, 8 * num_kills))]
    rng = random.Random(1)
    writers = []
    committed = set()
    for number in range(num_kills):
        num_writers = rng.randint(1, 4)
        while len(writers) < num_writers:
            order = rng.sample(ids, len(ids))
            work = _compact if number % 8 == 7 else _write_missing
            writers.append(_fork(lambda order=order, work=work: work(store.url, samples, order, 2)))
        time.sleep(rng.uniform(0.01, 0.15))
        victim = writers.pop(rng.randrange(len(writers)))
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        store.refresh()
        seen = store["rgb"].ids() if "rgb" in store else []
        assert committed <= set(seen)
        committed = set(seen)
        if number % 4 == 0 and seen:
            samples.check(store, seen, samples.rgb)
    for pid in writers:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    _write_missing(store.url, samples, ids)  # the same command finishes the work
    store.refresh()
    samples.check(store, ids, samples.rgb)
    assert store.verify().is_sound
    added = [
        video_id
        for entry in Ledger(store._storage).entries(0, None, None)
        for op in entry.ops
        if op["op"] == "add"
        for video_id in op["videos"]["id"]
    ]
    assert sorted(added) == sorted(ids)  # none twice
    store.gc(0, dry_run=False)
    report = store.verify()
    assert (report.problems, report.leftovers) == ([], [])
    samples.check(FeatureStore.open(store.url), ids, samples.rgb)


def _compact(url, samples, ids, size):
    FeatureStore.open(url, durability="process").compact()


class UnreliableStorage(MemoryStorage):
    """An object store that loses requests and replies of `create`."""

    def __init__(self, name, seed):
        super().__init__(name)
        self._random = random.Random(seed)
        self.num_lost = 0

    def create(self, name, data):
        choice = self._random.random()
        if choice < 0.15:  # the request is lost
            self.num_lost += 1
            raise ReplyLost
        result = super().create(name, data)
        if choice < 0.3:  # the reply is lost
            self.num_lost += 1
            raise ReplyLost
        return result and (choice > 0.4 or not self._was_sent_twice(name))

    def _was_sent_twice(self, name):
        # The client below us repeats the request by itself and is told that the name exists.
        return name.startswith("log/")


def test_lost_replies_of_an_object_store(samples, tmp_path):
    name = str(tmp_path)
    FeatureStore.create(f"memory://{name}")
    place = MemoryStorage.named(name)
    storage = UnreliableStorage(name, 3)
    storage._objects = place._objects
    believed, errors = [], []

    def write(number):
        try:
            for batch in range(6):
                entry_id = _commit(storage, f"{number}-{batch}")
                believed.append(entry_id)
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    ledger = Ledger(place)
    entries = list(ledger.entries(0, None, None))
    assert sorted(entry.batch for entry in entries) == sorted(believed)
    assert len(entries) == 36
    assert storage.num_lost > 5


def _commit(storage, batch):
    from vlpipe.stores.commit import commit
    from vlpipe.stores.state import State

    op = {"op": "require", "min_reader": 1, "min_writer": 1}
    commit(storage, State(), lambda _: [op], batch=batch)
    return batch
