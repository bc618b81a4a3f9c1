"""The store on an S3 server of this machine: the same protocol, with writers in two processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vlpipe.stores import FeatureStore
from vlpipe.stores.errors import EnvironmentLacks, StoreUnwritable, UsageError

WRITER = """
import sys
from conftest import Samples
from vlpipe.stores import FeatureStore

url, *ids = sys.argv[1:]
samples = Samples()
store = FeatureStore.open(url)
for start in range(0, len(ids), 2):
    samples.write(store, ids[start : start + 2], samples.rgb)
"""


@pytest.fixture
def url(address_at):
    return address_at("s3")


@pytest.mark.slow
def test_protocol(url, samples):
    store = FeatureStore.create(url)
    samples.write(store, ["b", "a", "\u00fc/?#%2F"], samples.rgb)
    past = FeatureStore.open(url)
    with store.writer([samples.rgb]) as writer:
        writer.add("c", {"rgb": samples.rows(samples.rgb, "c")})
        writer.fail("bad", None, "decode", "no frames")
    store.delete(["b"])
    samples.check(past, ["a", "b", "\u00fc/?#%2F"], samples.rgb)
    samples.check(store, ["a", "c", "\u00fc/?#%2F"], samples.rgb)
    store.checkpoint()
    store.tag("baseline")
    store.compact()
    again = FeatureStore.open(url)
    samples.check(again, ["a", "c", "\u00fc/?#%2F"], samples.rgb)
    batch = again["rgb"].read_batch(["c", "a"], pad="right", with_spans=True)
    np.testing.assert_array_equal(batch[0], samples.rows(samples.rgb, "c").rows)
    np.testing.assert_array_equal(again["rgb"].read("a", rows=[2]), batch[1][[2]])
    assert again["rgb"].read("a", copy=False).shape == (4, 6)
    assert FeatureStore.open(url, "baseline").version == 3
    assert again.verify().problems == []
    report = again.gc(0, retention_s=0, dry_run=False)
    assert report.parts == []  # the tag holds them, and S3 tells time in seconds
    assert again.verify().is_sound
    with pytest.raises(UsageError, match="already"):
        FeatureStore.create(url)


@pytest.mark.slow
def test_two_processes(url, samples):
    FeatureStore.create(url)
    ids = [f"v{i}" for i in range(6)]
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url, *order], env=environment)
        for order in (ids, ids[::-1])
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    store = FeatureStore.open(url)
    samples.check(store, ids, samples.rgb)
    added = [operation for entry in store.log() for operation in entry.operations]
    assert sum(int(what.split()[-2]) for what in added if what.startswith("add ")) == len(ids)
    assert store.verify().is_sound


def test_reading_after_a_fork(url, samples, run_in_child):
    samples.write(FeatureStore.create(url), ["a"], samples.rgb)
    store = FeatureStore.open(url)
    samples.check(store, ["a"], samples.rgb)
    assert run_in_child(lambda: samples.check(store, ["a"], samples.rgb)) == 0
    samples.check(store, ["a"], samples.rgb)


def test_lost_replies_and_errors_of_the_service(url, samples, monkeypatch):
    from botocore.exceptions import EndpointConnectionError

    store = FeatureStore.create(url)
    fs = store._storage._fs()
    real = fs.pipe_file
    calls = []

    def unsure(path, data, mode="overwrite"):
        calls.append(path)
        if mode == "create" and len(calls) % 3:
            if len(calls) % 3 == 1:
                real(path, data, mode=mode)  # it took effect
                raise OSError("503 Slow Down")
            raise EndpointConnectionError(endpoint_url="http://there")  # which is no OSError
        return real(path, data, mode=mode)

    monkeypatch.setattr(fs, "pipe_file", unsure)
    for video_id in "ab":
        samples.write(store, [video_id], samples.rgb)
    assert [entry.version for entry in store.log()] == [1, 2]
    samples.check(FeatureStore.open(url), list("ab"), samples.rgb)


def test_a_service_without_conditional_requests(url, monkeypatch, samples):
    """It is refused, unless one process at a time writes; this is noted in the store."""
    s3fs = pytest.importorskip("s3fs")
    real = s3fs.S3FileSystem.pipe_file

    def ignore_mode(self, path, data, mode="overwrite"):
        return real(self, path, data)

    monkeypatch.setattr(s3fs.S3FileSystem, "pipe_file", ignore_mode)
    with pytest.raises(StoreUnwritable, match="single_writer=True"):
        FeatureStore.create(url)
    FeatureStore.create(f"{url}/other", single_writer=True)
    for video_id in "ab":
        samples.write(FeatureStore.open(f"{url}/other"), [video_id], samples.rgb)
    samples.check(FeatureStore.open(f"{url}/other"), ["a", "b"], samples.rgb)


def test_no_such_bucket(url):
    with pytest.raises(EnvironmentLacks, match="no bucket 'elsewhere'"):
        FeatureStore.create("s3://elsewhere/store")
    with pytest.raises(UsageError, match="no bucket"):
        FeatureStore.open("s3://")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_PROFILE", "nobody")],
)
def test_what_the_client_finds_wrong_is_said_without_a_traceback(url, monkeypatch, variable, value):
    FeatureStore.create(url)
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(EnvironmentLacks, match="cannot be read") as caught:
        FeatureStore.open(url)
    assert "AWS_PROFILE" in str(caught.value.hint)


def test_a_name_that_no_bucket_can_have(url):
    with pytest.raises(EnvironmentLacks, match="bucket name"):
        FeatureStore.open("s3://no bucket/store")
