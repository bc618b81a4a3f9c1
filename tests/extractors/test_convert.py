"""Weights of other frameworks arrive in the layouts here: every entry, in the right axis order."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from vlpipe.extractors import configure_extractor, list_extractors
from vlpipe.extractors.errors import WeightsMissing, WeightsRejected
from vlpipe.extractors.i3d_resnet50 import I3dResNet50Network
from vlpipe.extractors.networks.i3d import I3dNetwork
from vlpipe.extractors.vggish import VggishConfig, VggishNetwork
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint, sha256_of
from vlpipe.extractors.weights.folder import WeightsFolder
from vlpipe.extractors.weights.foreign.convert import convert
from vlpipe.extractors.weights.foreign.layout import ForeignLayout, Origin, register_layout
from vlpipe.extractors.weights.source import parse_source
from vlpipe.stores.errors import UsageError


def draw_statistics(network):
    """Gives every BatchNorm numbers of its own, so that no two entries are alike."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            for values in (layer.bias.data, layer.running_mean):
                values.normal_()
            layer.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


def without_counters(state):
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def assert_same_state(got, wanted):
    wanted = without_counters(wanted)
    assert set(got) == set(wanted)
    for key, values in wanted.items():
        assert torch.equal(got[key], values), key


# VGGish, in TensorFlow's order throughout: (rows, time, mel, channel) maps, HWIO kernels.

VGGISH_CONVOLUTIONS = {
    "conv1": (1, 64),
    "conv2": (64, 128),
    "conv3/conv3_1": (128, 256),
    "conv3/conv3_2": (256, 256),
    "conv4/conv4_1": (256, 512),
    "conv4/conv4_2": (512, 512),
}
VGGISH_MATRICES = {"fc1/fc1_1": (12288, 4096), "fc1/fc1_2": (4096, 4096), "fc2": (4096, 128)}


@pytest.fixture(scope="module")
def vggish_variables():
    random = np.random.default_rng(3)

    def draw(*shape):
        scale = np.sqrt(2 / np.prod(shape[:-1])).astype(np.float32)
        return random.standard_normal(shape, np.float32) * scale

    variables = {}
    for name, (inner, outer) in VGGISH_CONVOLUTIONS.items():
        variables[f"vggish/{name}/weights"] = draw(3, 3, inner, outer)
        variables[f"vggish/{name}/biases"] = 0.1 * draw(2, outer)[0]
    for name, (inner, outer) in VGGISH_MATRICES.items():
        variables[f"vggish/{name}/weights"] = draw(inner, outer)
        variables[f"vggish/{name}/biases"] = 0.1 * draw(2, outer)[0]
    return variables


def plain_vggish(variables, example):
    """The embedding before the last ReLU of one example [96, 64], as TensorFlow lays data out."""
    x = example[:, :, None]  # (time, mel, channel)
    for name in VGGISH_CONVOLUTIONS:
        kernel, bias = (variables[f"vggish/{name}/{kind}"] for kind in ("weights", "biases"))
        height, width, _ = x.shape
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        x = bias + sum(
            padded[i : i + height, j : j + width] @ kernel[i, j]
            for i, j in itertools.product(range(3), repeat=2)
        )
        x = np.maximum(x, 0)
        if name in ("conv1", "conv2", "conv3/conv3_2", "conv4/conv4_2"):
            x = x.reshape(height // 2, 2, width // 2, 2, -1).max(axis=(1, 3))
    assert x.shape == (6, 4, 512)
    row = x.reshape(-1)
    for name in VGGISH_MATRICES:
        row = row @ variables[f"vggish/{name}/weights"] + variables[f"vggish/{name}/biases"]
        row = row if name == "fc2" else np.maximum(row, 0)
    return row


def test_vggish_computes_what_tensorflows_order_computes(tmp_path, vggish_variables):
    extra = {"global_step": np.int64(7), "vggish/fc2/biases/Adam_1": np.zeros(128, np.float32)}
    np.savez(tmp_path / "vggish.npz", **vggish_variables, **extra)
    converted = convert(tmp_path / "vggish.npz")
    assert converted.role == "vggish"
    assert set(converted.skipped) == set(extra)
    with torch.device("meta"):
        network = VggishNetwork(VggishConfig())
    left = network.load_state_dict(dict(converted.state), strict=False, assign=True)
    assert left.missing_keys == ["pca.weight", "pca.bias"]
    example = np.random.default_rng(4).standard_normal((96, 64)).astype(np.float32)
    with torch.inference_mode():
        made = network(torch.from_numpy(example)[None])["embedding_pre_relu"]
    wanted = plain_vggish(vggish_variables, example)
    assert np.linalg.norm(wanted) > 1
    np.testing.assert_allclose(made[0].numpy(), wanted, atol=1e-3 * np.abs(wanted).max())


def test_vggish_pca_is_taken_over(tmp_path):
    arrays = {"pca_eigen_vectors": np.eye(128) * 3, "pca_means": np.arange(128.0)}
    np.savez(tmp_path / "pca.npz", **arrays)
    converted = convert(tmp_path / "pca.npz")
    assert converted.role == "vggish_pca"
    assert {k: v.tolist() for k, v in converted.state.items()} == {
        k: v.tolist() for k, v in arrays.items()
    }


# I3D: names written down here once more, from the torch side.

BLOCKS = ["3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"]
I3D_UNITS = {
    "conv3d_1a_7x7": "Conv3d_1a_7x7",
    "conv3d_2b_1x1": "Conv3d_2b_1x1",
    "conv3d_2c_3x3": "Conv3d_2c_3x3",
    "conv3d_0c_1x1": "Logits/Conv3d_0c_1x1",
}
for _block in BLOCKS:
    I3D_UNITS[f"mixed_{_block}.branch_0"] = f"Mixed_{_block}/Branch_0/Conv3d_0a_1x1"
    for _branch in (1, 2):
        last = "0a" if (_block, _branch) == ("5b", 2) else "0b"  # published so
        I3D_UNITS[f"mixed_{_block}.branch_{_branch}.0"] = (
            f"Mixed_{_block}/Branch_{_branch}/Conv3d_0a_1x1"
        )
        I3D_UNITS[f"mixed_{_block}.branch_{_branch}.1"] = (
            f"Mixed_{_block}/Branch_{_branch}/Conv3d_{last}_3x3"
        )
    I3D_UNITS[f"mixed_{_block}.branch_3.1"] = f"Mixed_{_block}/Branch_3/Conv3d_0b_1x1"


def i3d_variables(network, prefix):
    """The network's weights as TensorFlow would hold them."""
    state, variables = network.state_dict(), {}
    for unit, name in I3D_UNITS.items():
        kernel = state[f"{unit}.conv3d.weight"].numpy()  # (out, in, time, height, width)
        variables[f"{prefix}{name}/conv_3d/w"] = np.einsum("oithw->thwio", kernel)
        if f"{unit}.conv3d.bias" in state:
            variables[f"{prefix}{name}/conv_3d/b"] = state[f"{unit}.conv3d.bias"].numpy()
            continue
        for kind, own in (
            ("beta", "bias"),
            ("moving_mean", "running_mean"),
            ("moving_variance", "running_var"),
        ):
            values = state[f"{unit}.batch3d.{own}"].numpy()
            variables[f"{prefix}{name}/batch_norm/{kind}"] = values.reshape(1, 1, 1, 1, -1)
    return variables


def make_i3d(channels, num_classes=400):
    torch.manual_seed(channels)
    return draw_statistics(I3dNetwork(channels, num_classes=num_classes))


@pytest.fixture(scope="module")
def rgb():
    network = make_i3d(3)
    return network, i3d_variables(network, "RGB/inception_i3d/")


def save_npz(path, variables):
    np.savez(path, **variables)
    return path


def test_i3d_comes_back_as_it_was(tmp_path, rgb):
    network, variables = rgb
    converted = convert(save_npz(tmp_path / "rgb.npz", variables))
    assert converted.role == "i3d_rgb"
    assert_same_state(converted.state, network.state_dict())
    scales = [m for m in converted.mapped if m.variable is None]
    assert len(scales) == 57
    assert all(m.entry.endswith("batch3d.weight") for m in scales)


def test_the_flow_stream_is_told_by_its_channels(tmp_path):
    network = make_i3d(2, num_classes=5)
    variables = {f"{k}:0": v for k, v in i3d_variables(network, "Flow/inception_i3d/").items()}
    converted = convert(save_npz(tmp_path / "flow.npz", variables))
    assert converted.role == "i3d_flow"
    assert_same_state(converted.state, network.state_dict())


def test_of_both_streams_in_a_file_the_role_chooses(tmp_path, rgb):
    flow = make_i3d(2)
    both = rgb[1] | i3d_variables(flow, "Flow/inception_i3d/")
    path = save_npz(tmp_path / "joint.npz", both)
    with pytest.raises(UsageError, match=r"i3d_rgb.*i3d_flow") as caught:
        convert(path)
    assert "--role" in caught.value.hint
    converted = convert(path, role="i3d_flow")
    assert_same_state(converted.state, flow.state_dict())
    assert all(name.startswith("RGB/") for name in converted.skipped)


def test_the_eps_of_tensorflow_travels_with_the_file(tmp_path, rgb, monkeypatch):
    converted = convert(save_npz(tmp_path / "rgb.npz", rgb[1]))
    path = tmp_path / "rgb.safetensors"
    sha256 = converted.save(path)
    assert sha256 == sha256_of(path)
    with safe_open(path, "pt") as file:
        (facts,) = (json.loads(v) for v in file.metadata().values())
    assert facts["settings"] == {"eps": 1e-3}
    assert facts["role"] == "i3d_rgb"
    assert facts["source"] == {"rgb.npz": sha256_of(tmp_path / "rgb.npz")}
    assert configure_extractor("i3d_rgb", weights=path).config.eps == 1e-3
    assert configure_extractor("i3d_rgb", weights=path, eps=1e-5).config.eps == 1e-5
    # The copy in the weights folder keeps it.
    monkeypatch.setenv("VLPIPE_WEIGHTS", str(tmp_path / "folder"))
    published = PublishedCheckpoint("i3d_rgb_kinetics", "f", "https://x.test", "MIT")
    WeightsFolder().add(published, path, lambda checkpoint: None)
    assert configure_extractor("i3d_rgb").config.eps == 1e-3
    assert Checkpoint.read(WeightsFolder().find(published.name).path).conversion == facts


def test_the_same_source_gives_the_same_bytes(tmp_path):
    arrays = {"pca_eigen_vectors": np.eye(128), "pca_means": np.zeros(128)}
    converted = convert(save_npz(tmp_path / "pca.npz", arrays))
    hashes = {converted.save(tmp_path / f"{n}.safetensors") for n in range(8)}
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"Mixed_5b/Branch_2/Conv3d_0a_3x3/conv_3d/w": None}, ["1 variables missing"]),
        ({"Conv3d_2b_1x1/conv_3d/w": np.zeros((1, 1, 1, 64, 9), "f4")},
         ["(1, 1, 1, 64, 9) instead of (1, 1, 1, 64, 64)"]),
        ({"Conv3d_1a_7x7/batch_norm/beta": np.full((1, 1, 1, 1, 64), np.nan, "f4")},
         ["NaN or infinite"]),
        ({"Conv3d_9z_7x7/conv_3d/w": np.zeros(3, "f4")}, ["not of this layout"]),
        ({"Mixed_3b/Branch_0/Conv3d_0a_1x1/batch_norm/moving_mean": None,
          "Conv3d_2c_3x3/batch_norm/beta": np.zeros(192 * 2, "f4")},
         ["missing", "(384,) instead of (192,)"]),
    ],
)  # fmt: skip
def test_what_differs_is_named(tmp_path, rgb, change, words):
    variables = dict(rgb[1])
    for name, values in change.items():
        variables[f"RGB/inception_i3d/{name}"] = values
    path = save_npz(tmp_path / "rgb.npz", {k: v for k, v in variables.items() if v is not None})
    with pytest.raises(WeightsRejected) as caught:
        convert(path)
    for text in [*words, *change, str(path)]:
        assert text in caught.value.message


def test_a_role_that_was_given_is_held_to(tmp_path, rgb):
    path = save_npz(tmp_path / "rgb.npz", rgb[1])
    with pytest.raises(WeightsRejected, match=r"\(7, 7, 7, 3, 64\) instead of \(7, 7, 7, 2, 64\)"):
        convert(path, role="i3d_flow")
    with pytest.raises(WeightsRejected, match="not a checkpoint of torchvision resnet18"):
        convert(path, role="resnet18")


# I3D-ResNet50: blobs as Caffe2 names them.


def caffe2_blobs(network):
    blobs, statistics = {}, {"running_mean": "rm", "running_var": "riv"}
    for key, values in without_counters(network.state_dict()).items():
        layer, kind = key.rsplit(".", 1)
        parts = layer.split(".")
        is_norm = parts[-1].startswith("bn") or parts[-2:] == ["downsample", "1"]
        letters = {"weight": "s" if is_norm else "w", "bias": "b"} | statistics
        if layer == "conv1":
            name = "conv1"
        elif layer == "bn1":
            name = "res_conv1_bn"
        elif layer == "fc":
            name = "pred"
        else:
            stage, block = int(parts[0].removeprefix("layer")) + 1, parts[1]
            if parts[2] == "nl":
                name = f"nonlocal_conv{stage}_{block}_{parts[3]}"
            else:
                branch = {"conv1": "2a", "conv2": "2b", "conv3": "2c", "downsample": "1"}[
                    parts[2].replace("bn", "conv")
                ]
                name = f"res{stage}_{block}_branch{branch}" + ("_bn" if is_norm else "")
        blobs[f"{name}_{letters[kind]}"] = values.numpy()
    return blobs


@pytest.fixture(scope="module")
def resnet():
    """State and blobs of the network with non-local blocks."""
    torch.manual_seed(1)
    network = draw_statistics(I3dResNet50Network(non_local=True))
    return without_counters(network.state_dict()), caffe2_blobs(network)


@pytest.mark.parametrize(("non_local", "num_entries"), [(False, 267), (True, 327)])
def test_caffe2_blobs_come_back_as_they_were(tmp_path, resnet, non_local, num_entries):
    state, blobs = resnet
    if not non_local:
        state = {k: v for k, v in state.items() if ".nl." not in k}
        blobs = {k: v for k, v in blobs.items() if not k.startswith("nonlocal_")}
    assert len(blobs) == num_entries
    solver = {"lr": np.float32(0.1), "conv1_w_momentum": np.zeros(1, np.float32)}
    path = tmp_path / "i3d.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs | solver}, 4))
    converted = convert(path)
    assert converted.role == "i3d_resnet50"
    assert_same_state(converted.state, state)
    assert set(converted.skipped) == set(solver)


def test_blobs_have_the_published_names(resnet):
    # The helper above derives names; these are Caffe2's own.
    assert {
        *("conv1_w", "res_conv1_bn_riv", "res2_0_branch1_w", "res2_0_branch1_bn_rm"),
        *("res4_5_branch2b_bn_s", "nonlocal_conv3_1_theta_b", "nonlocal_conv4_5_bn_riv"),
        *("nonlocal_conv4_3_out_w", "pred_w"),
    } <= set(resnet[1])


# Files in the layout of the role itself, in another format.


def test_arrays_with_the_layouts_own_names_need_a_role(tmp_path, rgb):
    state = {k: v.numpy() for k, v in without_counters(rgb[0].state_dict()).items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": state, "__author__": "Caffe"}, 4))
    with pytest.raises(WeightsRejected, match="no known layout") as caught:
        convert(tmp_path / "w.pkl")
    assert "--role" in caught.value.hint
    assert "i3d_resnet50" in caught.value.hint
    converted = convert(tmp_path / "w.pkl", role="i3d_rgb")
    assert_same_state(converted.state, {k: torch.from_numpy(v) for k, v in state.items()})
    assert converted.settings == {}
    del state["mixed_4f.branch_0.conv3d.weight"]
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(state, 4))
    with pytest.raises(WeightsRejected, match=r"mixed_4f\.branch_0\.conv3d\.weight"):
        convert(tmp_path / "w.pkl", role="i3d_rgb")


def test_unknown_roles_and_absent_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"'nothing'.*vggish_pca"):
        convert(tmp_path / "x.npz", role="nothing")
    with pytest.raises(WeightsMissing, match=r"x\.npz"):
        convert(tmp_path / "x.npz")


def test_targets_are_safetensors_and_kept(tmp_path):
    arrays = {"pca_eigen_vectors": np.eye(128), "pca_means": np.zeros(128)}
    converted = convert(save_npz(tmp_path / "pca.npz", arrays))
    with pytest.raises(UsageError, match=r"\.safetensors"):
        converted.save(tmp_path / "pca.pt")
    target = tmp_path / "pca.safetensors"
    target.write_bytes(b"mine")
    with pytest.raises(UsageError, match="already"):
        converted.save(target)
    assert target.read_bytes() == b"mine"
    assert converted.save(target, overwrite=True) == sha256_of(target)
    with pytest.raises(UsageError, match="cannot be written"):
        converted.save(tmp_path / "no folder" / "pca.safetensors")
    assert {p.name for p in tmp_path.iterdir()} == {"pca.npz", "pca.safetensors"}


def test_a_layout_is_registered_once():
    layout = ForeignLayout("vggish", "TensorFlow's VGGish", "x", lambda _: {}, Origin)
    list_extractors()
    with pytest.raises(ValueError, match="registered twice"):
        register_layout(layout)


def test_a_broken_record_of_the_origin_is_refused(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    roles = {"net": [PublishedCheckpoint("net_a", "a.pt", "https://x.test", "MIT")]}
    for record in ("{", "[]", '{"settings": 3}'):
        save_file({"w": torch.ones(1)}, path, {"vlpipe.conversion": record})
        with pytest.raises(WeightsRejected, match=r"w\.safetensors"):
            parse_source(path, roles, WeightsFolder(tmp_path))
