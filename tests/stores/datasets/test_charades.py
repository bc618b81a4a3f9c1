"""Charades: quoted tables, actions, both sizes of a video, and files not as published."""

import json

import pytest
from typer.testing import CliRunner

from vlpipe.pipelines.cli import datasets as datasets_command
from vlpipe.stores.datasets import Action, open_dataset
from vlpipe.stores.errors import AnnotationError, UsageError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
TRAIN = (
    HEADER + '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks, and says ""NA"".",food;stove,'
    '"One; two;",c001 0.00 5.50;c000 11.90 21.20,20.10\r\n'
    "N11GT,0KZ7,Bathroom,,,No,Nobody.,,,,11.00\n"
)
TEST = HEADER + "YSKX3,HR43,Kitchen,6,7,Yes,,,,c001 3.0 2.0,\n"
CLASSES = "c000 Holding some clothes\nc001 Closing a door (or not)\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "Charades").mkdir()
    (tmp_path / "Charades" / "Charades_v1_train.csv").write_text(TRAIN)
    (tmp_path / "Charades" / "Charades_v1_test.csv").write_text(TEST)
    (tmp_path / "Charades" / "Charades_v1_classes.txt").write_text(CLASSES)
    for name in ("Charades_v1/46GP8", "Charades_v1_480/46GP8", "Charades_v1/YSKX3"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").write_bytes(name.encode())
    return tmp_path


def replace(root, name, old, new):
    path = root / "Charades" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_actions_are_those_of_the_rows(root):
    dataset = open_dataset("charades", root)
    assert [c.name for c in dataset.action_classes()] == [
        "Holding some clothes", "Closing a door (or not)",
    ]  # fmt: skip
    cooks, nobody = dataset.actions("train")
    assert cooks.actions == (Action(1, 0.0, 5.5), Action(0, 11.9, 21.2))
    assert cooks.script == 'A person cooks, and says "NA".'
    assert cooks.descriptions == ("One", "two")
    assert cooks.duration_s == 20.1
    assert nobody.actions == nobody.descriptions == ()
    (tested,) = dataset.actions("test")
    assert tested.actions == (Action(1, 3.0, 2.0),)
    assert tested.duration_s is None
    with pytest.raises(UsageError, match="no split 'val'; it has: train, test"):
        dataset.actions("val")


def test_of_both_sizes_the_small_one_is_taken(root):
    dataset = open_dataset("charades", root)
    paths = {video.id: video.path for video in dataset.videos()}
    assert paths == {
        "46GP8": root / "Charades_v1_480" / "46GP8.mp4",
        "N11GT": None,
        "YSKX3": root / "Charades_v1" / "YSKX3.mp4",
    }
    assert [video.split for video in dataset.videos()] == ["train", "train", "test"]
    (root / "Charades_v1_480").rename(root / "Charades_v1" / "Charades_v1_480")
    assert dataset.videos("train")[0].path == (
        root / "Charades_v1" / "Charades_v1_480" / "46GP8.mp4"
    )
    (root / "copy").mkdir()
    (root / "copy" / "46GP8.mp4").write_bytes(b"another")
    assert dataset.videos("train")[0].problem_kind == "duplicate_id"


def test_the_command_says_what_is_missing(root):
    done = CliRunner().invoke(
        datasets_command.app, ["check", "charades", "--root", str(root), "--json"]
    )
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert found["media"] == {"named": 3, "present": 2, "missing": ["N11GT"], "unnamed": []}
    assert [(table["rows"], table["complete"]) for table in found["tables"]] == [
        (2, False), (1, False), (2, False),
    ]  # fmt: skip
    assert not found["unusable"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("c001 0.00 5.50", "c002 0.00 5.50", r"line 2, column actions: 'c002' is none of the 2"),
        ("c001 0.00 5.50", "c001 0.00", r"line 2, column actions: 'c001 0.00'; expected CLASS"),
        ("c001 0.00 5.50", "c001 0.00 nan", r"line 2, column actions: 'nan'; expected seconds"),
        ("c001 0.00 5.50", "c001 -1 5.50", r"line 2, column actions: '-1'; expected seconds"),
        (",11.00", ",eleven", r"line 3, column length: 'eleven'; expected seconds"),
        ("N11GT", "46GP8", r"line 3, column id: '46GP8' is named before"),
        (",Bathroom", "", r"line 3: 10 fields; expected 11"),
        (",length", ",seconds", r"lacks the columns length"),
    ],
)
def test_a_wrong_field_is_named_with_file_row_and_column(root, old, new, said):
    replace(root, "Charades_v1_train.csv", old, new)
    dataset = open_dataset("charades", root)
    with pytest.raises(AnnotationError, match=rf"Charades_v1_train\.csv.*{said}"):
        dataset.actions("train")
    assert "Charades_v1_train.csv" in dataset.check().tables[0].problem


def test_classes_that_are_not_in_their_places_are_refused(root):
    replace(root, "Charades_v1_classes.txt", "c001", "c002")
    dataset = open_dataset("charades", root)
    with pytest.raises(AnnotationError, match=r"classes\.txt, line 2: 'c002 .*expected c001"):
        dataset.action_classes()
    (root / "Charades" / "Charades_v1_classes.txt").unlink()
    with pytest.raises(AnnotationError, match=r"Charades_v1_classes\.txt is not in"):
        dataset.actions("train")
