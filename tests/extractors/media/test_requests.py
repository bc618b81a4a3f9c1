"""Scaling and cropping equal torchvision on PIL images; requests are checked and travel intact."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from decoded_media import decode_all
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode
from torchvision.transforms import Resize as TorchvisionResize

from vlpipe.extractors.media import AudioRequest, DecodePool, FrameRequest, Resize
from vlpipe.extractors.media.frame_transform import center_crop, resize_frame
from vlpipe.extractors.media.requests import request_from_json, request_to_json

SIZES = [(48, 64), (64, 48), (33, 97), (200, 101), (40, 40)]


def _frame(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", [40, (30, 50)])
def test_resize_equals_torchvision(
    target: int | tuple[int, int], size: tuple[int, int], interpolation: str
) -> None:
    frame = _frame(*size)
    rule = Resize(shorter_edge=target) if isinstance(target, int) else Resize(size=target)
    rule = Resize(rule.shorter_edge, rule.size, interpolation)
    expected = TorchvisionResize(target, InterpolationMode(interpolation))(Image.fromarray(frame))
    assert np.array_equal(resize_frame(frame, rule), np.asarray(expected))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("edge", [24, 31, 56])
def test_rounded_crop_equals_torchvision(edge: int, size: tuple[int, int]) -> None:
    frame = _frame(*size)
    expected = np.asarray(CenterCrop(edge)(Image.fromarray(frame)))
    assert np.array_equal(center_crop(frame, edge, "round"), expected)


def test_crop_rounding_is_explicit() -> None:
    frame = _frame(9, 11)
    for rounding, top, left in (("floor", 1, 2), ("round", 2, 2), ("ceil", 2, 3)):
        edge = 6
        expected = frame[top : top + edge, left : left + edge]
        assert np.array_equal(center_crop(frame, edge, rounding), expected), rounding


def test_only_shrink_and_only_enlarge_leave_frames_alone() -> None:
    frame = _frame(30, 40)
    assert resize_frame(frame, Resize(35, only_shrink=True)) is frame
    assert resize_frame(frame, Resize(20, only_enlarge=True)) is frame
    assert resize_frame(frame, Resize(20, only_shrink=True)).shape == (20, 26, 3)
    assert resize_frame(frame, Resize(60, only_enlarge=True)).shape == (60, 80, 3)


@pytest.mark.parametrize(
    "request_",
    [
        FrameRequest(),
        FrameRequest(fps=25.0, resize=Resize(256), center_crop=224, crop_rounding="round"),
        FrameRequest(fps=Fraction(30000, 1001), max_frames=40, resize=Resize(size=(7, 9))),
        AudioRequest(22_050),
    ],
)
def test_requests_travel_as_json(request_: FrameRequest | AudioRequest) -> None:
    assert request_from_json(request_to_json(request_)) == request_


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Resize(),
        lambda: Resize(10, (10, 10)),
        lambda: Resize(0),
        lambda: Resize(10, interpolation="cubic"),
        lambda: FrameRequest(fps=0),
        lambda: FrameRequest(max_frames=0),
        lambda: FrameRequest(center_crop=0),
        lambda: AudioRequest(1),
    ],
)
def test_wrong_requests_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        wrong()


def test_one_pass_serves_all_requests_and_scales_once(
    clip: Callable[[str], Path], pool: DecodePool
) -> None:
    path = clip("long.mp4")
    small = Resize(60)
    requests = [
        FrameRequest(),
        FrameRequest(resize=small),
        FrameRequest(resize=small, center_crop=50),
        FrameRequest(fps=5, resize=Resize(size=(20, 20))),
        AudioRequest(),
    ]
    together = decode_all(pool, path, *requests)
    assert together.summary.frames_decoded == 200
    assert together.summary.frames_scaled == 200 + 40
    for index, request in enumerate(requests):
        alone = decode_all(pool, path, request)
        if isinstance(request, AudioRequest):
            assert np.array_equal(together.samples(index), alone.samples())
        else:
            assert np.array_equal(together.frames(index), alone.frames())
            assert np.array_equal(together.spans(index), alone.spans())
    assert together.frames(2).shape == (200, 50, 50, 3)
    assert np.array_equal(together.frames(2), together.frames(1)[:, 5:55, 15:65])


def test_blocks_are_small_ordered_and_interleaved(
    clip: Callable[[str], Path], small_block_pool: DecodePool
) -> None:
    requests = FrameRequest(), FrameRequest(fps=25, resize=Resize(60))
    got = decode_all(small_block_pool, clip("long.mp4"), *requests)
    assert all(block.frames.nbytes <= 100_000 for block in got.blocks)
    behind = [0.0, 0.0]
    counts = [0, 0]
    for block in got.blocks:
        assert block.first_frame == counts[block.request]
        counts[block.request] += len(block.frames)
        behind[block.request] = block.spans[-1, 1]
        assert abs(behind[0] - behind[1]) < 0.5
    assert counts == [200, 200]
