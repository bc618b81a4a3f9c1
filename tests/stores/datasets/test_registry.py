"""The catalogue of datasets: how they are found, named and opened."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vlpipe.stores import datasets
from vlpipe.stores.datasets import (
    Dataset,
    DatasetCheck,
    RowProblem,
    TableCheck,
    Video,
    dataset_class,
    dataset_names,
    list_datasets,
    open_dataset,
    register_dataset,
)
from vlpipe.stores.datasets import _registry as registry
from vlpipe.stores.errors import UsageError

NEW_DATASET = '''
"""A dataset of one clip."""

from vlpipe.stores.datasets import Dataset, DatasetCheck, Video, register_dataset


@register_dataset("one-clip")
class OneClip(Dataset):
    description = "One clip."
    homepage = "https://example.org"
    terms = "none"

    def videos(self, split: str | None = None) -> list[Video]:
        return [Video("clip", self.root / "clip.mp4", None)]

    def check(self) -> DatasetCheck:
        return DatasetCheck(self.name, self.root, (), 1, 1, (), (), (), ())
'''


@pytest.fixture
def _catalogue_is_restored():
    before = dict(registry._datasets._known)
    yield
    registry._datasets._known = before


def test_known_datasets_state_their_facts():
    assert {"demo", "folder", "tgif"} <= set(dataset_names())
    for dataset in list_datasets():
        assert dataset_class(dataset.name) is dataset
        for fact in (dataset.description, dataset.homepage, dataset.terms):
            assert isinstance(fact, str)
            assert fact


@pytest.mark.usefixtures("_catalogue_is_restored")
def test_a_dataset_is_added_by_one_file(tmp_path, monkeypatch):
    (tmp_path / "one_clip_of_test.py").write_text(NEW_DATASET)
    monkeypatch.setattr(datasets, "__path__", [*datasets.__path__, str(tmp_path)])
    assert "one-clip" in dataset_names()
    assert [video.id for video in open_dataset("one-clip", tmp_path).videos()] == ["clip"]


def test_a_name_is_taken_once():
    class Other(Dataset):
        def videos(self, split=None):
            return []

        def check(self):
            raise NotImplementedError

    with pytest.raises(ValueError, match=r"dataset 'folder' is registered twice: .*folder"):
        register_dataset("folder")(Other)
    assert dataset_class("folder") is not Other


@pytest.mark.parametrize("name", ["", "Folder", "a b", "../x", "x\n"])
def test_a_name_is_a_plain_word(name):
    with pytest.raises(ValueError, match="must match"):
        register_dataset(name)


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(UsageError, match="there is no dataset 'tgiff'; nearest: tgif") as caught:
        open_dataset("tgiff", ".")
    assert caught.value.hint == "`vlpipe datasets ls` lists all"
    with pytest.raises(UsageError, match=r"there is no dataset 'xyzzy'\nhint"):
        dataset_class("xyzzy")


def test_the_root_is_a_folder(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_dataset("tgif", tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        open_dataset("tgif", tmp_path / "file")


def test_every_offered_name_is_there():
    assert datasets.__all__ == sorted(datasets.__all__, key=lambda name: (name[0].islower(), name))
    for name in datasets.__all__:
        assert hasattr(datasets, name)


def test_the_catalogue_does_not_import_drawing_and_encoding_libraries():
    code = (
        "import sys, vlpipe.stores.feature_store; before = set(sys.modules);"
        "import vlpipe.stores.datasets as d;"
        "d.list_datasets(); new = set(sys.modules) - before;"
        "print(sorted(new & {'torch', 'PIL', 'pyarrow', 'ffmpeg', 'imageio_ffmpeg', 'numpy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_check_is_plain_json():
    check = DatasetCheck(
        dataset="x",
        root=Path("/data"),
        tables=(
            TableCheck("a.csv", Path("/data/a.csv"), 3, (3, 4)),
            TableCheck("b.csv", None, None, (5,), is_required=False),
        ),
        media_named=2,
        media_present=1,
        missing=("gone",),
        unnamed=("extra.gif",),
        unusable=(Video("..", None, "train", "not a name", "bad_id"),),
        bad_rows=(RowProblem(Path("/data/a.csv"), 7, "2 fields; expected 5"),),
    )
    value = json.loads(json.dumps(check.to_json()))
    assert value["media"] == {
        "named": 2,
        "present": 1,
        "missing": ["gone"],
        "unnamed": ["extra.gif"],
    }
    assert value["bad_rows"][0] == {
        "path": "/data/a.csv",
        "line": 7,
        "reason": "2 fields; expected 5",
    }
    assert value["unusable"] == [{"id": "..", "kind": "bad_id", "problem": "not a name"}]
    assert [table["complete"] for table in value["tables"]] == [True, True]
    assert value["complete"] is False
