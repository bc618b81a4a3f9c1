"""Random histories of a store on disk in which any file operation may fail, against a dictionary.

An operation that raised has happened as a whole or not at all, and the next one finds a store that
is sound.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from watched_os import WatchedOs

from vlpipe.stores import FeatureDefinition, Features, FeatureStore, local_files, local_storage
from vlpipe.stores.errors import StoreUnwritable

DEFINITION = FeatureDefinition("x", "float32", (2,), ("channel",))

ids = st.sets(st.sampled_from("abcd"), min_size=1)
handles = st.sampled_from([0, 1])
errors = st.sampled_from([errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
# None: nothing fails. A number: the operation from which on, or at which alone, writing fails.
moments = st.one_of(st.none(), st.integers(1, 60))


class StoreWithFailures(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.url = self.root / "store"
        self.handles = [
            FeatureStore.create(self.url, durability="process"),
            FeatureStore.open(self.url),
        ]
        self.rows: dict[str, int] = {}
        self.deleted: set[str] = set()

    def _attempt(self, work, moment, number, *, lasts):
        """Whether the operation has happened."""
        before = FeatureStore.open(self.url).version

        def fail(count, name, arguments):
            is_hit = moment is not None and (count >= moment if lasts else count == moment)
            if is_hit and name not in ("unlink", "rmdir"):
                raise OSError(number, os.strerror(number))
            return (lambda descriptor: None) if name == "fsync" else None

        watched = WatchedOs(fail)
        local_storage.os = local_files.os = watched
        try:
            work()
        except StoreUnwritable as error:
            assert error.hint  # noqa: PT017 - most runs raise nothing
            return FeatureStore.open(self.url).version > before
        finally:
            local_storage.os = local_files.os = os
        return True

    @rule(
        handle=handles,
        videos=ids,
        value=st.integers(0, 9),
        mode=st.sampled_from(["keep", "replace"]),
        moment=moments,
        number=errors,
        lasts=st.booleans(),
    )
    def write(self, handle, videos, value, mode, moment, number, lasts):
        def work():
            with self.handles[handle].writer([DEFINITION], mode=mode) as writer:
                for video_id in sorted(videos):
                    writer.add(video_id, {"x": _features(value)})

        if self._attempt(work, moment, number, lasts=lasts):
            for video_id in videos:
                is_there = video_id in self.rows
                if (is_there and mode == "replace") or not (is_there or video_id in self.deleted):
                    self.rows[video_id] = value

    @rule(handle=handles, videos=ids, moment=moments, number=errors, lasts=st.booleans())
    def delete(self, handle, videos, moment, number, lasts):
        store = self.handles[handle]
        if self._attempt(lambda: store.delete(videos), moment, number, lasts=lasts):
            self.deleted |= videos
            self.rows = {i: value for i, value in self.rows.items() if i not in videos}

    @rule(handle=handles, videos=ids, moment=moments, number=errors, lasts=st.booleans())
    def restore(self, handle, videos, moment, number, lasts):
        store = self.handles[handle]
        if self._attempt(lambda: store.restore(videos), moment, number, lasts=lasts):
            self.deleted -= videos

    @rule(handle=handles, moment=moments, number=errors, lasts=st.booleans())
    def compact(self, handle, moment, number, lasts):
        self._attempt(self.handles[handle].compact, moment, number, lasts=lasts)

    @rule(handle=handles, moment=moments, number=errors, lasts=st.booleans())
    def checkpoint(self, handle, moment, number, lasts):
        self._attempt(self.handles[handle].checkpoint, moment, number, lasts=lasts)

    @rule(handle=handles, moment=moments, number=errors, is_all=st.booleans())
    def collect(self, handle, moment, number, is_all):
        # Everything unlisted is garbage here: no writer is at work in between.
        retention_s = -1.0 if is_all else 1e6

        def work():
            self.handles[handle].gc(-1.0, retention_s=retention_s, dry_run=False)

        self._attempt(work, moment, number, lasts=True)

    @rule(data=st.data())
    def flip_and_repair(self, data):
        store = FeatureStore.open(self.url)
        if not self.rows:
            return
        video_id = data.draw(st.sampled_from(sorted(self.rows)))
        part, start, *_ = store["x"].locate(video_id)
        path = self.url / part.rows_file
        content = bytearray(path.read_bytes())
        content[4096 + start * 8] ^= 1
        path.write_bytes(content)
        report = store.verify(repair=True)
        assert report.is_sound
        assert [lost[2] for lost in report.lost] == [video_id]
        del self.rows[video_id]

    @rule(handle=handles)
    def reopen(self, handle):
        self.handles[handle] = FeatureStore.open(self.url, durability="process")

    @invariant()
    def content_is_that_of_the_model(self):
        store = FeatureStore.open(self.url)
        assert ("x" in store) or not self.rows
        for video_id, value in self.rows.items():
            np.testing.assert_array_equal(store["x"][video_id], _features(value).rows)
        if "x" in store:
            assert store["x"].ids() == sorted(self.rows)
        statuses = store.status(DEFINITION, "abcd")
        for video_id in "abcd":
            standing = "stored" if video_id in self.rows else (
                "deleted" if video_id in self.deleted else "absent"
            )  # fmt: skip
            assert statuses[video_id].standing == standing
        assert store.verify().problems == []

    def teardown(self):
        shutil.rmtree(self.root)


def _features(value):
    return Features(np.full((2, 2), value, "f4"), np.array([[0, 1], [1, 2]], np.float64))


TestStoreWithFailures = StoreWithFailures.TestCase
TestStoreWithFailures.settings = settings(
    max_examples=int(os.environ.get("VLPIPE_EXAMPLES", "15")),
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
