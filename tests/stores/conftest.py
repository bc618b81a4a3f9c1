"""What the tests of the feature store share: small features, and work in other processes."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_places import DEFAULT_PLACE, PLACES, s3_server
from watched_os import WatchedOs

from vlpipe.stores import FeatureDefinition, Features, FeatureStore, local_files, local_storage
from vlpipe.stores.s3_storage import S3Storage


class Samples:
    """Definitions, and rows that are a function of video id and definition."""

    rgb = FeatureDefinition("rgb", "float16", (6,), ("channel",), {"weights": {"untrained": True}})
    audio = FeatureDefinition("audio", "float32", (2, 3), ("object", "channel"), {"version": 1})

    def definition(self, name: str, dtype: str = "float32", **provenance: Any) -> FeatureDefinition:
        return FeatureDefinition(name, dtype, (3,), ("channel",), provenance)

    def rows(self, definition: FeatureDefinition, video_id: str, num_rows: int = 4) -> Features:
        seed = [*video_id.encode(), *definition.generation.encode(), num_rows]
        values = np.random.default_rng(seed).integers(0, 100, (num_rows, *definition.row_shape))
        starts = np.arange(num_rows, dtype=np.float64)
        return Features(values.astype(definition.dtype), np.stack([starts, starts + 1.5], axis=1))

    def write(
        self, store: FeatureStore, ids: list[str], *definitions: FeatureDefinition, **how: Any
    ):
        definitions = definitions or (self.rgb, self.audio)
        with store.writer(definitions, **how) as writer:
            for video_id in ids:
                writer.add(video_id, {d.name: self.rows(d, video_id) for d in definitions})
        return writer.receipt

    def check(self, store: FeatureStore, ids: list[str], *definitions: FeatureDefinition) -> None:
        """Every video is there, bit by bit, and no other."""
        for definition in definitions or (self.rgb, self.audio):
            reader = store[f"{definition.name}@{definition.generation}"]
            assert reader.ids() == sorted(ids)
            for video_id in ids:
                expected = self.rows(definition, video_id)
                rows, spans = reader.read(video_id, with_spans=True)
                np.testing.assert_array_equal(rows, expected.rows)
                np.testing.assert_array_equal(spans, expected.spans)


@pytest.fixture
def samples() -> Samples:
    return Samples()


@pytest.fixture
def watch_os(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WatchedOs]]:
    def install(before: Callable[[int, str, tuple[Any, ...]], Any] = lambda *_: None) -> WatchedOs:
        watched = WatchedOs(before)
        monkeypatch.setattr(local_storage, "os", watched)
        monkeypatch.setattr(local_files, "os", watched)
        return watched

    return install


@pytest.fixture
def run_in_child() -> Callable[[Callable[[], None]], int]:
    """Runs a function in a forked process and returns its exit status; 1 when it raised."""

    def run(work: Callable[[], None]) -> int:
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
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return run


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture
def address_at(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], str | Path]:
    """Where a new store can be made: in a "folder", in "memory" or on "s3"."""

    def address(place: str) -> str | Path:
        if place == "folder":
            return tmp_path / "store"
        if place == "memory":
            return f"memory://{tmp_path}"
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
        storage = S3Storage(f"bucket/{tmp_path.name}/features of all")
        storage._fs().call_s3("create_bucket", Bucket="bucket")
        return storage.url

    return address


@pytest.fixture
def store(request: pytest.FixtureRequest, address_at: Callable[[str], str | Path]) -> FeatureStore:
    place = "folder" if request.node.get_closest_marker("folder") else DEFAULT_PLACE
    return FeatureStore.create(address_at(place), durability="process")


@pytest.fixture(params=PLACES)
def any_store(
    request: pytest.FixtureRequest, address_at: Callable[[str], str | Path]
) -> FeatureStore:
    return FeatureStore.create(address_at(request.param), durability="process")
