"""The heads against plain arithmetic, and checkpoints of the published layout."""

import numpy as np
import pytest
import torch

from vlpipe.models import create_model, load_published
from vlpipe.stores import Features
from vlpipe.stores.errors import UsageError

NUM_TOKENS, WIDTH = 4, 6


def make_model(reducer="class_token", **settings):
    torch.manual_seed(0)
    settings = {"num_classes": 3, "width": WIDTH, "layers": (9, 5)} | settings
    return create_model(
        "svt_classifier", task="classification", reducer=reducer, num_tokens=NUM_TOKENS, **settings
    ).eval()


def plain(state, x, reducer):
    """float64 logits of one clip, x [P, C], from entries of the published layout."""
    w = {key: value.double().numpy() for key, value in state.items()}
    if reducer == "class_token":
        x = x[0]
    elif reducer == "average":
        x = sum(x) / len(x)
    elif reducer == "weighted_token_wise":
        x = sum(
            weight * token for weight, token in zip(w["head.reducer.weight"][0], x, strict=True)
        ) / len(x)
    else:
        weight, bias = w["head.reducer.linear.weight"][0], w["head.reducer.linear.bias"][0]
        x = np.array([token @ weight + bias for token in x])
    number = 0
    while f"head.mlp.{number}.layer.0.weight" in w:
        name = f"head.mlp.{number}.layer"
        x = np.maximum(w[f"{name}.0.weight"] @ x + w[f"{name}.0.bias"], 0)
        if f"{name}.2.weight" in w:
            x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
            x = x * w[f"{name}.2.weight"] + w[f"{name}.2.bias"]
        number += 1
    return w["head.classifier.weight"] @ x + w["head.classifier.bias"]


@pytest.mark.parametrize(
    "reducer", ["class_token", "average", "weighted_token_wise", "weighted_hidden_wise"]
)
@pytest.mark.parametrize("layers", [(9,), (9, 5), (9, 5, 7)])
def test_logits_are_those_of_plain_arithmetic(reducer, layers):
    model = make_model(reducer, layers=layers, layer_norm=len(layers) == 3)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    clips = torch.randn(5, NUM_TOKENS, WIDTH)
    found = model(clips=clips)["logits"].detach().numpy()
    assert found.shape == (5, 3)
    state = model.published_state()
    expected = [plain(state, clip, reducer) for clip in clips.double().numpy()]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    alone = model(clips=clips[3:4])["logits"].detach().numpy()
    np.testing.assert_allclose(found[3:4], alone, rtol=1e-5, atol=1e-5)


def test_one_vector_a_clip_is_the_class_token():
    model = make_model()
    clips = torch.randn(5, NUM_TOKENS, WIDTH)
    assert torch.equal(model(clips=clips[:, 0])["logits"], model(clips=clips)["logits"])


@pytest.mark.parametrize(
    ("name", "width", "hidden", "size"),
    [("svt_classifier", 768, 512, 474_269), ("videomamba_classifier", 576, 1024, 751_773)],
)
def test_the_first_layer_of_the_list_counts_for_nothing(name, width, hidden, size):
    model = create_model(name, task="classification")
    assert {key: tuple(value.shape) for key, value in model.published_state().items()} == {
        "head.mlp.0.layer.0.weight": (hidden, width), "head.mlp.0.layer.0.bias": (hidden,),
        "head.classifier.weight": (157, hidden), "head.classifier.bias": (157,),
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == size


def test_a_checkpoint_of_the_whole_network_is_read(tmp_path):
    source = make_model("weighted_hidden_wise", num_classes=7)
    state = source.published_state()
    state |= {"encoder.model.blocks.0.weight": torch.ones(2), "loss_func.pos_weight": torch.ones(7)}
    path = tmp_path / "epoch=18-val_mAP=0.165.ckpt"
    torch.save({"state_dict": state, "epoch": 18}, path)
    model = load_published(make_model("weighted_hidden_wise"), path)
    clips = torch.randn(2, NUM_TOKENS, WIDTH)
    assert torch.equal(model(clips=clips)["logits"], source(clips=clips)["logits"])
    assert model.config.num_classes == 7


def test_what_does_not_fit_is_named():
    state = make_model().published_state()
    for change, said in (
        ({"head.mlp.1.layer.0.weight": torch.ones(2)}, "unexpected: mlp.1.layer.0.weight"),
        ({"head.mlp.0.layer.0.weight": torch.ones(2)}, r"mlp\.0.*is \(2,\), expected \(5, 6\)"),
    ):
        with pytest.raises(UsageError, match=said):
            make_model().load_published(state | change)
    del state["head.classifier.bias"]
    with pytest.raises(UsageError, match=r"missing: classifier\.bias"):
        make_model().load_published(state)
    with pytest.raises(UsageError, match=r"missing: reducer\.linear\.bias"):
        make_model("weighted_hidden_wise").load_published(make_model().published_state())


def test_rows_and_spans_of_a_window_belong_together():
    model = make_model()
    spans = np.array([[0, 6], [3, 9], [6, 12.0]])
    rows = np.arange(3, dtype=np.float16)[:, None].repeat(WIDTH, axis=1)
    features = {"clips": Features(rows, spans)}
    whole = type(model).prepare(model.config, features)
    assert whole["spans"].tolist() == spans.tolist()
    assert whole["clips"].dtype == torch.float32
    part = type(model).prepare(model.config, features, (0, 4))
    assert part["clips"][:, 0].tolist() == [0, 1]
    assert part["spans"].tolist() == spans[:2].tolist()


def test_sizes_follow_the_features():
    model = type(make_model())
    assert model.settings_for(model.Config(), {"clips": (576,)}) == {"width": 576, "num_tokens": 1}
    many = model.settings_for(model.Config(reducer="average"), {"clips": (1569, 768)})
    assert many == {"width": 768, "num_tokens": 1569}
