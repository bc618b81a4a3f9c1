"""I3D in the forms that extraction runs: the numbers of `networks/i3d.py` in less time.

Everywhere BatchNorm is folded into the convolutions. On a CPU in float32, where nothing else but
rounding (3e-6 of the results' norm) tells it from `I3dNetwork`, half the time is saved:

- Maps are (T, H, W, C), channels last, where pooling is vectorised and a 1x1x1 convolution is
  a product of two matrices; the three that read a block's input are one product.
- The first convolution, of three channels, leaves most of a vector unit idle. Its seven frames
  stand side by side as channels of a convolution over one frame.
- 3x3x3 convolutions of large maps go by tiles (`networks/winograd_cubes.py`).
- Large maps are made some frames at a time and pooled at once, and memory is used again
  (`networks/scratch.py`).
"""

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.extractor_spec import ExtractorSpec
from vlpipe.extractors.networks.folded_norm import fold_norms
from vlpipe.extractors.networks.i3d import MIXED, ConvUnit, I3dNetwork, Mixed, SamePool
from vlpipe.extractors.networks.scratch import Scratch
from vlpipe.extractors.networks.winograd_cubes import CubeConvolution

# Frames that the first convolution reads, and how many of them are before the first of the two that
# an output frame stands for.
_REACH, _BEFORE = 7, 2
_PADS = (2, 3)  # of its height and width

# Of frames whose large maps exist at a time.
_FRAMES_AT_ONCE = 4

# Fewer channels, or fewer tiles, cost more to bring to tiles than the products save.
_MIN_TILED_CHANNELS = 64
_MIN_TILED_EDGE = 14


def inference_form(network: I3dNetwork, spec: ExtractorSpec) -> nn.Module:
    """The network as it runs fastest on the device and at the precision of that extractor."""
    if torch.device(spec.device).type != "cpu" or spec.is_compiled:
        return fold_norms(network)
    if spec.precision == "fp32" and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return I3dOnCpu(network)
    return fold_norms(network).to(memory_format=torch.channels_last_3d)


class I3dOnCpu(nn.Module):
    """(B, channels, T, H, W) in [-1, 1] -> dict of `mixed_5c`, `pooled`, `logits`, float32."""

    def __init__(self, network: I3dNetwork) -> None:
        super().__init__()
        self.folded = fold_norms(network)
        self.stem = _frames_as_channels(self.folded.conv3d_1a_7x7.conv3d.weight)
        self.after_stem = _Pointwise([self.folded.conv3d_2b_1x1])
        self.cube = _Cube(self.folded.conv3d_2c_3x3)
        blocks = {name: cast(Mixed, self.folded.get_submodule(name)) for name in MIXED}
        self.blocks = {name: _MixedOnCpu(block) for name, block in blocks.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scratch = Scratch()
        maps = [self._mixed_5c(stack, scratch) for stack in x]
        return self.folded.heads(torch.stack(maps))

    def _mixed_5c(self, x: Tensor, scratch: Scratch) -> Tensor:
        """(1024, T/8, H/32, W/32) of one stack (channels, T, H, W)."""
        maps = self._up_to_2b(x, scratch)  # (T/2, H/4, W/4, 64)
        maps = self._up_to_3a(maps, scratch)  # (T/2, H/8, W/8, 192)
        for number, (name, block) in enumerate(self.blocks.items()):
            if name == "mixed_4b":
                maps = _pooled(self.folded.pool_4a, maps)  # (T/4, H/16, W/16, 480)
            elif name == "mixed_5b":
                maps = _pooled(self.folded.pool_5a, maps)  # (T/8, H/32, W/32, 832)
            out = scratch.take(f"block {number % 2}", *maps.shape[:3], block.width)
            block(maps, out, scratch)
            maps = out
        return maps.permute(3, 0, 1, 2).contiguous()  # the next stack takes the memory of this one

    def _up_to_2b(self, x: Tensor, scratch: Scratch) -> Tensor:
        channels, frames, height, width = x.shape
        steps = (frames - 2) // 2 + 1
        padded = (height + sum(_PADS), width + sum(_PADS))
        # An output frame reads frames 2 t - 2 to 2 t + 4; a further one has filters of zeros.
        given = scratch.take("given", 2 * steps + _REACH, channels, *padded).zero_()
        inner = given[_BEFORE : _BEFORE + frames, :, _PADS[0] :, _PADS[0] :]
        inner[:, :, :height, :width] = x.transpose(0, 1)
        plane = padded[0] * padded[1]
        side_by_side = given.as_strided(
            (steps, (_REACH + 1) * channels, *padded),
            (2 * channels * plane, plane, padded[1], 1),
        )
        bias = self.folded.conv3d_1a_7x7.conv3d.bias
        parts = []
        for start in range(0, steps, _FRAMES_AT_ONCE):
            part = side_by_side[start : start + _FRAMES_AT_ONCE]
            part = part.contiguous(memory_format=torch.channels_last)
            part = F.conv2d(part, self.stem, bias, stride=2)  # (n, 64, H/2, W/2)
            # The maximum of what ReLU leaves is what ReLU leaves of the maximum.
            part = _pooled(self.folded.pool_2a, part.permute(0, 2, 3, 1)).relu_()
            parts.append(self.after_stem(part))
        return torch.cat(parts)

    def _up_to_3a(self, maps: Tensor, scratch: Scratch) -> Tensor:
        pool = self.folded.pool_3a
        return torch.cat([_pooled(pool, p).relu_() for p in self.cube.parts(maps, scratch)])


class _MixedOnCpu:
    """(T, H, W, width) from (T, H, W, C): the four branches of a block, side by side."""

    def __init__(self, block: Mixed) -> None:
        first, second = block.branch_1, block.branch_2
        entries = [cast(ConvUnit, u) for u in (block.branch_0, first[0], second[0])]
        self.entry = _Pointwise(entries)
        self.entry_widths = [unit.conv3d.out_channels for unit in entries]
        self.cubes = [_Cube(cast(ConvUnit, branch[1])) for branch in (first, second)]
        self.pool = cast(nn.MaxPool3d, block.branch_3[0])
        self.after_pool = _Pointwise([cast(ConvUnit, block.branch_3[1])])
        self.widths = [
            self.entry_widths[0],
            *(cube.width for cube in self.cubes),
            self.after_pool.width,
        ]
        self.width = block.width

    def __call__(self, maps: Tensor, out: Tensor, scratch: Scratch) -> None:
        parts = torch.split_with_sizes(out, self.widths, dim=3)
        first, *others = torch.split_with_sizes(self.entry(maps), self.entry_widths, dim=3)
        parts[0].copy_(first)
        for cube, given, part in zip(self.cubes, others, parts[1:3], strict=True):
            cube(given, part, scratch)
        pooled = self.pool(_channels_first(maps))
        parts[3].copy_(self.after_pool(_channels_last(pooled)))


class _Pointwise:
    """1x1x1 convolutions of the same maps and ReLU: (T, H, W, all widths) from (T, H, W, C)."""

    def __init__(self, units: list[ConvUnit]) -> None:
        weights = [unit.conv3d.weight.flatten(1) for unit in units]
        self.weight = torch.cat(weights)  # (all widths, C)
        self.bias = torch.cat([cast(Tensor, unit.conv3d.bias) for unit in units])
        self.width = self.bias.numel()

    def __call__(self, maps: Tensor) -> Tensor:
        return F.linear(maps, self.weight, self.bias).relu_()


class _Cube:
    """3x3x3 convolution and ReLU, (T, H, W, O) from (T, H, W, C), by tiles where that is faster."""

    def __init__(self, unit: ConvUnit) -> None:
        self.weight = unit.conv3d.weight.contiguous(memory_format=torch.channels_last_3d)
        self.bias = cast(Tensor, unit.conv3d.bias)
        self.width, num_inputs = self.weight.shape[:2]
        self.tiled: CubeConvolution | None = None
        if num_inputs >= _MIN_TILED_CHANNELS:
            self.tiled = CubeConvolution(unit.conv3d.weight, self.bias)

    def __call__(self, maps: Tensor, out: Tensor, scratch: Scratch) -> None:
        start = 0
        for part in self.parts(maps, scratch):
            torch.clamp_min(part, 0, out=out[start : start + len(part)])
            start += len(part)

    def parts(self, maps: Tensor, scratch: Scratch) -> Iterator[Tensor]:
        """The frames in order, some at a time and before ReLU; void when the next ones come."""
        if self.tiled is not None and min(maps.shape[1:3]) >= _MIN_TILED_EDGE:
            yield from self.tiled(maps, scratch)
            return
        x = _channels_first(maps)  # (1, C, T, H, W)
        # F.conv3d leaves small maps to a loop that is several times slower.
        ones = [1, 1, 1]
        made = torch.mkldnn_convolution(x, self.weight, self.bias, ones, ones, ones, 1)
        yield _channels_last(made)


def _frames_as_channels(weight: Tensor) -> Tensor:
    """(O, 8 C, 7, 7), frame by frame, from filters (O, C, 7, 7, 7); zeros for an eighth frame."""
    by_frame = F.pad(weight.transpose(1, 2), (0, 0, 0, 0, 0, 0, 0, 1))  # (O, 8, C, 7, 7)
    return by_frame.flatten(1, 2).contiguous(memory_format=torch.channels_last)


def _pooled(pool: SamePool, maps: Tensor) -> Tensor:
    """What the pool makes of maps (T, H, W, C)."""
    return _channels_last(pool(_channels_first(maps)))


def _channels_first(maps: Tensor) -> Tensor:
    """(1, C, T, H, W) from (T, H, W, C), in the same memory."""
    # Of an axis of one the libraries still read the stride, to tell how the others lie.
    return maps[None].permute(0, 4, 1, 2, 3)


def _channels_last(x: Tensor) -> Tensor:
    """(T, H, W, C) from (1, C, T, H, W), in the same memory."""
    return x.permute(0, 2, 3, 4, 1)[0]
