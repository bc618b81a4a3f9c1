"""Families: `timm:NAME` and `clip:NAME` against the libraries' own transforms and networks."""

import json
import re
import sys

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from vlpipe.extractors import (
    clip_tower,
    configure_extractor,
    create_extractor,
    list_extractors,
    registry,
    timm_backbone,
)
from vlpipe.extractors.clip_tower import ClipFamily
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.family import feature_name_of
from vlpipe.extractors.registry import (
    find_checkpoint,
    find_extractor,
    list_families,
    register_family,
)
from vlpipe.extractors.weights.folder import WeightsFolder
from vlpipe.pipelines.cli.extractors import app
from vlpipe.stores.errors import EnvironmentLacks, UsageError

CLIP = "ViT-S-32-alt"


@pytest.fixture(scope="module")
def gif(tmp_path_factory):
    """Three frames with few colours, so that the GIF holds them exactly."""
    random = np.random.default_rng(0)
    palette = random.integers(0, 256, (8, 3), dtype=np.uint8)
    frames = [
        Image.fromarray(
            np.kron(palette[random.integers(0, 8, (9, 13))], np.ones((30, 30, 1))).astype(np.uint8)
        )
        for _ in range(3)
    ]
    path = tmp_path_factory.mktemp("media") / "three.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)
    return path, frames


@pytest.fixture(scope="module")
def clip():
    """A small network of open_clip, both towers, and its own transform."""
    torch.manual_seed(6)
    return open_clip.create_model(CLIP).eval()


@pytest.fixture(scope="module")
def clip_file(clip, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "open_clip_model.safetensors"
    save_file({key: value.contiguous() for key, value in clip.state_dict().items()}, path)
    return path


def relative_error(got, wanted):
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize("member", ["test_resnet.r160_in1k", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_rows_are_timms_with_its_own_transform(member, suffix, gif, tmp_path):
    path, frames = gif
    torch.manual_seed(5)
    network = timm.create_model(member).eval()
    checkpoint = tmp_path / f"model{suffix}"
    if suffix == ".pth":
        torch.save(network.state_dict(), checkpoint)
    else:
        save_file(network.state_dict(), checkpoint)
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=network))
    network.reset_classifier(0)
    with torch.inference_mode():
        wanted = network(torch.stack([transform(frame) for frame in frames])).numpy()
    made = create_extractor(f"timm:{member}", weights=checkpoint).extract(path)
    (feature,) = made
    assert feature == "timm_" + member.replace(".", "_")
    assert relative_error(made[feature].rows, wanted) < 1e-5
    assert made[feature].spans[:, 0] == pytest.approx([0, 0.1, 0.2])


def test_timms_description_of_the_weights_is_in_the_provenance():
    spec = configure_extractor("timm:vit_base_patch16_224.augreg_in21k", weights="untrained")
    config = spec.provenance()["config"]
    assert config["mean"] == [0.5, 0.5, 0.5]
    assert (config["resize"], config["crop"]) == (248, 224)
    assert config["interpolation"] == "bicubic"
    assert spec.outputs[0].row_shape == (768,)
    assert spec.extractor.gflop_per_sample == pytest.approx(35.1, abs=0.1)
    with pytest.raises(UsageError, match="greater than 0"):
        configure_extractor("timm:test_vit", weights="untrained", crop=0)
    squashed = configure_extractor(
        "timm:eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", weights="untrained"
    )
    assert squashed.request.resize.size == (448, 448)


def test_other_sizes_are_taken_where_the_network_allows(gif):
    for member in ("test_resnet", "test_vit"):
        extractor = create_extractor(f"timm:{member}", weights="untrained", resize=64, crop=64)
        assert extractor.extract(gif[0])[f"timm_{member}"].rows.shape[0] == 3


def test_other_checkpoints_are_refused_with_what_differs(tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    with pytest.raises(WeightsRejected, match="not a checkpoint of timm test_resnet"):
        create_extractor("timm:test_resnet", weights=tmp_path / "vit.pth")
    with pytest.raises(WeightsRejected, match=f"not a checkpoint of open_clip {CLIP}, image tower"):
        create_extractor(f"clip:{CLIP}", weights=tmp_path / "vit.pth")


@pytest.mark.parametrize("kind", ["whole", "tower"])
def test_embeddings_are_open_clips_with_its_own_transform(kind, clip, clip_file, gif, tmp_path):
    path, frames = gif
    _, transform = open_clip.create_model_and_transforms(CLIP)[1:]
    with torch.inference_mode():
        wanted = clip.encode_image(torch.stack([transform(f) for f in frames])).numpy()
    if kind == "tower":
        clip_file = tmp_path / "tower.pt"
        torch.save(clip.visual.state_dict(), clip_file)
    made = create_extractor(f"clip:{CLIP}", weights=clip_file).extract(path)
    rows = made["clip_vit_s_32_alt"].rows
    assert rows.shape == (3, 256)
    assert relative_error(rows, wanted) < 1e-5


def as_transformers(state):
    """An image tower of open_clip by the names of transformers, beside a text tower's entry."""
    made = {"text_model.final_layer_norm.weight": torch.ones(4), "logit_scale": torch.ones(())}
    parts = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1.weight": "embeddings.patch_embedding.weight",
    }
    layers = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    layers |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for key, value in state.items():
        inner = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", key)
        if key == "proj":
            made["visual_projection.weight"] = value.T.contiguous()
        elif key in parts:
            made[f"vision_model.{parts[key]}"] = value
        elif key.startswith(("ln_pre", "ln_post")):
            name = {"ln_pre": "pre_layrnorm", "ln_post": "post_layernorm"}[key.partition(".")[0]]
            made[f"vision_model.{name}.{key.rpartition('.')[2]}"] = value
        elif inner and inner[2] == "attn.in_proj":
            for letter, third in zip("qkv", value.chunk(3), strict=True):
                name = f"vision_model.encoder.layers.{inner[1]}.self_attn.{letter}_proj.{inner[3]}"
                made[name] = third.contiguous()
        else:
            made[f"vision_model.encoder.layers.{inner[1]}.{layers[inner[2]]}.{inner[3]}"] = value
    made["vision_model.embeddings.position_ids"] = torch.arange(50).unsqueeze(0)
    return made


def test_the_layout_of_transformers_is_read(clip, clip_file, tmp_path):
    theirs = as_transformers(clip.visual.state_dict())
    assert len(theirs) > len(clip.visual.state_dict())
    save_file({k: v.contiguous() for k, v in theirs.items()}, tmp_path / "model.safetensors")
    ours, other = (
        create_extractor(f"clip:{CLIP}", weights=path).network.state_dict()
        for path in (clip_file, tmp_path / "model.safetensors")
    )
    assert ours.keys() == other.keys()
    assert all(torch.equal(ours[key], other[key]) for key in ours)


def test_the_activation_is_a_setting_that_openais_weights_bring(clip_file):
    plain, quick = (
        create_extractor(f"clip:{CLIP}", weights=clip_file, quick_gelu=on) for on in (False, True)
    )
    frame = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    row, other = (e.network(frame)["embedding"].numpy() for e in (plain, quick))
    assert relative_error(other, row) > 1e-3
    assert plain.spec.definitions()[0].generation != quick.spec.definitions()[0].generation
    published = find_extractor("clip:ViT-B-32").published_checkpoints()["clip:ViT-B-32"]
    brought = {p.name.rpartition(".")[2]: p.settings["quick_gelu"] for p in published}
    assert brought["openai"]
    assert not brought["laion2b_s34b_b79k"]
    assert find_extractor("clip:ViT-B-32-quickgelu").Config().quick_gelu


def test_squashed_frames_and_other_means_come_with_the_network():
    spec = configure_extractor("clip:ViT-B-16-SigLIP", weights="untrained")
    assert spec.request.resize.size == (224, 224)
    assert spec.config.mean == (0.5, 0.5, 0.5)
    assert spec.outputs[0].row_shape == (768,)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("timm:resnet5", "timm:resnet50"),
        ("tim:resnet50", "timm:resnet50"),
        ("clip:ViT-B32", "clip:ViT-B-32"),
        ("timm:hf-hub:someone/model", "timm:"),
    ],
)
def test_unknown_names_list_the_nearest(name, near):
    with pytest.raises(UsageError, match="there is no extractor") as caught:
        find_extractor(name)
    assert near in str(caught.value)


@pytest.mark.parametrize(
    ("library", "family", "extra"), [("timm", "timm", "timm"), ("open_clip", "clip", "clip")]
)
def test_without_the_library_the_error_says_how_to_get_it(library, family, extra, monkeypatch):
    # None is what Python keeps for a module that is not to be found.
    monkeypatch.setitem(sys.modules, library, None)
    for cached in (registry._make_member, clip_tower._members, timm_backbone._members):
        cached.cache_clear()
    with pytest.raises(EnvironmentLacks, match=f"needs the library {library}") as caught:
        find_extractor(f"{family}:resnet50")
    assert f'pip install "vlpipe[{extra}]"' in str(caught.value.hint)


def test_without_weights_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path))
    for name in ("timm:test_resnet", "clip:ViT-B-32"):
        with pytest.raises(WeightsMissing, match=re.escape("https://huggingface.co/timm/")):
            configure_extractor(name)


def test_checkpoints_are_found_by_name():
    published, role, extractors = find_checkpoint("clip:ViT-B-32.laion2b_s34b_b79k")
    assert role == extractors[0].name == "clip:ViT-B-32"
    assert published.name == "clip:ViT-B-32.laion2b_s34b_b79k"
    assert find_checkpoint("timm:test_resnet.r160_in1k")[1] == "timm:test_resnet.r160_in1k"
    assert find_checkpoint("clip:ViT-B-32.nobody") is None
    assert find_checkpoint("vggish_audioset")[1] == "vggish"
    assert find_checkpoint("nothing") is None


def test_names_of_features():
    assert feature_name_of("timm:resnet50.a1_in1k") == "timm_resnet50_a1_in1k"
    long = "timm:" + "x" * 80
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,63}", feature_name_of(long))
    assert feature_name_of(long) != feature_name_of(long + "y")
    members = ClipFamily.members()
    names = {feature_name_of(f"clip:{member}") for member in members}
    assert len(names) == len(members)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name) for name in names)


def test_listings_name_the_families_and_not_their_members():
    assert [family.name for family in list_families()] == ["clip", "timm"]
    assert not [name for name in list_extractors() if ":" in name]
    result = CliRunner().invoke(app, ["ls", "--json"])
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert [family["name"] for family in listed["families"]] == ["clip:NAME", "timm:NAME"]
    shown = CliRunner().invoke(app, ["show", "timm:test_resnet", "--json"])
    assert json.loads(shown.stdout)["features"][0]["row_shape"] == [96]
    assert "timm:NAME" in CliRunner().invoke(app, ["ls"]).stdout


def test_a_prefix_is_given_once():
    with pytest.raises(ValueError, match="registered twice"):
        register_family("timm")(ClipFamily)
    assert ClipFamily.name == "clip"


def test_an_added_checkpoint_is_used_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path / "folder"))
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    published, role, extractors = find_checkpoint("timm:test_resnet")
    added = WeightsFolder().add(
        published, file, lambda found: extractors[0].check_checkpoint(role, found)
    )
    spec = configure_extractor("timm:test_resnet")
    assert spec.provenance()["weights"]["sha256"] == {"timm:test_resnet": added.sha256}
    assert spec.build().network.training is False
