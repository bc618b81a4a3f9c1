"""The task: targets, which gaze belongs to which row, sequences, loss, records, the baseline."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vlpipe.models.gaze_maps import blur_matrix, blurred, grid_cells, resized, target_map
from vlpipe.models.gaze_rows import first_readings, gaze_of_rows, sequence_rows
from vlpipe.models.layers.map_loss import map_cross_entropy
from vlpipe.models.tasks import find_task
from vlpipe.models.tasks.gaze import GazeExample, GazeSettings, centre_bias, maps_of
from vlpipe.models.tasks.registry import parse_task_settings
from vlpipe.stores.datasets import FolderDataset, GazeClip
from vlpipe.stores.errors import UsageError

TASK = find_task("gaze")


def example(points, times, *, name="clip", subjects=None, dataset="vas", size=(97, 49)):
    subjects = range(len(points)) if subjects is None else subjects
    return GazeExample(
        GazeClip(
            dataset, name, "train", *size,
            np.array(list(subjects), np.int32), np.array(times, np.float64),
            np.array(points, np.float64).reshape(-1, 2),
        )
    )  # fmt: skip


def video(num_rows, seed=0):
    starts = 0.6 + 0.2 * np.arange(num_rows)
    rows = torch.randn(num_rows, 2, 7, 7, generator=torch.Generator().manual_seed(seed))
    return {"c3d": rows, "row_s": torch.from_numpy(np.stack([starts, starts + 0.04], axis=1))}


# maps


def plain_blur(values, sigma):
    """A Gaussian along a line that is mirrored at both ends, term by term."""
    reach, size = int(4 * sigma + 0.5), len(values)
    weights = [np.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    found = []
    for place in range(size):
        total = 0.0
        for k, weight in zip(range(-reach, reach + 1), weights, strict=True):
            source = place + k
            while not 0 <= source < size:
                source = -1 - source if source < 0 else 2 * size - 1 - source
            total += weight * values[source]
        found.append(total / sum(weights))
    return found


@pytest.mark.parametrize(("size", "sigma"), [(49, 2.0), (7, 1.0), (5, 3.0), (12, 19.0)])
def test_gaussians_are_mirrored_at_the_edges_and_keep_the_mass(size, sigma):
    values = np.random.default_rng(0).random(size)
    assert blur_matrix(size, sigma) @ values == pytest.approx(plain_blur(values, sigma))
    maps = np.random.default_rng(1).random((3, size, 9))
    assert blurred(maps, sigma).sum(axis=(1, 2)) == pytest.approx(maps.sum(axis=(1, 2)))


@pytest.mark.parametrize("size", [(49, 49), (120, 161), (60, 50)])
def test_enlarging_is_that_of_torch(size):
    maps = np.random.default_rng(0).random((2, 49, 49))
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size, mode="bilinear", align_corners=False
    )
    assert resized(maps, *size) == pytest.approx(wanted[0].numpy())


def test_the_outermost_pixels_are_the_outermost_cells():
    corners = [[0, 0], [96, 0], [0, 48], [96, 48], [48, 24], [1, 0], [0.9, 0]]
    found = grid_cells(corners, 97, 49)
    wanted = [[0, 0], [0, 48], [48, 0], [48, 48], [24, 24], [0, 0], [0, 0]]
    assert found.tolist() == wanted
    assert grid_cells([[96.49, -0.49]], 97, 49).tolist() == [[0, 48]]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 96), st.floats(0, 48)), min_size=1, max_size=6))
def test_targets_are_probabilities_and_the_mean_over_subjects(points):
    found = target_map(points, 97, 49)
    assert found.shape == (49, 49)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    alone = [target_map([point], 97, 49) for point in points]
    assert found == pytest.approx(np.mean(alone, axis=0))
    # Mirrored frames have mirrored targets.
    mirrored = target_map([(96 - x, y) for x, y in points], 97, 49)
    # A cell is two pixels wide; at its very edge rounding is not the same from both sides.
    if all(abs(x - 2 * round(x / 2)) < 0.99 for x, _ in points):
        assert mirrored == pytest.approx(found[:, ::-1])


def test_without_gaze_there_is_no_target():
    assert target_map([], 97, 49) is None
    peak = target_map([[48, 24]], 97, 49)
    assert np.unravel_index(peak.argmax(), (49, 49)) == (24, 24)
    assert peak.max() == pytest.approx(1 / (2 * np.pi * 2.0**2), rel=1e-2)


# rows


def test_a_row_has_one_point_a_subject_the_nearest_to_its_middle():
    times = np.array([0.59, 0.6, 0.62, 0.63, 0.64, 0.8, 0.95])
    subject = np.array([0, 0, 0, 1, 0, 1, 1], np.int32)
    xy = np.stack([np.arange(7.0), np.zeros(7)], axis=1)
    spans = np.array([[0.6, 0.64], [0.8, 0.84], [0.9, 0.94], [2.0, 2.04]])
    found = gaze_of_rows(subject, times, xy, spans)
    assert [points[:, 0].tolist() for points in found] == [[2, 3], [5], [], []]
    # Frame times in thousandths, just before the exact ones, are of that frame and not of the next.
    exact = np.stack([np.arange(30) / 29.97, np.arange(1, 31) / 29.97], axis=1)
    written = np.floor(exact[:, 0] * 1000) / 1000
    found = gaze_of_rows(np.zeros(30, np.int32), written, np.repeat(written[:, None], 2, 1), exact)
    assert [points[:, 0].tolist() for points in found] == [[time] for time in written]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 50))
def test_sequences_hold_every_row(num_rows, length):
    rows = sequence_rows(num_rows, length)
    assert rows.shape[1] == length
    if num_rows < length:
        assert rows.tolist() == [[n % num_rows for n in range(length)]]
    else:
        assert rows[-1].tolist() == list(range(num_rows - length, num_rows))
        assert rows[:-1].ravel().tolist() == list(range(length * (num_rows // length)))
    sequence, place = first_readings(rows, num_rows)
    assert rows[sequence, place].tolist() == list(range(num_rows))
    # None of them is read with more of the clip before it elsewhere.
    for row in range(num_rows):
        held = np.argwhere(rows == row)
        assert place[row] == held[0, 1]
        if num_rows >= length:
            assert place[row] == held[:, 1].max()


# the task


def test_loss_is_the_mean_over_frames_with_gaze():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    target /= target.sum(dim=(2, 3), keepdim=True)
    is_known = torch.tensor([[True, False, True], [False, False, True]])
    wanted = []
    for b, t in is_known.nonzero():
        shares = logits[b, t].flatten().softmax(dim=0)
        wanted.append(-(target[b, t].flatten() * shares.log()).sum())
    loss = map_cross_entropy(logits, target, is_known)
    torch.testing.assert_close(loss, torch.stack(wanted).mean())
    loss.backward()
    assert not logits.grad[~is_known].any()
    nothing = map_cross_entropy(logits, target, torch.zeros(2, 3, dtype=torch.bool))
    assert nothing == 0
    nothing.backward()


def batch_of(length, *items):
    task = TASK(GazeSettings(sequence_length=length))
    return task, task.collate([(e, (v,)) for e, v in items])


def test_sequences_of_a_batch_and_back():
    first = example([[48, 24], [10, 3]], [0.6, 1.02], name="first")
    second = example([[0, 0], [96, 48]], [0.61, 0.61], name="second")
    clips = [video(7), video(2, seed=1)]
    task, batch = batch_of(3, (first, clips[0]), (second, clips[1]))
    # Rows 0-2, 3-5 and 4-6 of the first, 0, 1, 0 of the second.
    assert torch.equal(batch.inputs["c3d"][2], clips[0]["c3d"][4:])
    assert torch.equal(batch.inputs["c3d"][3], clips[1]["c3d"][[0, 1, 0]])
    assert batch.targets["has_gaze"].int().tolist() == [
        [1, 0, 1], [0, 0, 0], [0, 0, 0], [1, 0, 1],
    ]  # fmt: skip
    target = batch.targets["map"]
    assert target[3, 0].numpy() == pytest.approx(target_map([[0, 0], [96, 48]], 97, 49), abs=1e-6)
    assert not target[0, 1].any()
    maps = torch.rand(4, 3, 49, 49, generator=torch.Generator().manual_seed(2)) + 0.1
    maps /= maps.sum(dim=(2, 3), keepdim=True)
    records = task.decode({"map": maps}, batch)
    assert json.loads(json.dumps(records)) == records
    wanted = torch.stack([*maps[0], *maps[1], maps[2, 2]])
    assert maps_of(records[0]) == pytest.approx(wanted.numpy(), rel=3e-4)
    assert maps_of(records[1]) == pytest.approx(maps[3, :2].numpy(), rel=3e-4)
    assert records[0]["fixations"] == [[[48, 24]], [], [[10, 3]], [], [], [], []]
    assert records[1]["fixations"] == [[[0, 0], [96, 48]], []]
    found = task.metrics(records)
    assert (found["frames"], found["frames_without_gaze"]) == (3, 6)


def records_of(task, examples, peak=(24, 24), num_rows=3):
    maps = torch.full((num_rows, 49, 49), 1e-4)
    maps[:, peak[0], peak[1]] = 1
    maps /= maps.sum(dim=(1, 2), keepdim=True)
    records = []
    for e in examples:
        _, batch = batch_of(num_rows, (e, video(num_rows)))
        records += task.decode({"map": maps[None].repeat(len(batch.inputs["c3d"]), 1, 1, 1)}, batch)
    return records


def test_datasets_are_given_apart():
    task = TASK(GazeSettings())
    good = example([[48, 24], [50, 24]], [0.6, 0.8], name="a", dataset="vas")
    bad = example([[0, 0], [3, 2]], [0.6, 0.8], name="b", dataset="hollywood2")
    found = task.metrics(records_of(task, [good, bad]))
    assert found["CC/vas"] > found["CC/hollywood2"]
    assert found["CC"] == pytest.approx((found["CC/vas"] + found["CC/hollywood2"]) / 2)
    alone = task.metrics(records_of(task, [good]))
    assert "CC/vas" not in alone
    assert alone["CC"] == pytest.approx(found["CC/vas"])
    with pytest.raises(UsageError, match="none of the 3 frames of 1 clips") as caught:
        task.metrics(records_of(task, [example([[3, 3]], [50.0])]))
    assert "time_s" in caught.value.hint


def test_the_baseline_is_where_training_clips_are_looked_at_on_average():
    train = [example([[0, 0]], [0.6]), example([[96, 48]] * 3, [0.6, 0.7, 0.8])]
    centre = centre_bias(train)
    corners = [target_map([p], 97, 49) for p in ([0, 0], [96, 48])]
    assert centre == pytest.approx(np.mean(corners, axis=0))
    task, asked = TASK(GazeSettings()), example([[48, 24], [50, 20]], [0.6, 1.0])
    records = records_of(task, [asked])
    beside = task.baseline_beside(records, train, [asked])
    assert beside[0]["spans"] == records[0]["spans"]
    assert beside[0]["fixations"] == records[0]["fixations"]
    assert maps_of(beside[0]) == pytest.approx(np.stack([centre] * 3), rel=3e-4)
    alone = task.baseline(train, [asked])
    assert np.array(alone[0]["spans"])[:, 0] == pytest.approx([0.6, 0.8])
    assert centre_bias([]) == pytest.approx(np.full((49, 49), 1 / 2401))


def test_records_keep_small_shares_apart():
    maps = torch.logspace(-38, 0, 2401).view(1, 49, 49)
    records = TASK(GazeSettings(sequence_length=1))
    _, batch = batch_of(1, (example([[48, 24]], [0.6]), video(1)))
    (record,) = records.decode({"map": maps[None].repeat(2, 1, 1, 1)}, batch)
    found = maps_of(record).ravel()
    assert (np.diff(found) > 0).all()
    assert found == pytest.approx((maps / maps.sum()).numpy().ravel(), rel=3e-4, abs=0)


def test_records_in_words():
    task = TASK(GazeSettings())
    near = example([[48, 24], [52, 26]], [0.6, 0.6])
    shown = task.shown(records_of(task, [near])[0])
    assert (shown.given, shown.right, shown.is_right) == (
        "0.6 s: (48, 24)", "0.6 s: (50, 25)", True
    )  # fmt: skip
    assert not task.shown(records_of(task, [near], peak=(0, 0))[0]).is_right


def test_predictions_are_plain_arrays(tmp_path):
    task = TASK(GazeSettings())
    examples = [example([[48, 24]] * 2, [0.6, 1.0], name=name) for name in ("a", "b")]
    records = records_of(task, examples)
    path = task.write_predictions(records, tmp_path, "test")
    assert path.name == "predictions-test.npz"
    with np.load(path, allow_pickle=False) as found:
        assert found["clip"].tolist() == ["a", "b"]
        assert found["map"].shape == (6, 49, 49)
        assert found["frames/vas"].tolist() == [0, 2, 3, 5]
        assert found["draws/vas"].tolist() == [[0, 1, 2, 3]]
        assert found["others/vas"].shape == (4, 3)
        assert found["span_s"][3].tolist() == pytest.approx([0.6, 0.64])


def test_settings_round_trip_and_other_datasets_are_refused(tmp_path):
    given = {"sequence_length": 35, "evaluation": {"draws": 2, "seed": 5}}
    task = TASK(parse_task_settings(TASK, given))
    again = TASK.from_json(json.loads(json.dumps(task.to_json())))
    assert again.settings == task.settings
    with pytest.raises(UsageError, match="evaluation"):
        parse_task_settings(TASK, {"evaluation": {"draws": 0}})
    with pytest.raises(UsageError, match="'folder' has no gaze recordings"):
        TASK.splits(FolderDataset(tmp_path))
