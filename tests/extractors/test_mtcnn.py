"""The cascade of MTCNN: its geometry against plain loops, and the published layout."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from vlpipe.extractors.people.mtcnn import Mtcnn, drop_covered, shift_boxes, square_boxes

COUNTS = {"pnet": 6_632, "rnet": 100_178, "onet": 389_040}

LAYOUT = {
    "pnet": "conv1 prelu1 conv2 prelu2 conv3 prelu3 conv4_1 conv4_2",
    "rnet": "conv1 prelu1 conv2 prelu2 conv3 prelu3 dense4 prelu4 dense5_1 dense5_2",
    "onet": "conv1 prelu1 conv2 prelu2 conv3 prelu3 conv4 prelu4 dense5 prelu5 dense6_1 dense6_2 "
    "dense6_3",
}


@pytest.mark.parametrize("part", ["pnet", "rnet", "onet"])
def test_layout_is_the_published_one(part):
    state = Mtcnn().get_submodule(part).state_dict()
    wanted = set()
    for name in LAYOUT[part].split():
        wanted |= {f"{name}.weight"} | (set() if "prelu" in name else {f"{name}.bias"})
    assert set(state) == wanted
    assert sum(value.numel() for value in state.values()) == COUNTS[part]


def drawn(state, seed):
    """Weights of a rule: normal numbers in the order of the names, small ones where boxes move."""
    random = np.random.default_rng(seed)
    weights = {}
    for name in sorted(state):
        values = random.normal(0, 0.1, state[name].shape)
        if name.split(".")[0] in ("conv4_2", "dense5_2", "dense6_2"):
            values *= 0.02
        weights[name] = torch.from_numpy(values.astype(np.float32))
    return weights


def test_numbers_are_those_of_the_published_code():
    network = Mtcnn(min_face=20, thresholds=(0.5, 0.5, 0.5))
    for index, part in enumerate((network.pnet, network.rnet, network.onet)):
        part.load_state_dict(drawn(part.state_dict(), 33 + index))
    blocks = np.random.default_rng(11).integers(0, 256, (9, 11, 3))
    frame = torch.from_numpy(np.kron(blocks, np.ones((9, 9, 1)))).permute(2, 0, 1).float()
    with torch.inference_mode():
        found = network(frame)
    # facenet-pytorch at 787da06, with these weights.
    boxes = [
        [8.446, 23.138, 26.844, 42.503],
        [14.524, 19.709, 33.85, 40.933],
        [29.468, 1.109, 64.807, 39.867],
        [21.688, 6.842, 39.976, 26.836],
    ]
    assert np.allclose(found["boxes"], boxes, atol=2e-3)
    assert np.allclose(found["scores"], [0.977, 0.872, 0.758, 0.517], atol=1e-3)
    nose_and_mouth = [[-42.24, 73.7], [-45.11, 52.34], [46.11, -69.68]]
    assert np.allclose(found["landmarks"][0, 2:], nose_and_mouth, atol=2e-2)


class Bright(nn.Module):
    """Stands for the proposal network: the brightest windows are faces."""

    def forward(self, x):
        light = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 12, 2)  # (1, 1, h, w)
        shifts = torch.zeros(1, 4, *light.shape[2:])
        return {"scores": (light[:, 0] + 1) / 2, "shifts": shifts}


class Sure(nn.Module):
    """Stands for the later networks: all is a face if its middle is bright, and nothing moves."""

    def forward(self, x):
        scores = (x[:, :, 8:-8, 8:-8].mean(dim=(1, 2, 3)) + 1) / 2
        places = torch.tensor([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
        return {
            "scores": scores,
            "shifts": torch.zeros(len(x), 4),
            "landmarks": places.expand(len(x), 5, 2),
        }


def bright_squares(*squares, size=(120, 160)):
    frame = torch.zeros(3, *size)
    for left, top, edge in squares:
        frame[:, max(top, 0) : top + edge, max(left, 0) : left + edge] = 255
    return frame


@pytest.fixture
def cascade():
    network = Mtcnn(min_face=20, thresholds=(0.9, 0.9, 0.9))
    network.pnet, network.rnet, network.onet = Bright(), Sure(), Sure()
    return network


def test_each_bright_square_is_found_once_with_landmarks_in_it(cascade):
    squares = [(20, 30, 40), (100, 50, 30)]
    found = cascade(bright_squares(*squares))
    assert found["boxes"].shape[1:] == (4,)
    for left, top, edge in squares:
        middle = torch.tensor([left + edge / 2, top + edge / 2])
        near = [
            i
            for i, box in enumerate(found["boxes"])
            if ((box[:2] <= middle) & (middle <= box[2:])).all()
        ]
        assert near
        box, points = found["boxes"][near[0]], found["landmarks"][near[0]]
        assert ((points >= box[:2] - 1) & (points <= box[2:] + 1)).all()
        # The nose lies at 0.5, 0.6 of the box.
        nose = box[:2] + torch.tensor([0.5, 0.6]) * (box[2:] - box[:2])
        assert torch.allclose(points[2], nose, atol=1)
    assert (found["scores"].diff() <= 0).all()


def test_faces_at_the_edge_and_none_at_all(cascade):
    found = cascade(bright_squares((-10, -10, 40)))
    assert len(found["boxes"])
    none = cascade(torch.zeros(3, 40, 50))
    assert [none[key].shape for key in ("boxes", "scores", "landmarks")] == [
        (0, 4), (0,), (0, 5, 2)
    ]  # fmt: skip
    small = cascade(torch.full((3, 15, 15), 255.0))
    assert len(small["boxes"]) == 0


def covered(boxes, scores, threshold):
    """Plain loop: of each pair, the weaker goes if it shares too much with the better."""
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        x1, y1, x2, y2 = boxes[index]
        is_kept = True
        for other in kept:
            a1, b1, a2, b2 = boxes[other]
            across = max(0, min(x2, a2) - max(x1, a1) + 1)
            down = max(0, min(y2, b2) - max(y1, b1) + 1)
            smaller = min((x2 - x1 + 1) * (y2 - y1 + 1), (a2 - a1 + 1) * (b2 - b1 + 1))
            is_kept &= across * down / smaller <= threshold
        if is_kept:
            kept.append(index)
    return kept


@given(
    st.lists(
        st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(0, 30)] * 2, st.integers(0, 1000)),
        max_size=8,
        unique_by=lambda row: row[-1],
    )
)
def test_covered_boxes_go_as_in_a_plain_loop(rows):
    boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in rows]
    scores = [row[-1] / 1000 for row in rows]
    made = drop_covered(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        0.7,
    )
    assert made.tolist() == covered(boxes, scores, 0.7)


def test_boxes_become_squares_about_their_centres_and_move_by_shares():
    boxes = torch.tensor([[10.0, 20, 30, 60], [0, 0, 8, 4]])
    assert square_boxes(boxes).tolist() == [[0, 20, 40, 60], [0, -2, 8, 6]]
    shifts = torch.tensor([[0.5, 0, 0, -0.5], [0, 0, 0, 0]])
    assert shift_boxes(boxes, shifts, plus=0).tolist() == [[20, 20, 30, 40], [0, 0, 8, 4]]
    assert shift_boxes(boxes, shifts)[0].tolist() == [20.5, 20, 30, 39.5]


def test_maps_are_flattened_column_by_column():
    network = Mtcnn().rnet
    x = torch.randn(2, 3, 24, 24)
    maps = []
    network.prelu3.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.inference_mode():
        made = network(x)
        flat = torch.stack(
            [
                torch.stack(
                    [m[:, row, column] for column in range(3) for row in range(3)]
                ).flatten()
                for m in maps[0]
            ]
        )
        scores = network.dense5_1(network.prelu4(network.dense4(flat))).softmax(1)[:, 1]
    assert np.allclose(made["scores"], scores, atol=1e-6)
