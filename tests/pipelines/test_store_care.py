"""Care for a store: a sound one is tidied, a damaged one left alone until repair is asked for."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from vlpipe.pipelines.cli import run
from vlpipe.pipelines.store_care import StoreCareJob, care_for_store
from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.errors import StoreDamaged

IDS = ["a", "b", "c"]


@pytest.fixture
def url(tmp_path):
    """A store of three small parts."""
    store = FeatureStore.create(tmp_path / "store", durability="process")
    definition = FeatureDefinition("rgb", "float32", (4,), ("channel",))
    for n, video_id in enumerate(IDS):
        with store.writer([definition]) as writer:
            rows = np.full((3, 4), n, "float32")
            writer.add(video_id, {"rgb": Features(rows, np.array([[0, 1], [1, 2], [2, 3.0]]))})
    return store.url


def damage(url):
    path = Path(url, FeatureStore.open(url)["rgb"].locate("b")[0].rows_file)
    data = bytearray(path.read_bytes())
    data[4100] ^= 1
    path.write_bytes(data)


def test_a_sound_store_is_compacted_and_rid_of_what_nobody_needs(url):
    before = FeatureStore.open(url).digest("rgb")
    shares = []
    report = care_for_store(
        StoreCareJob(store=url, keep_days=0, grace_hours=0), progress=shares.append
    )
    assert report.is_sound
    report.raise_if_damaged()
    assert (report.num_videos, report.parts_before, report.parts_after) == (3, 3, 1)
    assert report.num_removed >= 3
    assert report.removed_bytes > 0
    assert report.free_bytes == pytest.approx(shutil.disk_usage(url).free, rel=0.2)
    assert shares[-1] == 1.0
    again = care_for_store(StoreCareJob(store=url, keep_days=0, grace_hours=0))
    assert (again.parts_before, again.num_removed) == (0, 0)
    assert FeatureStore.open(url).digest("rgb") == before


def test_a_damaged_store_is_not_touched_until_repair_is_asked_for(url, capsys):
    damage(url)
    version = FeatureStore.open(url).version
    report = care_for_store(StoreCareJob(store=url, keep_days=0, grace_hours=0))
    assert not report.is_sound
    assert (report.parts_before, report.num_removed) == (0, 0)
    assert FeatureStore.open(url).version == version
    with pytest.raises(StoreDamaged, match="problems, the first: "):
        report.raise_if_damaged()
    assert run(["store", "care", url]) == 4
    assert f"hint: vlpipe store care {url} --repair" in capsys.readouterr().err
    assert run(["store", "care", url, "--repair", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["lost"] == [["rgb", "b"]]
    assert facts["is_sound"]
    with FeatureStore.open(url) as store:
        assert sorted(store["rgb"].ids()) == ["a", "c"]
