"""Texts as rows of bytes: what goes in comes out, and plain readers need no vlpipe."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.stores.text_rows import WORD_BYTES, text_rows, texts_of_rows

plain = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@settings(deadline=None)
@given(st.lists(plain))
def test_texts_come_back_whole_or_cut_behind_a_letter(texts):
    rows = text_rows(texts)
    assert (rows.dtype, rows.shape) == (np.uint8, (len(texts), WORD_BYTES))
    for text, again in zip(texts, texts_of_rows(rows), strict=True):
        assert text.startswith(again)
        next_letter = text[len(again) :][:1]
        assert not next_letter or len((again + next_letter).encode()) > WORD_BYTES


def test_a_row_is_plain_utf8():
    (row,) = text_rows(["na\u00efve"])
    assert bytes(row).rstrip(b"\0").decode() == "na\u00efve"


def test_what_cannot_be_written_is_marked():
    assert texts_of_rows(text_rows(["a\ud800b", "one\0two"])) == ["a?b", "one"]
