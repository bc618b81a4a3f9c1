"""Checkpoints: what is accepted, what is refused and how the refusal reads."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import resnet18

from vlpipe.extractors import create_extractor
from vlpipe.extractors.configuration import configure_extractors
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint, sha256_of
from vlpipe.extractors.weights.folder import WeightsFolder
from vlpipe.extractors.weights.source import parse_source
from vlpipe.stores.errors import UsageError


class RunsCode:
    """Unpickles to a call of `eval`."""

    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.fixture
def linear():
    return nn.Linear(3, 2)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".tar", ".safetensors"])
def test_plain_tensors_are_read_from_each_format(tmp_path, linear, suffix):
    path = tmp_path / f"weights{suffix}"
    state = linear.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    other = nn.Linear(3, 2)
    Checkpoint.read(path).load_into(other, what="a linear layer")
    assert torch.equal(other.weight, linear.weight)


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model"])
def test_the_usual_wrappers_and_prefixes_are_taken_off(tmp_path, linear, wrapper):
    state = {f"module.{k}": v for k, v in linear.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3}, tmp_path / "w.pt")
    assert set(Checkpoint.read(tmp_path / "w.pt").state) == {"weight", "bias"}


def test_names_that_begin_with_module_keep_their_beginning(tmp_path):
    torch.save({"moduleOne.weight": torch.ones(1)}, tmp_path / "pwc.pt")
    assert set(Checkpoint.read(tmp_path / "pwc.pt").state) == {"moduleOne.weight"}


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    torch.save({"weight": RunsCode()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsRejected, match="more than tensors") as caught:
        Checkpoint.read(tmp_path / "evil.pt")
    assert "eval" in caught.value.message


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"this is none", b"junk", b"abc", b"PK\x03\x04 broken"]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_other_bytes_are_refused(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsRejected, match=str(path)):
        Checkpoint.read(path)


def test_an_oversized_safetensors_header_is_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    with pytest.raises(WeightsRejected):
        Checkpoint.read(tmp_path / "w.safetensors")


def test_another_architecture_names_the_entries(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(WeightsRejected) as caught:
        create_extractor("resnet50", weights=tmp_path / "resnet18.pth")
    assert "not a checkpoint of torchvision resnet50" in caught.value.message
    assert "conv3.weight" in caught.value.message
    assert "of another shape" in caught.value.message


def test_missing_and_surplus_entries_are_named(tmp_path):
    state = resnet18().state_dict()
    state["extra.weight"] = torch.ones(1)
    del state["fc.bias"]
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsRejected, match=r"fc\.bias.*extra\.weight"):
        create_extractor("resnet18", weights=tmp_path / "w.pth")


def test_counters_of_batches_may_be_absent(tmp_path):
    state = {k: v for k, v in resnet18().state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "w.pth")
    create_extractor("resnet18", weights=tmp_path / "w.pth")


def test_without_weights_nothing_runs_and_the_origin_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing) as caught:
        create_extractor("resnet152")
    text = str(caught.value)
    assert "resnet152-394f9c45.pth" in text
    assert "vlpipe weights add resnet152_imagenet1k_v1" in text
    assert "untrained" in text


def test_what_is_misspelt_is_told_apart_from_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    names = ["resnet18", "objects_motion"]

    def configure(settings, weights):
        configure_extractors(names, weights=weights, settings=settings)

    # Settings of what comes after, and of what that reads, are no mistake.
    with pytest.raises(
        WeightsMissing, match=r"resnet18 .* of objects, i3d_resnet50 are missing too"
    ):
        configure({"objects_motion": {"fps": 6}, "i3d_resnet50": {"resize": 128}}, {})
    with pytest.raises(WeightsMissing, match="extractor resnet18"):
        configure({}, {"i3d_resnet50": "untrained"})
    with pytest.raises(UsageError, match=r"settings for vggish, .* resnet18, objects_motion, "):
        configure({"vggish": {"postprocess": "pca"}}, {})
    with pytest.raises(UsageError, match="weights for 'resnet81'"):
        configure({}, {"resnet81": "untrained"})


@pytest.mark.parametrize("weights", ["no_such_file.pt", "resnet18_imagenet1k_v1"])
def test_absent_weights_say_what_was_asked_for(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsMissing, match=weights):
        create_extractor("resnet18", weights=weights)


def test_added_weights_are_used_by_name_and_keep_the_published_hash(tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path / "folder"))
    torch.manual_seed(1)
    torch.save(resnet18().state_dict(), tmp_path / "r.pth")
    published = PublishedCheckpoint(
        "resnet18_imagenet1k_v1", "r.pth", "https://x.test/r.pth", "BSD"
    )
    added = WeightsFolder().add(published, tmp_path / "r.pth", lambda checkpoint: None)
    assert added.sha256 == sha256_of(tmp_path / "r.pth")
    by_default = create_extractor("resnet18")
    by_file = create_extractor("resnet18", weights=tmp_path / "r.pth")
    assert by_default.spec.definitions() == by_file.spec.definitions()
    assert not by_default.spec.definitions()[0].is_untrained


def test_a_wrong_hash_is_not_added(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "r.pth")
    published = PublishedCheckpoint("x", "x.pth", "https://x.test", "BSD", sha256="00000000")
    with pytest.raises(WeightsRejected, match="SHA-256"):
        WeightsFolder(tmp_path / "folder").add(published, tmp_path / "r.pth", lambda c: None)
    assert not list(tmp_path.glob("folder/*"))


def test_untrained_weights_depend_on_the_seed_alone():
    first, again, other = (
        create_extractor("resnet18", weights=w).network.state_dict()["resnet.conv1.weight"]
        for w in ("untrained", "untrained:0", "untrained:1")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_seed_of_the_process_is_left_alone():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    create_extractor("resnet18", weights="untrained")
    assert torch.equal(torch.rand(3), wanted)


def test_unknown_roles_are_a_usage_error(tmp_path):
    roles = {"net": [PublishedCheckpoint("net_a", "a.pt", "https://x.test", "MIT")]}
    with pytest.raises(UsageError, match="'other'"):
        parse_source({"other": "x"}, roles, WeightsFolder(tmp_path))
    with pytest.raises(UsageError, match="untrained:SEED"):
        parse_source("untrained:x", roles, WeightsFolder(tmp_path))


def test_settings_of_a_checkpoint_come_with_it(tmp_path):
    roles = {"net": [PublishedCheckpoint("v2", "a", "u", "MIT", settings={"resize": 232})]}
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"w": torch.ones(1)}, folder / "v2.safetensors")
    origin = {"sha256": "ab", "file": "a", "published": "u", "copy_sha256": "cd"}
    (folder / "v2.json").write_text(json.dumps(origin))
    source, settings = parse_source("v2", roles, WeightsFolder(folder))
    assert settings == {"resize": 232}
    assert source.to_json() == {"untrained": False, "sha256": {"net": "ab"}}
