"""PWC-Net: optical flow from feature pyramids, warping and cost volumes.

Paper: PWC-Net: CNNs for Optical Flow Using Pyramid, Warping, and Cost Volume (Sun et al., 2018).
Code whose numbers are kept: sniklaus/pytorch-pwc and its copy in v-iashin/video_features (branch
`bmt`, the flow behind BMT's and MDVC's features). That code is GPL-3.0; this file is written from
the facts of the network and holds none of it. 9.4 million parameters.

Checkpoint layout, 126 entries, in both spellings: `moduleExtractor.moduleOne.0.weight`, ...,
`moduleTwo.moduleUpfeat.bias`, ..., `moduleRefiner.moduleMain.12.bias`, and `netExtractor...`.

Data flow: two RGB images (B, 3, H, W), 0..255 -> BGR, divided by 255, resized to the next
multiples of 64 -> six levels of features, (B, 16, H/2, W/2) to (B, 196, H/64, W/64), the same
network for both images -> from level 6 to 2: second features warped by the flow so far, cost volume
(B, 81, h, w), decoder -> flow (B, 2, h, w) in units of 20 pixels -> at level 2 a refiner with
dilated convolutions adds to it -> `flow` (B, 2, H, W) in pixels from the first image to the second,
u (x, to the right) before v (y, down).

Order of work. Three quarters of it is the decoder of level 2 and the refiner. On a CPU in float32
the convolutions without dilation take a quarter of the multiplications there
(`networks/winograd.py`), and a map that several layers read is brought to that form once, into one
buffer, where the published code joins the output of each layer to its input. The cost volume is a
product of small matrices instead of 81 maps as large as the features. Results differ from the
published order by rounding, 3e-6 of their norm. Elsewhere (GPU, bf16, fp16) layers run as they are,
and the libraries choose how.
"""

import re
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.extractors.networks import winograd
from vlpipe.extractors.networks.flow_matching import NUM_DISPLACEMENTS, cost_volume, warp
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

LEVELS = ("one", "two", "thr", "fou", "fiv", "six")
WIDTHS = dict(zip(LEVELS, (16, 32, 64, 96, 128, 196), strict=True))
# Decoders by level, coarse to fine, and the factor from their upsampled flow (in units of 20 pixels
# of the image) to pixels of the level: 20 / 2^level.
WARP_SCALES = {"six": None, "fiv": 0.625, "fou": 1.25, "thr": 2.5, "two": 5.0}
FLOW_UNIT_PX = 20.0

DECODER_LAYERS = {"one": 128, "two": 128, "thr": 96, "fou": 64, "fiv": 32}
REFINER_LAYERS = ((128, 1), (128, 2), (128, 4), (96, 8), (64, 16), (32, 1), (2, 1))
SLOPE = 0.1

# Image sizes are brought to multiples of what six halvings need.
GRAIN = 64

PAIRS_AT_ONCE = {"cpu": 8}

Pyramid = dict[str, Tensor]

_LICENCE = "GPL-3.0 (code); the weights are stated to be for non-commercial, share-alike use"
_BMT = "https://github.com/v-iashin/video_features/tree/bmt"
_SNIKLAUS = "https://github.com/sniklaus/pytorch-pwc"

# The first is what BMT's flow features were made with, the second what MDVC's were: other weights.
PWC_CHECKPOINTS = (
    PublishedCheckpoint("pwc_net_sintel", "pwc_net.pt", _BMT, _LICENCE),
    PublishedCheckpoint("pwc_net_default", "network-default.pytorch", _SNIKLAUS, _LICENCE),
    PublishedCheckpoint(
        "pwc_net_chairs_things", "network-chairs-things.pytorch", _SNIKLAUS, _LICENCE
    ),
)


class Decoder(nn.Module):
    """Flow of one level from its cost volume and what is known from the coarser level.

    Five 3x3 convolutions, each of which reads the outputs of all before it, newest first.
    """

    def __init__(self, level: str, coarser: str | None) -> None:
        super().__init__()
        self.num_inputs = NUM_DISPLACEMENTS
        if coarser is not None:
            self.num_inputs += WIDTHS[level] + 4
            num_coarser = WIDTHS[coarser] + 4 if WARP_SCALES[coarser] else 0
            num_features = NUM_DISPLACEMENTS + num_coarser + sum(DECODER_LAYERS.values())
            self.upflow = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
            self.upfeat = nn.ConvTranspose2d(num_features, 2, 4, stride=2, padding=1)
        channels = self.num_inputs
        for name, width in DECODER_LAYERS.items():
            self.add_module(name, nn.Sequential(nn.Conv2d(channels, width, 3, padding=1)))
            channels += width
        self.six = nn.Sequential(nn.Conv2d(channels, 2, 3, padding=1))
        self.num_features = channels

    def forward(self, x: Tensor, follower: nn.Conv2d | None = None) -> tuple[Tensor, Tensor]:
        """Flow (B, 2, h, w) and features (B, num_features, h, w) from (B, num_inputs, h, w).

        follower: a 3x3 convolution of the features, whose output comes in their place.
        """
        if _is_tiled(x):
            return self._forward_tiled(x, follower)
        for name in DECODER_LAYERS:
            x = torch.cat([F.leaky_relu(self.get_submodule(name)(x), SLOPE), x], 1)
        return self.six(x), x if follower is None else follower(x)

    def _forward_tiled(self, x: Tensor, follower: nn.Conv2d | None) -> tuple[Tensor, Tensor]:
        """The same, with every map brought to tiles once for all layers that read it."""
        layers = [cast(nn.Conv2d, self.get_submodule(f"{name}.0")) for name in DECODER_LAYERS]
        last = [cast(nn.Conv2d, self.six[0]), *([] if follower is None else [follower])]
        filters = [winograd.transform_filters(layer.weight) for layer in layers]
        last_filters = winograd.transform_filters(torch.cat([layer.weight for layer in last]))
        last_bias = torch.cat([_bias(layer) for layer in last])

        size = (x.shape[2], x.shape[3])
        tiles = winograd.num_tiles(*size)
        numbers = x.new_empty(winograd.NUM_PRODUCTS, self.num_features, tiles)
        flows, others = [], []
        for image in x:
            # Layers read all that was made before them, newest first: filled from the end.
            parts = [image]
            start = self.num_features - self.num_inputs
            winograd.transform_maps(parts[0], numbers[:, start:])
            for layer, own in zip(layers, filters, strict=True):
                made = winograd.convolve(own, numbers[:, start:], _bias(layer), size)
                parts.insert(0, F.leaky_relu_(made, SLOPE))  # (C, h, w)
                end, start = start, start - layer.out_channels
                winograd.transform_maps(parts[0], numbers[:, start:end])
            outputs = winograd.convolve(last_filters, numbers, last_bias, size)  # (2 + C, h, w)
            flows.append(outputs[:2])
            others.append(torch.cat(parts) if follower is None else outputs[2:])
        return torch.stack(flows), torch.stack(others)


class Refiner(nn.Module):
    """What is added to the flow of level 2: convolutions of growing dilation over its features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, dilation in REFINER_LAYERS:
            layers.append(nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            channels = width
        self.main = nn.Sequential(*layers[:-1])

    @property
    def first(self) -> nn.Conv2d:
        """The first convolution, which the decoder runs along with its own last one."""
        return cast(nn.Conv2d, self.main[0])

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2, h, w) from the output (B, 128, h, w) of the first convolution."""
        for layer in list(self.main)[1:]:
            if isinstance(layer, nn.Conv2d) and layer.dilation == (1, 1) and _is_tiled(x):
                filters = winograd.transform_filters(layer.weight)
                made = [winograd.convolve_maps(image, filters, _bias(layer)) for image in x]
                x = torch.stack(made)
            else:
                x = layer(x)
        return x


class PwcNetwork(nn.Module):
    """Two RGB images (B, 3, H, W) 0..255, uint8 or float -> dict of `flow`; see the file's top."""

    def __init__(self) -> None:
        super().__init__()
        self.extractor = nn.ModuleDict()
        channels = 3
        for level, width in WIDTHS.items():
            layers: list[nn.Module] = []
            for stride in (2, 1, 1):
                layers.append(nn.Conv2d(channels, width, 3, stride=stride, padding=1))
                layers.append(nn.LeakyReLU(SLOPE, inplace=True))
                channels = width
            self.extractor[level] = nn.Sequential(*layers)
        coarser = None
        for level in WARP_SCALES:
            self.add_module(level, Decoder(level, coarser))
            coarser = level
        self.refiner = Refiner(self._decoder("two").num_features)

    def forward(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        size = (first.shape[2], first.shape[3])
        both = self.pyramid(torch.cat([first, second]))
        num = len(first)
        one, two = (
            {k: v[part] for k, v in both.items()} for part in (slice(num), slice(num, None))
        )
        return {"flow": self.flow_between(one, two, size)}

    def flow_of_stack(self, frames: Tensor, *, pairs_at_once: int | None = None) -> Tensor:
        """(T, 2, H, W) flow between neighbours of RGB frames (T + 1, 3, H, W).

        The same as `forward` of frames[:-1] and frames[1:], with one pyramid a frame instead of
        two, and memory for `pairs_at_once` pairs: by default 8 on a CPU (300 MB), and 64 on a GPU,
        which calls of less work leave idle (1.7 times as long in fp32, 3.4 times in bf16).
        """
        if pairs_at_once is None:
            pairs_at_once = PAIRS_AT_ONCE.get(frames.device.type, 64)
        size = (frames.shape[2], frames.shape[3])
        flows = []
        last: Pyramid | None = None
        for start in range(0, len(frames) - 1, pairs_at_once):
            end = min(start + pairs_at_once + 1, len(frames))
            made = self.pyramid(frames[start if last is None else start + 1 : end])
            if last is not None:
                made = {level: torch.cat([last[level], made[level]]) for level in made}
            one = {level: maps[:-1] for level, maps in made.items()}
            two = {level: maps[1:] for level, maps in made.items()}
            flows.append(self.flow_between(one, two, size))
            last = {level: maps[-1:] for level, maps in made.items()}
        return torch.cat(flows)

    def pyramid(self, images: Tensor) -> Pyramid:
        """Features (B, C, H/2^level, W/2^level) of RGB images (B, 3, H, W), 0..255, by level."""
        x = images.flip(1).float().div_(255)  # BGR
        size = _padded(*x.shape[2:])
        x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        made: Pyramid = {}
        for level, layers in self.extractor.items():
            x = layers(x)
            made[level] = x
        return made

    def flow_between(self, one: Pyramid, two: Pyramid, size: tuple[int, int]) -> Tensor:
        """Flow (B, 2, H, W) in pixels of images of that size (H, W), from their pyramids."""
        flow = features = refined = one["six"]
        for level, scale in WARP_SCALES.items():
            decoder = self._decoder(level)
            if scale is None:
                x = _activated_volume(one[level], two[level])
            else:
                flow = decoder.upflow(flow).float()  # (B, 2, h, w)
                known = decoder.upfeat(features)  # (B, 2, h, w)
                warped = warp(two[level].float(), flow * scale)
                volume = _activated_volume(one[level], warped)
                x = torch.cat([volume, one[level], flow, known], 1)  # (B, num_inputs, h, w)
            if level == "two":
                flow, refined = decoder(x, self.refiner.first)
            else:
                flow, features = decoder(x)
        flow = flow.float() + self.refiner(refined).float()
        height, width = size
        padded_height, padded_width = _padded(height, width)
        flow = F.interpolate(flow * FLOW_UNIT_PX, size=size, mode="bilinear", align_corners=False)
        factors = flow.new_tensor([width / padded_width, height / padded_height])
        return flow * factors.view(1, 2, 1, 1)  # (B, 2, H, W)

    def initialise_untrained(self) -> None:
        """Draws weights that keep the size of activations; flows are some pixels."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
            elif isinstance(layer, nn.ConvTranspose2d):
                # With kernel 4 and stride 2 every output reads 2x2 cells of each channel.
                nn.init.normal_(layer.weight, std=(4 * layer.in_channels) ** -0.5)
            else:
                continue
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        for level in WARP_SCALES:
            cast(nn.Conv2d, self._decoder(level).six[0]).weight.data.mul_(0.1)

    def load(self, checkpoint: Checkpoint) -> None:
        """Fills the network; WeightsRejected for a checkpoint of another one."""
        state = {_own_name(key): value for key, value in checkpoint.state.items()}
        checkpoint.load_into(self, state, what="PWC-Net")

    def _decoder(self, level: str) -> Decoder:
        return cast(Decoder, self.get_submodule(level))


def _activated_volume(first: Tensor, second: Tensor) -> Tensor:
    return F.leaky_relu_(cost_volume(first.float(), second.float()), SLOPE)


def _is_tiled(x: Tensor) -> bool:
    """Whether 3x3 convolutions of maps (B, C, h, w) are made tile by tile."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return not torch.is_grad_enabled() and winograd.is_worthwhile(*x.shape[2:])


def _bias(layer: nn.Conv2d) -> Tensor:
    return cast(Tensor, layer.bias)


def _padded(height: int, width: int) -> tuple[int, int]:
    return -(-height // GRAIN) * GRAIN, -(-width // GRAIN) * GRAIN


def _own_name(key: str) -> str:
    """A name of either published layout as it is here: `two.upfeat.bias`, `refiner.main.0.bias`."""
    return re.sub(r"(^|\.)(?:module|net)(?=[A-Z])", r"\1", key).lower()
