"""The loop that feeds runners: bounded, stoppable, and it ends at the first error."""

import threading
import time
from pathlib import Path

import pytest

from vlpipe.pipelines.extraction.batches import Batch, VideoTask, cut_batches
from vlpipe.pipelines.extraction.receipts import BatchReceipt, Failure, Reuse, merge_receipts
from vlpipe.pipelines.extraction.runners import run_batches


def batches(count):
    tasks = [
        VideoTask(id=str(n), path=Path("x"), extractors=("a",), estimated_s=1) for n in range(count)
    ]
    return [Batch(id=f"{n:016x}", tasks=(task,)) for n, task in enumerate(tasks)]


def receipt(batch, **changes):
    fields = {"batch": batch, "version": 1, "stored": (), "failed": (), "num_bytes": 0}
    return BatchReceipt(**(fields | {"stage_s": {}, "wall_s": 0.0} | changes))


class Slots:
    """A runner of so many slots that counts what runs at a time."""

    def __init__(self, num_slots):
        self.num_slots = num_slots
        self.most = self.running = 0
        self.abandoned = False
        self.lock = threading.Lock()
        self.threads = set()

    def run(self, batch):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.threads.add(threading.current_thread())
        time.sleep(0.005)
        with self.lock:
            self.running -= 1
        return receipt(batch.id)

    def abandon(self):
        self.abandoned = True


@pytest.mark.parametrize("num_slots", [1, 2, 5])
def test_every_batch_runs_once_and_no_more_at_a_time_than_there_are_slots(num_slots):
    runner, wanted = Slots(num_slots), batches(20)
    receipts = run_batches(runner, wanted, runner.run, stop=threading.Event())
    assert sorted(r.batch for r in receipts) == [b.id for b in wanted]
    assert runner.most == num_slots


def test_a_single_slot_works_in_the_calling_thread():
    runner = Slots(1)
    run_batches(runner, batches(3), runner.run, stop=threading.Event())
    assert runner.threads == {threading.current_thread()}


def test_workers_that_join_are_used():
    runner = Slots(2)

    def run(batch):
        runner.num_slots = 6
        return runner.run(batch)

    run_batches(runner, batches(30), run, stop=threading.Event())
    assert runner.most == 6


@pytest.mark.parametrize("num_slots", [1, 3])
def test_a_stop_begins_nothing_more(num_slots):
    runner, stop = Slots(num_slots), threading.Event()

    def run(batch):
        stop.set()
        return runner.run(batch)

    assert len(run_batches(runner, batches(20), run, stop=stop)) <= num_slots


@pytest.mark.parametrize("num_slots", [1, 3])
def test_the_first_error_ends_the_work_after_what_is_in_flight(num_slots):
    runner = Slots(num_slots)
    begun = []

    def run(batch):
        begun.append(batch.id)
        runner.run(batch)
        if len(begun) >= 4:
            raise OSError("no disk")
        return receipt(batch.id)

    with pytest.raises(OSError, match="no disk"):
        run_batches(runner, batches(50), run, stop=threading.Event())
    assert len(begun) < 4 + 2 * num_slots
    assert runner.running == 0


def test_an_interruption_abandons_what_is_in_flight(monkeypatch):
    from vlpipe.pipelines.extraction.runners import runner as module

    runner = Slots(2)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_batches(runner, batches(5), runner.run, stop=threading.Event())
    assert runner.abandoned


def test_halves_hold_every_video_once_and_have_names_of_their_own():
    tasks = [
        VideoTask(id=str(n), path=Path("x"), extractors=("a",), estimated_s=0) for n in range(7)
    ]
    (whole,) = cut_batches(tasks, seconds=60, identity=["x"])
    first, second = whole.halves()
    assert first.tasks + second.tasks == whole.tasks
    assert abs(len(first.tasks) - len(second.tasks)) == 1
    assert len({whole.id, first.id, second.id}) == 3
    assert whole.halves() == (first, second)


def test_receipts_of_pieces_add_up():
    failure = Failure(id="b", features=("f",), kind="killed_worker", message="m")
    one = receipt(
        "1", kept=("a",), num_bytes=5, stage_s={"decode": 1.0}, wall_s=2.0,
        reuse={"x": Reuse(computed=1, used=4)},
    )  # fmt: skip
    two = receipt(
        "2", version=7, failed=(failure,), num_bytes=6, stage_s={"decode": 2.0}, wall_s=3.0,
        reuse={"x": Reuse(computed=2, used=2)}, was_interrupted=True,
    )  # fmt: skip
    whole = merge_receipts("w", [one, two])
    assert (whole.batch, whole.version, whole.num_bytes, whole.wall_s) == ("w", 7, 11, 5.0)
    assert (whole.kept, whole.failed, whole.stage_s) == (("a",), (failure,), {"decode": 3.0})
    assert whole.reuse == {"x": Reuse(computed=3, used=6)}
    assert whole.was_interrupted
