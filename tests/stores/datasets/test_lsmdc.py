"""LSMDC: rows, repeated clips, choices, blanks, media, files not as published."""

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
    assert [table.rows for table in check.tables if table.is_required] == [2, 1, 1]
    assert all(table.is_complete for table in check.tables if not table.is_required)
    assert not check.tables[0].is_complete


def test_a_row_with_too_few_columns_is_named(root):
    (root / "LSMDC16_annos_val.csv").write_text(f"{OTHER}\tnull\n")
    dataset = open_dataset("lsmdc", root)
    with pytest.raises(AnnotationError, match=r"annos_val\.csv, line 1"):
        dataset.sentence_pairs("val")
    assert "line 1" in dataset.check().tables[1].problem


def test_choices_count_from_one_in_the_test_and_are_placed_elsewhere(root):
    dataset = open_dataset("lsmdc", root)
    with pytest.raises(AnnotationError, match=r"multiple_choice_train\.csv is not in"):
        dataset.sentence_choices("train")
    sentences = "\t".join(f"sentence {n}" for n in range(5))
    row = f"{CLIP}\t{TIMES}\t{sentences}"
    (root / "LSMDC16_multiple_choice_train.csv").write_text(f"{row}\n" * 40)
    choices = dataset.sentence_choices("train")
    assert all(c.choices[c.answer] == "sentence 0" for c in choices)
    assert {c.answer for c in choices} == {0, 1, 2, 3, 4}
    assert dataset.sentence_choices("train") == choices
    assert len({c.key for c in choices}) == 40
    test = root / "LSMDC16_multiple_choice_test_randomized.csv"
    test.write_text(f"{row}\t5\n{OTHER}_more\t{TIMES}\t{sentences}\t1\n")
    first, second = dataset.sentence_choices("test")
    assert (first.answer, first.choices[0], second.answer) == (4, "sentence 0", 0)
    assert second.video_id in {video.id for video in dataset.videos("test")}
    assert dataset.check().tables[5].rows == 2
    test.write_text(f"{row}\t0\n")
    with pytest.raises(AnnotationError, match="answer is '0'; expected 1 to 5"):
        dataset.sentence_choices("test")


def test_blanks(root):
    text = f'{CLIP}\t{TIMES}\tHe says, "no".\t_____ says, "no".\the\n'
    (root / "LSMDC16_annos_test_FIB.csv").write_text(text)
    (blank,) = open_dataset("lsmdc", root).sentence_blanks("test")
    assert (blank.video_id, blank.blank_sentence, blank.answer) == (CLIP, '_____ says, "no".', "he")


def test_tables_of_jsfusions_authors(tmp_path):
    def table(name, columns, *rows):
        lines = ["\t".join(columns.split()), *("\t".join(row) for row in rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")

    told = [(f"CAP{n}", f"vid{n}", f"sentence {n}") for n in range(1, 7)]
    table("LSMDC16_RET_train.csv", "key vid_key description", *told)
    table("LSMDC16_RET_test.csv", "key vid_key description", ("RET1", "vid70", "a test"))
    table("LSMDC16_CAP_train.csv", "key vid_key description", *told)
    choices = "key vid_key a1 a2 a3 a4 a5 answer"
    table("LSMDC16_MC_test.csv", choices, ("MC1", "vid8", *"abcde", "4"))
    table("LSMDC16_FIB_val.csv", "key vid_key sentence blank_sentence answer",
          ("FIB1", "vid9", "he nods", "he _____", "nods"))  # fmt: skip
    dataset = open_dataset("lsmdc-jsfusion", tmp_path)
    assert [pair.video_id for pair in dataset.sentence_pairs("test")] == ["vid70"]
    drawn = dataset.sentence_choices("train")
    for row, (key, video, sentence) in zip(drawn, told, strict=True):
        assert (row.key, row.video_id, row.choices[row.answer]) == (key, video, sentence)
        assert len(set(row.choices)) == 5
    assert dataset.sentence_choices("train") == drawn
    assert dataset.sentence_choices("test")[0].answer == 4
    assert dataset.sentence_blanks("val")[0].answer == "nods"
    assert [video.id for video in dataset.videos("val")] == ["vid9"]
    table("LSMDC16_CAP_train.csv", "key vid_key description", *told[:4])
    with pytest.raises(AnnotationError, match="4 sentences are too few"):
        dataset.sentence_choices("train")
