"""`vlpipe weights convert`, as a user calls it, and then the file that it made."""

import json
import os
import pickle

import numpy as np
import pytest

from vlpipe.extractors.weights.checkpoint import sha256_of
from vlpipe.pipelines.cli import run


def call(capfd, *arguments):
    code = run([str(a) for a in arguments])
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture
def pca(tmp_path):
    arrays = {"pca_eigen_vectors": np.eye(128), "pca_means": np.arange(128.0)}
    np.savez(tmp_path / "vggish_pca_params.npz", **arrays)
    return tmp_path / "vggish_pca_params.npz"


def test_the_table_names_what_was_mapped(capfd, tmp_path, pca):
    target = tmp_path / "pca.safetensors"
    code, out, err = call(capfd, "weights", "convert", pca, target)
    assert code == 0
    for text in ("pca_eigen_vectors", "128 x 128", sha256_of(pca), sha256_of(target)):
        assert text in out
    assert f"--weights vggish_pca={target}" in err


def test_json_holds_the_same_and_the_file_can_be_used(capfd, tmp_path, pca):
    target = tmp_path / "pca.safetensors"
    code, out, _ = call(capfd, "weights", "convert", pca, target, "--json", "--role", "vggish_pca")
    assert code == 0
    facts = json.loads(out)
    assert facts["role"] == "vggish_pca"
    assert facts["source"] == {pca.name: sha256_of(pca)}
    assert facts["sha256"] == sha256_of(target)
    assert facts["mapped"][0] == {
        "entry": "pca_eigen_vectors",
        "variable": "pca_eigen_vectors",
        "shape": [128, 128],
    }
    # A second call keeps the file, a third replaces it with the same bytes.
    assert call(capfd, "weights", "convert", pca, target)[0] == 2
    assert call(capfd, "weights", "convert", pca, target, "--overwrite")[0] == 0
    assert sha256_of(target) == facts["sha256"]


def test_a_conversion_is_not_taken_for_the_published_file(capfd, tmp_path, pca, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path / "folder"))
    target = tmp_path / "pca.safetensors"
    assert call(capfd, "weights", "convert", pca, target)[0] == 0
    code, _, err = call(capfd, "weights", "add", "vggish_pca_audioset", target)
    assert code == 2
    assert "SHA-256" in err
    assert "--weights" in err


class RunsCode:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (None, 3, ["there is no such file"]),
        (pickle.dumps({"w": RunsCode()}), 2, ["posix.system", "could run code"]),
        (pickle.dumps({"w": np.ones(3)}), 2, ["no known layout", "--role"]),
        (b"PK\x03\x04 broken", 2, ["not a sound"]),
        (b"", 2, ["not a sound"]),
    ],
)
def test_what_cannot_be_converted_is_said_with_the_file(capfd, tmp_path, content, code, words):
    source, target = tmp_path / "w.pkl", tmp_path / "w.safetensors"
    if content is not None:
        source.write_bytes(content)
    found, out, err = call(capfd, "weights", "convert", source, target)
    assert found == code
    assert out == ""
    for text in [str(source), *words]:
        assert text in err
    assert not target.exists()


def test_a_target_that_cannot_be_read_back_is_refused_first(capfd, tmp_path):
    code, _, err = call(capfd, "weights", "convert", tmp_path / "absent", tmp_path / "w.pt")
    assert code == 2
    assert ".safetensors" in err


def test_an_unknown_role_is_named(capfd, tmp_path, pca):
    target = tmp_path / "w.safetensors"
    code, _, err = call(capfd, "weights", "convert", pca, target, "--role", "nothing")
    assert code == 2
    assert "'nothing'" in err
