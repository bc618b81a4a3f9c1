"""Readers of stories: LSMDC 2019 and M-VAD Names, as published and as found damaged."""

import pickle

import numpy as np
import pytest
from made_stories import make_stories

from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.datasets._plain_pickle import read_plain_pickle
from vlpipe.stores.datasets._stories import read_sets
from vlpipe.stores.errors import AnnotationError, UsageError

TIMES = "00.03.07.170\t00.03.09.675\t00.03.07.170\t00.03.09.675"


@pytest.fixture
def lsmdc(tmp_path):
    """Seven clips of one movie and one of another, a person in every second."""
    (tmp_path / "task2").mkdir()
    clips = [f"1_A_{n}" for n in range(7)] + ["2_B_0"]
    for word in ("training", "val", "test"):
        told = [
            f"{c}\t{TIMES}\t{'[...] waits.' if n % 2 else 'Rain.'}" for n, c in enumerate(clips)
        ]
        base = tmp_path / "task2" / f"LSMDC16_annos_{word}"
        base.with_name(f"{base.name}_blank.csv").write_text("\r\n".join(told) + "\r\n")
        ids = [f"{c}\t{'[1_PERSON3]' if n % 2 else '_'}" for n, c in enumerate(clips)]
        if word != "test":
            end = "onlyIDs_NEW" if word == "val" else "onlyIDs"
            base.with_name(f"{base.name}_{end}.csv").write_text("\r\n".join(ids) + "\r\n")
    return tmp_path


def test_lsmdc_2019_has_sets_of_five_rows_of_a_movie(lsmdc):
    dataset = open_dataset("lsmdc-2019", lsmdc)
    stories = dataset.stories("val")
    assert [(s.movie, len(s.lines)) for s in stories] == [("1_A", 5), ("1_A", 2), ("2_B", 1)]
    line = stories[0].lines[1]
    assert (line.sentence, line.blanked) == ("SOMEONE waits.", "[...] waits.")
    assert line.characters == line.person_ids == ("[1_PERSON3]",)
    assert stories[0].lines[0].characters == ()
    blind = dataset.stories("blind")
    assert blind[0].lines[1].characters == (None,)
    (lsmdc / "valSets.csv").write_text("1_A_0\t1_A_1\n1_A_2\t1_A_3\t1_A_4\t1_A_5\t1_A_6\n2_B_0\n")
    assert [len(s.lines) for s in dataset.stories("val")] == [2, 5, 1]
    assert {v.split for v in dataset.videos()} == {"train"}  # the same clips in every file
    (lsmdc / "valSets.csv").write_text("1_A_0\t1_A_2\n")
    with pytest.raises(AnnotationError, match=r"same clips in one order"):
        dataset.stories("val")
    with pytest.raises(UsageError, match="no split 'test'"):
        dataset.stories("test")


def test_lsmdc_2019_says_what_is_missing_or_wrong(lsmdc):
    check = open_dataset("lsmdc-2019", lsmdc).check()
    rows = {table.name: table for table in check.tables}
    assert rows["LSMDC16_annos_val_onlyIDs.csv"].rows == 8
    assert not rows["LSMDC16_annos_val_onlyIDs.csv"].is_complete  # 7,408 are published
    assert rows["blindSets.csv"].is_complete
    assert len(check.missing) == 8
    path = lsmdc / "task2" / "LSMDC16_annos_val_blank.csv"
    path.write_text(path.read_text().replace("[...] waits", "[...] and [...] wait"))
    with pytest.raises(AnnotationError, match=r"'1_A_1': 2 blanks and 1 ids"):
        open_dataset("lsmdc-2019", lsmdc).stories("val")
    path.unlink()
    with pytest.raises(AnnotationError, match=r"LSMDC16_annos_val_blank.csv is not in"):
        open_dataset("lsmdc-2019", lsmdc).stories("val")
    (lsmdc / "sets").write_text("a\tb\tc\td\te\tf\n")
    with pytest.raises(AnnotationError, match="line 1: 6 fields; expected one to five"):
        read_sets(lsmdc / "sets")


def test_mvad_names_links_mentions_to_tracks(tmp_path):
    root = tmp_path / "mvad"
    make_stories(root, str(tmp_path / "store"), num=4, media=(0,))
    dataset = open_dataset("mvad-names", root)
    (story, *_) = dataset.stories("train")
    assert [line.video_id for line in story.lines] == [f"M_DVS{n}" for n in range(5)]
    first = story.lines[0]
    assert first.sentence.count("SOMEONE") == len(first.characters) == 2
    assert {track.character for track in first.tracks} == set(first.characters)
    assert story.lines[4].characters == story.lines[4].tracks == ()
    assert story.genders["ADA"] == "F"
    videos = {video.id: video for video in dataset.videos()}
    assert videos["M_DVS0"].path.name == "M_DVS0.mp4"
    check = dataset.check()
    assert (check.media_present, len(check.missing)) == (1, 19)
    assert {t.name: t.rows for t in check.tables}["captions.csv"] == 20
    # Numbers order clips, and what does not fill a set is dropped.
    (root / "val.txt").write_text("".join(f"M_DVS{n}\n" for n in (10, 9, 8, 7, 6, 11)))
    (later,) = dataset.stories("val")
    assert [line.video_id for line in later.lines] == [f"M_DVS{n}" for n in range(6, 11)]


def test_mentions_of_who_is_not_seen_are_nobody(tmp_path):
    root = tmp_path / "mvad"
    make_stories(root, str(tmp_path / "store"), num=4)
    path = root / "captions.csv"
    told = "M\tDVS0\tM_DVS0\t<PERSON>Zoe</PERSON> and SOMEONE wait."
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], told, *lines[2:]]) + "\n")
    line = open_dataset("mvad-names", root).stories("train")[0].lines[0]
    assert line.characters == (None,)
    assert line.sentence == "SOMEONE and someone wait."
    (root / "train.txt").write_text("M_DVS99\n")
    with pytest.raises(AnnotationError, match="no sentence of, the first is 'M_DVS99'"):
        open_dataset("mvad-names", root).stories("train")


def test_the_release_is_a_pickle_and_no_code_in_it_runs(tmp_path):
    path = tmp_path / "mvad-names.pkl"
    value = {"M": {"videos": {"DVS1": {"ADA": [[(np.int64(3), 1, 2, np.int32(4), 5)]]}}}}
    for protocol in (0, 2, 5):
        path.write_bytes(pickle.dumps(value, protocol))
        assert read_plain_pickle(path) == value
    path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(AnnotationError, match=r"asks for os\.system"):
        read_plain_pickle(path)
    for damaged in (b"\x80\x04\x95", b"", b"\x80\x02r\xff\xff\xff\x7f."):
        path.write_bytes(damaged)
        with pytest.raises(AnnotationError, match="is not a pickle of plain values"):
            read_plain_pickle(path)
