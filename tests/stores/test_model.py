"""Random histories of a store, against a dictionary."""

import itertools

import hypothesis.strategies as st
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.errors import FeatureMissing, VideoMissing

IDS = ["a", "b", "c", "\u00fc"]
DEFINITIONS = [
    FeatureDefinition(name, "float32", (2,), ("channel",), {"version": version})
    for name, version in (("x", 1), ("x", 2), ("y", 1))
]
COUNTER = itertools.count()

ids = st.sampled_from(IDS)
definitions = st.sampled_from(DEFINITIONS)
handles = st.sampled_from([0, 1])


def _features(value, num_rows):
    starts = np.arange(num_rows, dtype=np.float64)
    return Features(np.full((num_rows, 2), value, "f4"), np.stack([starts, starts + 1], axis=1))


class StoreAndModel(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.url = f"memory://model-{next(COUNTER)}"
        self.handles = [FeatureStore.create(self.url), FeatureStore.open(self.url)]
        self.seen = [self._snapshot_of_model(), self._snapshot_of_model()]

    # the model: generation -> id -> rows; and what else is known
    rows: dict
    failed: dict
    marks: set
    active: dict

    def _snapshot_of_model(self):
        if not hasattr(self, "rows"):
            self.rows, self.failed, self.marks, self.active = {}, {}, set(), {}
        return (
            {key: dict(videos) for key, videos in self.rows.items()},
            dict(self.failed),
            set(self.marks),
            dict(self.active),
        )

    def _is_deleted(self, key, video_id):
        return {(video_id, None), (video_id, key.name)} & self.marks

    def _committed(self, handle):
        """A handle that wrote sees the newest version; the other one what it saw."""
        self.seen[handle] = self._snapshot_of_model()

    def _define(self, key, activate):
        self.rows.setdefault(key, {})
        if activate or (activate is None and key.name not in self.active):
            self.active[key.name] = key

    @rule(
        handle=handles,
        key=definitions,
        videos=st.sets(ids, min_size=1),
        failing=st.sets(ids),
        value=st.integers(0, 9),
        num_rows=st.integers(0, 3),
        mode=st.sampled_from(["keep", "replace"]),
        activate=st.sampled_from([None, None, True, False]),
        restore=st.booleans(),
    )
    def write(self, handle, key, videos, failing, value, num_rows, mode, activate, restore):
        failing = failing - videos
        store = self.handles[handle]
        with store.writer([key], mode=mode, activate=activate, restore=restore) as writer:
            for video_id in sorted(failing):
                writer.fail(video_id, None, "kind", f"{value}")
            for video_id in sorted(videos):
                writer.add(video_id, {key.name: _features(value, num_rows)})
        added = kept = deleted = failed = 0
        live = self.rows.get(key, {})
        new, new_failures = {}, {}
        for video_id in videos:
            if video_id in live and mode == "keep":
                kept += 1
            elif video_id not in live and self._is_deleted(key, video_id) and not restore:
                deleted += 1
            else:
                added += 1
                new[video_id] = (value, num_rows)
        for video_id in failing:
            if video_id in live:
                kept += 1
            elif self._is_deleted(key, video_id):
                deleted += 1
            else:
                failed += 1
                attempt = self.failed.get((key, video_id), (0, 0))[1] + 1
                new_failures[key, video_id] = (f"{value}", attempt)
        receipt = writer.receipt
        assert (receipt.added, receipt.kept, receipt.deleted, receipt.failed) == (
            added,
            kept,
            deleted,
            failed,
        )
        if new or new_failures or key in self.rows:
            self._define(key, activate)
        if new:
            self.rows[key].update(new)
        self.failed.update(new_failures)
        for video_id in new:
            self.failed.pop((key, video_id), None)
        self._committed(handle)
        assert receipt.version == store.version

    @rule(handle=handles, videos=st.sets(ids, min_size=1), name=st.sampled_from([None, "x", "y"]))
    def delete(self, handle, videos, name):
        if name is not None and not any(key.name == name for key in self.rows):
            return
        self.handles[handle].delete(videos, None if name is None else [name])
        for video_id in videos:
            self.marks.add((video_id, name))
            for key in self.rows:
                if name in (None, key.name):
                    self.rows[key].pop(video_id, None)
                    self.failed.pop((key, video_id), None)
        self._committed(handle)

    @rule(handle=handles, videos=st.sets(ids, min_size=1))
    def restore(self, handle, videos):
        self.handles[handle].restore(videos)
        self.marks = {mark for mark in self.marks if mark[0] not in videos}
        self._committed(handle)

    @precondition(lambda self: self.rows)
    @rule(handle=handles, data=st.data())
    def drop(self, handle, data):
        key = data.draw(st.sampled_from(list(self.rows)))
        self.handles[handle].drop(key.name, key.generation)
        del self.rows[key]
        self.failed = {where: what for where, what in self.failed.items() if where[0] != key}
        if self.active.get(key.name) == key:
            del self.active[key.name]
        self._committed(handle)

    @precondition(lambda self: self.rows)
    @rule(handle=handles, data=st.data())
    def activate(self, handle, data):
        key = data.draw(st.sampled_from(list(self.rows)))
        self.handles[handle].activate(key.name, key.generation, allow_missing=True)
        self.active[key.name] = key
        self._committed(handle)

    @rule(handle=handles)
    def checkpoint(self, handle):
        self.handles[handle].checkpoint()

    @rule(handle=handles)
    def refresh(self, handle):
        self.handles[handle].refresh()
        self._committed(handle)

    @rule(handle=handles)
    def reopen(self, handle):
        self.handles[handle] = FeatureStore.open(self.url)
        self._committed(handle)

    @invariant()
    def handles_see_what_they_should(self):
        for store, (rows, failed, marks, active) in zip(self.handles, self.seen, strict=True):
            assert {name: info.generation for name, info in store.features.items()} == {
                name: key.generation for name, key in active.items()
            }
            for key in DEFINITIONS:
                name = f"{key.name}@{key.generation}"
                if key not in rows:
                    assert name not in store
                    try:
                        store[name]
                    except FeatureMissing:
                        continue
                    raise AssertionError(name)
                reader = store[name]
                assert reader.ids() == sorted(rows[key])
                assert len(reader) == len(rows[key])
                assert reader.info.num_rows == sum(count for _, count in rows[key].values())
                statuses = store.status(key, IDS)
                for video_id in IDS:
                    status = statuses[video_id]
                    if video_id in rows[key]:
                        expected = _features(*rows[key][video_id])
                        np.testing.assert_array_equal(reader[video_id], expected.rows)
                        assert status.standing == "stored"
                        continue
                    try:
                        reader[video_id]
                    except VideoMissing:
                        pass
                    else:
                        raise AssertionError(video_id)
                    if {(video_id, None), (video_id, key.name)} & marks:
                        assert status.standing == "deleted"
                    elif (key, video_id) in failed:
                        assert (status.message, status.attempt) == failed[key, video_id]
                    else:
                        assert status.standing == "absent"
            assert store.failed().num_rows == len(failed)
            assert store.videos().num_rows == sum(len(videos) for videos in rows.values())

    def teardown(self):
        assert self.handles[0].verify().is_sound


TestStoreAndModel = StoreAndModel.TestCase
TestStoreAndModel.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
