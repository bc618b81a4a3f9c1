"""VGGish: embeddings of sound, one every 0.96 s.

Paper: CNN Architectures for Large-Scale Audio Classification (Hershey et al., 2017). Code:
TensorFlow models `research/audioset/vggish` and its torch port harritaylor/torchvggish, whose
checkpoint layout is read here (`features.0.weight`, ..., `embeddings.4.bias`, 18 entries; PCA as
`pca_eigen_vectors` and `pca_means`, in a file of its own or in the same one), as well as that of
JMGaljaard/VGGish-pytorch, which names layers after TensorFlow's variables. 72.1 million parameters.

Data flow: mono 16 kHz waveform -> log-mel examples (B, 1, 96, 64) = (time, mel) -> six 3x3
convolutions with pooling (B, 512, 6, 4) -> flattened as (time, mel, channel), 12288 -> 4096 ->
4096 -> 128. The published port ends in a ReLU, TensorFlow's code since 2020 does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.extractor import Extractor, ExtractorConfig, Output
from vlpipe.extractors.inputs.log_mel import (
    EXAMPLE_HOP,
    EXAMPLE_SAMPLES,
    SAMPLE_RATE,
    log_mel_examples,
)
from vlpipe.extractors.media import AudioBlock, AudioRequest, MediaInfo, MediaRequest
from vlpipe.extractors.networks.blank_linear import blank_linear
from vlpipe.extractors.registry import register
from vlpipe.extractors.samples import Block, Sample, Sampler
from vlpipe.extractors.weights.checkpoint import Checkpoint, PublishedCheckpoint

# Bounds of TensorFlow's post-processor: values are clipped to [-2, 2] and spread over 0..255.
QUANTISE_MIN, QUANTISE_MAX = -2.0, 2.0

_RELEASE = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"


class VggishConfig(ExtractorConfig):
    """What becomes of the 128 numbers of an example.

    postprocess: `raw` keeps the embedding (BMT, MDVC), `pca` whitens it (JSFusion), `quantised`
        is the AudioSet format: PCA clipped to [-2, 2] and written as levels 0..255.
    rounding: of the quantised levels: TensorFlow truncates, torchvggish rounds half to even.
    final_relu: the published torch port and TensorFlow before 2020 end in a ReLU.
    """

    postprocess: Literal["raw", "pca", "quantised"] = "raw"
    rounding: Literal["truncate", "round"] = "truncate"
    final_relu: bool = True


class VggishNetwork(nn.Module):
    """(B, 1, 96, 64) or (B, 96, 64) log-mel examples -> dict, all (B, 128) float32.

    `embedding_pre_relu`, `embedding` (after the last ReLU), and where PCA is loaded also `pca`
    (not clipped), `quantised_round`, `quantised_trunc` (whole numbers 0..255) and `features`, the
    one that the configuration selects.
    """

    def __init__(self, config: VggishConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels = 1
        for width in (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool"):
            if isinstance(width, int):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            blank_linear(512 * 6 * 4, 4096), nn.ReLU(inplace=True),
            blank_linear(4096, 4096), nn.ReLU(inplace=True),
            nn.Linear(4096, 128),
        )  # fmt: skip
        # y = E (x - m) as a linear layer: weight E, bias -E m.
        self.pca = nn.Linear(128, 128)
        self.has_pca = config.postprocess != "raw"

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.features(x if x.ndim == 4 else x.unsqueeze(1))  # (B, 512, 6, 4)
        flat = maps.permute(0, 2, 3, 1).flatten(1)  # (B, 6 * 4 * 512)
        before = self.embeddings(flat)  # (B, 128)
        made = {"embedding_pre_relu": before, "embedding": before.relu()}
        chosen = made["embedding"] if self.config.final_relu else before
        if self.has_pca:
            made["pca"] = self.pca(chosen)
            levels = (made["pca"].clamp(QUANTISE_MIN, QUANTISE_MAX) - QUANTISE_MIN) * (
                255 / (QUANTISE_MAX - QUANTISE_MIN)
            )
            made["quantised_round"] = levels.round()
            made["quantised_trunc"] = levels.trunc()
        if self.config.postprocess == "pca":
            chosen = made["pca"]
        elif self.config.postprocess == "quantised":
            is_rounded = self.config.rounding == "round"
            chosen = made["quantised_round" if is_rounded else "quantised_trunc"]
        return made | {"features": chosen}


class ExampleSampler:
    """Log-mel examples of 0.975 s, one every 0.96 s, from audio blocks of any length."""

    def __init__(self) -> None:
        self._pending = np.zeros(0, np.float32)
        self._start_s: float | None = None
        self._num_examples = 0

    def push(self, block: Block) -> Sequence[Sample]:
        if not isinstance(block, AudioBlock):
            raise TypeError(f"expected sound, got {type(block).__name__}")
        if self._start_s is None:
            self._start_s = block.start_s
        self._pending = np.concatenate([self._pending, block.samples])
        examples = log_mel_examples(self._pending)
        first = self._num_examples
        self._num_examples += len(examples)
        self._pending = self._pending[len(examples) * EXAMPLE_HOP :]
        spans = [
            (
                self._start_s + k * EXAMPLE_HOP / SAMPLE_RATE,
                self._start_s + (k * EXAMPLE_HOP + EXAMPLE_SAMPLES) / SAMPLE_RATE,
            )
            for k in range(first, self._num_examples)
        ]
        return [Sample(data, span) for data, span in zip(examples, spans, strict=True)]

    def finish(self) -> Sequence[Sample]:
        # A remainder shorter than an example is dropped, as in the published code.
        return []


@register("vggish")
class Vggish(Extractor):
    """Embeddings of sound, (rows, 128); a video without sound has none."""

    version: ClassVar[int] = 1
    draw: ClassVar[int] = 2  # large layers once
    Config: ClassVar[type[ExtractorConfig]] = VggishConfig
    gpu_batch_size: ClassVar[int | None] = 128
    gflop_per_sample: ClassVar[float] = 1.7
    description: ClassVar[str] = "VGGish: a 128-d row every 0.96 s of sound"

    @classmethod
    def published_checkpoints(cls) -> Mapping[str, Sequence[PublishedCheckpoint]]:
        network = "vggish-10086976.pth"
        pca = "vggish_pca_params-970ea276.pth"
        return {
            "vggish": [
                PublishedCheckpoint(
                    "vggish_audioset", network, f"{_RELEASE}/{network}", "Apache-2.0", "10086976"
                )
            ],
            "vggish_pca": [
                PublishedCheckpoint(
                    "vggish_pca_audioset", pca, f"{_RELEASE}/{pca}", "Apache-2.0", "970ea276"
                )
            ],
        }

    @classmethod
    def required_roles(cls, config: ExtractorConfig) -> tuple[str, ...]:
        needs_pca = cast(VggishConfig, config).postprocess != "raw"
        return ("vggish", "vggish_pca") if needs_pca else ("vggish",)

    @classmethod
    def media_request(cls, config: ExtractorConfig) -> MediaRequest:
        del config
        return AudioRequest(sample_rate=SAMPLE_RATE)

    @classmethod
    def declare_outputs(cls, config: ExtractorConfig) -> tuple[Output, ...]:
        del config
        return (Output(cls.name, "features", (128,), ("channel",)),)

    @classmethod
    def samples_per_second(cls, config: ExtractorConfig) -> float:
        del config
        return SAMPLE_RATE / EXAMPLE_HOP

    @classmethod
    def build_network(cls, config: ExtractorConfig) -> nn.Module:
        return VggishNetwork(cast(VggishConfig, config))

    @classmethod
    def initialise_untrained(cls, network: nn.Module) -> None:
        # PyTorch's own initial weights shrink the signal by half a layer, so that biases alone
        # would decide the embedding.
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    @classmethod
    def load(cls, network: nn.Module, checkpoints: Mapping[str, Checkpoint]) -> None:
        net = cast(VggishNetwork, network)
        checkpoint = checkpoints["vggish"]
        state = {_port_name(k): v for k, v in checkpoint.state.items()}
        own = {k: v for k, v in state.items() if k not in ("pca_eigen_vectors", "pca_means")}
        body = nn.ModuleDict({"features": net.features, "embeddings": net.embeddings})
        checkpoint.load_into(body, own, what="VGGish")
        if "vggish_pca" in checkpoints:
            load_pca(net.pca, checkpoints["vggish_pca"])
        elif "pca_means" in checkpoint.state:
            load_pca(net.pca, checkpoint)
            net.has_pca = True

    @classmethod
    def check_checkpoint(cls, role: str, checkpoint: Checkpoint) -> None:
        if role == "vggish_pca":
            load_pca(nn.Linear(128, 128), checkpoint)
        else:
            super().check_checkpoint(role, checkpoint)

    def sampler(self, info: MediaInfo) -> Sampler:
        del info
        return ExampleSampler()

    def to_input(self, samples: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(samples).unsqueeze(1).to(self.device)  # (B, 1, 96, 64)

    def note(self, info: MediaInfo, num_rows: int) -> str | None:
        if num_rows:
            return None
        return "no_audio" if info.audio is None else "too_short"


def load_pca(layer: nn.Linear, checkpoint: Checkpoint) -> None:
    """Fills the whitening layer from `pca_eigen_vectors` and `pca_means`, or `layer.*`.

    The second layout is that of JMGaljaard/VGGish-pytorch, where the mean is already folded in.
    """
    state = checkpoint.state
    if "layer.weight" in state:
        named = {k.removeprefix("layer."): v for k, v in state.items()}
        checkpoint.load_into(layer, named, what="VGGish's PCA")
        return
    eigenvectors, means = state.get("pca_eigen_vectors"), state.get("pca_means")
    if (
        eigenvectors is None
        or means is None
        or eigenvectors.shape != (128, 128)
        or means.numel() != 128
    ):
        shapes = {k: tuple(v.shape) for k, v in state.items()}
        raise WeightsRejected(
            f"{checkpoint.path}: expected pca_eigen_vectors (128, 128) and pca_means (128,), "
            f"found {shapes}"
        )
    matrix = eigenvectors.double()
    bias = -(matrix @ means.double().flatten())
    checkpoint.load_into(layer, {"weight": matrix.float(), "bias": bias.float()}, what="PCA")


# Layers of JMGaljaard/VGGish-pytorch carry TensorFlow's variable names.
_LAYERS = {
    "features.vggish/conv1": "features.0",
    "features.vggish/conv2": "features.3",
    "features.vggish/conv3/conv3_1": "features.6",
    "features.vggish/conv3/conv3_2": "features.8",
    "features.vggish/conv4/conv4_1": "features.11",
    "features.vggish/conv4/conv4_2": "features.13",
    "embedding.vggish/fc1/fc1_1": "embeddings.0",
    "embedding.vggish/fc1/fc1_2": "embeddings.2",
    "embedding.vggish/fc2": "embeddings.4",
}


def _port_name(key: str) -> str:
    layer, _, kind = key.rpartition(".")
    return f"{_LAYERS[layer]}.{kind}" if layer in _LAYERS else key
