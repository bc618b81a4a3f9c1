"""LSMDC for retrieval: rows, repeated clips, media, files not as published."""

import pytest

from vlpipe.stores.datasets import open_dataset
from vlpipe.stores.errors import AnnotationError

CLIP = "3009_BATTLE_LOS_ANGELES_00.03.07.170-00.03.09.675"
OTHER = "1004_Juno_00.00.32.920-00.00.37.106"
TIMES = "00.03.07.170\t00.03.09.675\t00.03.07.170\t00.03.09.675"


@pytest.fixture
def root(tmp_path):
    train = f'{CLIP}\t{TIMES}\tSOMEONE turns.\n{CLIP}\t{TIMES}\tHe says, "no".\n'
    (tmp_path / "LSMDC16_annos_training.csv").write_text(train)
    (tmp_path / "LSMDC16_annos_val.csv").write_text(f"{OTHER}\t{TIMES}\tnull\n")
    test = tmp_path / "LSMDC16_challenge_1000_publictect.csv"
    test.write_text(f"{OTHER}\t{TIMES}\tSomeone waits.\n")
    (tmp_path / "3009_BATTLE_LOS_ANGELES").mkdir()
    (tmp_path / "3009_BATTLE_LOS_ANGELES" / f"{CLIP}.avi").write_bytes(b"x")
    return tmp_path


def test_a_clip_with_two_sentences_has_two_keys(root):
    dataset = open_dataset("lsmdc", root)
    first, second = dataset.sentence_pairs("train")
    assert first.key != second.key
    assert first.video_id == second.video_id == CLIP
    assert second.sentence == 'He says, "no".'
    assert dataset.sentence_pairs("val")[0].sentence == "null"
    assert dataset.sentence_pairs("test")[0].sentence == "Someone waits."


def test_clips_are_found_by_their_names_with_points(root):
    dataset = open_dataset("lsmdc", root)
    (video,) = dataset.videos("train")
    assert video.path.name == f"{CLIP}.avi"
    assert [(v.id, v.split) for v in dataset.videos()] == [(CLIP, "train"), (OTHER, "val")]
    check = dataset.check()
    assert check.missing == (OTHER,)
    assert [table.rows for table in check.tables] == [2, 1, 1]
    assert not check.tables[0].is_complete


def test_a_row_with_too_few_columns_is_named(root):
    (root / "LSMDC16_annos_val.csv").write_text(f"{OTHER}\tnull\n")
    dataset = open_dataset("lsmdc", root)
    with pytest.raises(AnnotationError, match=r"annos_val\.csv, line 1"):
        dataset.sentence_pairs("val")
    assert "line 1" in dataset.check().tables[1].problem
