"""GEAN's gaze network: the formulas' numbers, both gates, both layouts, padding, networks."""

import logging

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlpipe.models import create_model, load_published
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

SMALL = {"feature_channels": 5, "projected": 4, "hidden": 3, "channels": (4, 3, 2)}
NETWORKS = ["rgp", "c3d_conv", "c3d_gru"]


def small(seed=0, **settings):
    torch.manual_seed(seed)
    return create_model("gean", task="gaze", **(SMALL | settings)).eval()


def clips(*shape):
    return torch.randn(*shape, 5, 7, 7, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def published():
    return load_published(create_model("gean", task="gaze"), golden_cases.state("gean_rgp")).eval()


@pytest.fixture(scope="module")
def golden_input():
    return torch.from_numpy(golden_cases.inputs("gean_rgp")["c3d"])


def test_formulas(published, golden_input):
    with torch.inference_mode():
        found = published(c3d=golden_input)
        assert set(found) == {"logits", "map", "hidden_last"}
        for name, wanted in golden_cases.outputs("gean_rgp").items():
            assert golden_cases.relative_error(found[name].numpy(), wanted) < 1e-5, name
        batched = published(c3d=golden_input[None])
    for name, value in batched.items():
        torch.testing.assert_close(value[0], found[name], msg=name)
    torch.testing.assert_close(found["map"].sum(dim=(1, 2)), torch.ones(4))
    assert sum(p.numel() for p in published.parameters()) == 3_011_469


def plain(state, x, *, keeps):
    """One clip by the formulas alone, (T, 49, 49)."""

    def same(kernel, maps):
        return F.conv2d(maps, state[kernel], padding=1)

    h, logits = 0 * F.conv2d(x[:1, :1], state["rcn.u_z.weight"][:, :1], padding=1), []
    for frame in x:
        own = torch.einsum("oc,cij->oij", state["proj.weight"], frame)
        own = (own + state["proj.bias"][:, None, None])[None]
        z = (same("rcn.w_z.weight", own) + same("rcn.u_z.weight", h)).sigmoid()
        r = (same("rcn.w_r.weight", own) + same("rcn.u_r.weight", h)).sigmoid()
        c = (same("rcn.w_h.weight", own) + same("rcn.u_h.weight", r * h)).tanh()
        h = z * h + (1 - z) * c if keeps else (1 - z) * h + z * c
        up = F.conv_transpose2d(h, state["deconv1.weight"], stride=3)
        up = F.conv_transpose2d(up, state["deconv2.weight"], stride=2)
        up = F.conv_transpose2d(up, state["deconv3.weight"], padding=3)
        logits.append(torch.einsum("c,cij->ij", state["out.weight"][0], up[0]) + state["out.bias"])
    return torch.stack(logits)


@pytest.mark.parametrize("update_gate", ["thesis", "keep"])
def test_both_update_gates(update_gate):
    model, x = small(update_gate=update_gate), clips(6)
    with torch.inference_mode():
        found = model(c3d=x)["logits"]
        wanted = plain(model.state_dict(), x, keeps=update_gate == "keep")
        other = plain(model.state_dict(), x, keeps=update_gate != "keep")
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(found, other, atol=1e-3)


def as_tensorflow(state, suffix=""):
    """The same weights as the public code's variables."""
    cell = f"RGP{suffix}/RCNBottom{suffix}/GRU_Conv_"
    names = {"proj.weight": "RGP/proj_c3d_W", "proj.bias": "RGP/proj_c3d_b"}
    for part in "wu":
        for gate in "zrh":
            gate_name = "" if gate == "h" else gate
            names[f"rcn.{part}_{gate}.weight"] = f"{cell}{part.upper()}{gate_name}{suffix}"
    names |= {f"deconv{n}.weight": f"RGP/Upsampling/weight{n}{suffix}" for n in (1, 2, 3)}
    names |= {"out.weight": f"RGP/out_W{suffix}", "out.bias": "RGP/out_b:0"}
    found = {}
    for own, theirs in names.items():
        value = state[own].numpy()
        if value.ndim == 4:  # kernels stand in front, and (out, in) behind them in reverse
            value = np.moveaxis(value, (0, 1), (3, 2))
        found[theirs] = value.T if value.ndim == 2 else value
    return found


@pytest.mark.parametrize("suffix", ["", "_1"])
def test_the_public_variables_are_read(suffix):
    model, other = small(update_gate="keep"), small(seed=3, update_gate="keep")
    state = as_tensorflow(model.state_dict(), suffix)
    assert state[f"RGP/Upsampling/weight1{suffix}"].shape == (5, 5, 4, 3)
    norm = f"RGP/Upsampling/batch_normalization{suffix}/moving_mean"
    load_published(other, state | {norm: np.zeros(3), "batch_normalization_41/gamma": np.ones(3)})
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


def test_what_is_not_the_public_layout_is_refused_by_name():
    model = small(update_gate="keep")
    state = as_tensorflow(model.state_dict())
    kernel = state["RGP/RCNBottom/GRU_Conv_Wz"]
    with pytest.raises(
        UsageError, match=r"rcn\.w_z\.weight twice.*GRU_Conv_Wz and .*GRU_Conv_Wz_1"
    ):
        load_published(model, state | {"RGP/RCNBottom/GRU_Conv_Wz_1": kernel})
    with pytest.raises(UsageError, match=r"out\.bias twice, as RGP/out_b:0 and out\.bias"):
        load_published(model, state | {"out.bias": np.zeros(1)})
    with pytest.raises(UsageError, match=r"GEAN's gaze network \(rgp\).*unexpected: beta1_power"):
        load_published(model, state | {"beta1_power": np.ones(())})
    without = {key: value for key, value in state.items() if not key.endswith("out_W")}
    with pytest.raises(UsageError, match=r"missing: out\.weight"):
        load_published(model, without)


def test_public_weights_in_the_other_gate_are_told(caplog):
    model = small()
    state = as_tensorflow(model.state_dict())
    with caplog.at_level(logging.WARNING):
        load_published(small(update_gate="keep"), state)
        load_published(small(), model.published_state())
        assert not caplog.records
        load_published(small(), state)
    assert "update_gate=thesis" in caplog.text


@pytest.mark.parametrize("network", NETWORKS)
def test_padding_and_the_other_clips_have_no_influence(network):
    model, x, length = small(network=network), clips(3, 6), torch.tensor([6, 2, 4])
    with torch.inference_mode():
        x[1, 2:], x[2, 4:] = 99, -7
        found = model(c3d=x, c3d_length=length)
        for n, own in enumerate(length.tolist()):
            alone = model(c3d=x[n, :own])
            for name in ("logits", "map"):
                torch.testing.assert_close(found[name][n, :own], alone[name], atol=1e-5, rtol=1e-4)
                assert not found[name][n, own:].any()
            if network != "c3d_conv":
                torch.testing.assert_close(
                    found["hidden_last"][n], alone["hidden_last"], atol=1e-5, rtol=1e-4
                )


def test_only_recurrent_networks_remember():
    x = clips(4)
    changed = x.clone()
    changed[0] += 1
    for network in NETWORKS:
        model = small(network=network)
        with torch.inference_mode():
            before, after = model(c3d=x)["logits"], model(c3d=changed)["logits"]
        assert not torch.allclose(before[0], after[0])
        assert torch.allclose(before[3], after[3], atol=1e-7) == (network == "c3d_conv")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("update_gate", ["thesis", "keep"])
def test_every_network_learns_by_all_its_weights(network, update_gate):
    model = small(network=network, update_gate=update_gate).train()
    outputs = model(c3d=clips(2, 3))
    assert outputs["map"].shape == (2, 3, 49, 49)
    outputs["map"][..., 20, 30].log().sum().backward()
    for name, parameter in model.named_parameters():
        # The same added to every cell changes no share.
        is_idle = name == "out.bias" and network != "c3d_gru"
        assert is_idle or parameter.grad.abs().max() > 0, name
    again = load_published(small(seed=9, network=network), model.published_state())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_plain_gru_is_that_of_the_paper():
    model, x = small(network="c3d_gru", hidden=6), clips(1, 3)
    state = model.state_dict()
    h = torch.zeros(6)

    def gate(name, x, h):
        return (
            state[f"gru.w_{name}.weight"] @ x
            + state[f"gru.w_{name}.bias"]
            + (state[f"gru.u_{name}.weight"] @ h)
        )

    with torch.inference_mode():
        for frame in x[0]:
            read = model.proj(frame.movedim(0, -1)).movedim(-1, 0).flatten()
            z, r = gate("z", read, h).sigmoid(), gate("r", read, h).sigmoid()
            h = (1 - z) * h + z * gate("h", read, r * h).tanh()
        torch.testing.assert_close(model(c3d=x)["hidden_last"][0], h)
    recurrent = state["gru.u_z.weight"]
    torch.testing.assert_close(recurrent @ recurrent.T, torch.eye(6), atol=1e-5, rtol=0)


def test_sizes_of_the_tables_networks():
    with torch.device("meta"):
        gru = create_model("gean", task="gaze", network="c3d_gru")
        conv = create_model("gean", task="gaze", network="c3d_conv")
    assert gru.gru.w_z.weight.shape == (1617, 1568)
    assert gru.out.weight.shape == (2401, 1617)
    assert conv.deconv1.weight.shape == (512, 64, 5, 5)


def test_dropout_is_of_the_logits_in_training_alone():
    model = small(dropout=0.5)
    kept = model(c3d=clips(2))["logits"]
    assert kept.all()
    dropped = model.train()(c3d=clips(2))["logits"]
    is_dropped = dropped == 0
    assert 0.3 < is_dropped.float().mean() < 0.7
    torch.testing.assert_close(dropped[~is_dropped], 2 * kept[~is_dropped])


def test_rows_of_a_video():
    model = small()
    spans = np.array([[0.6, 0.64], [0.8, 0.84], [1.0, 1.04]])
    maps = Features(np.ones((3, 5, 7, 7), np.float16), spans)
    prepared = model.prepare(model.config, {"c3d": maps})
    assert prepared["c3d"].dtype == torch.float32
    assert prepared["row_s"].tolist() == spans.tolist()
    part = model.prepare(model.config, {"c3d": maps}, (0.7, 0.9))
    assert part["row_s"].tolist() == [[0.8, 0.84]]
    assert part["c3d"].shape == (1, 5, 7, 7)
    assert model.settings_for(model.config, {"c3d": (5, 7, 7)}) == {"feature_channels": 5}
