"""Word vectors: the formats of public files, the cache, and errors that help."""

import gzip
import zipfile

import numpy as np
import pytest

from vlpipe.models.word_vectors import read_word_vectors
from vlpipe.stores.errors import UsageError

WORDS = ("#START#", "UNK", "cat", "dog", "\\?", "new york")
GLOVE = "the 1 2 3\ncat 0.5 -1 2e-1\ndog 4 5 6\ncat 9 9 9\nnew york 7 8 9\n"


def write(path, text=GLOVE):
    path.write_text(text, encoding="utf-8")
    return path


def packed(path, kind):
    if kind == "gz":
        path = path.with_suffix(".txt.gz")
        path.write_bytes(gzip.compress(GLOVE.encode()))
    elif kind == "zip":
        path = path.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("glove.txt", GLOVE)
    else:
        write(path, GLOVE if kind == "txt" else "5 3\n" + GLOVE)
    return path


@pytest.mark.parametrize("kind", ["txt", "gz", "zip", "word2vec"])
def test_every_public_form_gives_the_same(tmp_path, kind):
    found = read_word_vectors(packed(tmp_path / "glove.txt", kind), WORDS, cache=tmp_path / "c")
    assert found.places.tolist() == [2, 3, 5]
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(found.vectors, [[0.5, -1, 0.2], [4, 5, 6], [7, 8, 9]])


def test_the_second_look_up_reads_the_cache_until_the_file_changes(tmp_path, monkeypatch):
    path, cache = write(tmp_path / "glove.txt"), tmp_path / "cache"
    first = read_word_vectors(path, WORDS, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr("vlpipe.models.word_vectors._look_up", None)
        again = read_word_vectors(path, WORDS, cache=cache)
    np.testing.assert_array_equal(first.vectors, again.vectors)
    write(path, "cat 1 1 1\nlonger 0 0 0\n")
    assert read_word_vectors(path, WORDS, cache=cache).places.tolist() == [2]


def test_a_cut_cache_is_made_again(tmp_path):
    path, cache = write(tmp_path / "glove.txt"), tmp_path / "cache"
    read_word_vectors(path, WORDS, cache=cache)
    (kept,) = cache.glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:30])
    assert len(read_word_vectors(path, WORDS, cache=cache).places) == 3


def test_a_missing_file_says_where_to_get_one(tmp_path):
    with pytest.raises(UsageError, match="there is no file of word vectors") as caught:
        read_word_vectors(tmp_path / "glove.txt", WORDS)
    assert "glove.42B.300d.zip" in caught.value.hint
    assert "nlp.stanford.edu" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not one of the 6 words"),
        ("the 1 2 3\nfish 1 2 3\n", "not one of the 6 words"),
        ("cat\n", "line 1"),
        ("the 1 2 3\ncat 1 two 3\n", "line 2"),
        ("the 1 2 3\ncat 1 nan 3\n", "finite"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, text, message):
    path = write(tmp_path / "some.txt", text)
    with pytest.raises(UsageError, match=message):
        read_word_vectors(path, WORDS, cache=tmp_path / "cache")
