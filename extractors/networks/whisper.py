"""Whisper's network, in the size that a checkpoint has, and what it takes to run it.

Paper: Robust Speech Recognition via Large-Scale Weak Supervision (Radford et al., 2022, arXiv
2212.04356). Library: openai-whisper (MIT), which holds the network, its two vocabularies, decoding
and the alignment of words; the extra `speech`.

Checkpoint layouts: OpenAI's own (`encoder.blocks.0.attn.query.weight`, ...) and that of the library
transformers (`model.encoder.layers.0.self_attn.q_proj.weight`, ...). Heads are 64 wide in all.
"""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from vlpipe.extractors.errors import WeightsRejected
from vlpipe.extractors.family import import_library
from vlpipe.extractors.weights.checkpoint import Checkpoint
from vlpipe.stores.errors import UsageError

_HEAD_WIDTH = 64
_WINDOW_POSITIONS, _TEXT_POSITIONS = 1500, 448
_MULTILINGUAL_WORDS = 51_865
_VOCABULARIES = (_MULTILINGUAL_WORDS - 1, _MULTILINGUAL_WORDS, _MULTILINGUAL_WORDS + 1)
_SPECTRUM = (80, 128)

_RENAMED = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^model\.", ""),
        (r"embed_positions\.weight$", "positional_embedding"),
        (r"embed_tokens\.", "token_embedding."),
        (r"\.layers\.", ".blocks."),
        (r"self_attn_layer_norm", "attn_ln"),
        (r"encoder_attn_layer_norm", "cross_attn_ln"),
        (r"final_layer_norm", "mlp_ln"),
        (r"encoder\.layer_norm", "encoder.ln_post"),
        (r"decoder\.layer_norm", "decoder.ln"),
        (r"self_attn\.", "attn."),
        (r"encoder_attn\.", "cross_attn."),
        (r"([qkv])_proj\.", lambda m: {"q": "query.", "k": "key.", "v": "value."}[m[1]]),
        (r"out_proj\.", "out."),
        (r"\.fc1\.", ".mlp.0."),
        (r"\.fc2\.", ".mlp.2."),
    )
)


def whisper_library() -> Any:  # noqa: ANN401 - the module, which has no types
    """The library; EnvironmentLacks says how to install it."""
    return import_library("whisper", "speech", "the extractor whisper")


class WhisperNetwork(nn.Module):
    """(B, bands, 3000) log-mel spectra -> dict of `encoded` (B, 1500, width)."""

    def __init__(self, layers: int, width: int) -> None:
        super().__init__()
        self.build(
            n_mels=_SPECTRUM[0], n_audio_ctx=_WINDOW_POSITIONS, n_audio_state=width,
            n_audio_head=width // _HEAD_WIDTH, n_audio_layer=layers,
            n_vocab=_MULTILINGUAL_WORDS, n_text_ctx=_TEXT_POSITIONS, n_text_state=width,
            n_text_head=width // _HEAD_WIDTH, n_text_layer=layers,
        )  # fmt: skip

    def build(self, **sizes: int) -> None:
        """A network of those sizes (`whisper.ModelDimensions`) in the place of the one before."""
        library = whisper_library()
        self.model = library.model.Whisper(library.ModelDimensions(**sizes))

    @property
    def num_bands(self) -> int:
        return int(self.model.dims.n_mels)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"encoded": self.model.encoder(x)}

    @torch.no_grad()
    def draw(self) -> None:
        """Weights of an untrained network whose words follow the sound: what the constructor leaves
        open, small vectors of words (they are the last layer too, and large ones repeat the word
        before for ever), and attention to few places."""
        decoder = self.model.decoder
        nn.init.normal_(decoder.positional_embedding, std=0.02)
        nn.init.normal_(decoder.token_embedding.weight, std=0.02)
        for block in decoder.blocks:
            for layer in (block.cross_attn.query, block.cross_attn.key, block.cross_attn.out):
                layer.weight.mul_(8)

    def load(self, checkpoint: Checkpoint) -> None:
        """Takes the sizes and the weights of a checkpoint in either layout."""
        state = openai_layout(checkpoint.state)
        try:
            self.build(**sizes_of(state))
        except (KeyError, ValueError) as error:
            what = f"no entry {error}" if isinstance(error, KeyError) else str(error)
            raise WeightsRejected(
                f"{checkpoint.path}: this is not a checkpoint of Whisper: {what}",
                hint="expected OpenAI's NAME.pt, or model.safetensors of transformers",
            ) from error
        checkpoint.load_into(self.model, state, what="Whisper")

    def align_as(self, name: str) -> None:
        """Takes the heads that tell when a word is from OpenAI's network of that name.

        UsageError if they are not those of a network of this size.
        """
        try:
            self.model.set_alignment_heads(whisper_library()._ALIGNMENT_HEADS[name])
        except RuntimeError as error:
            raise UsageError(
                f"the weights are not those of Whisper's {name}, whose heads are asked for: "
                f"{self.model.dims.n_text_layer} layers with {self.model.dims.n_text_head} heads",
                hint="--set whisper.heads_of=null",
            ) from error


def openai_layout(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of either layout by OpenAI's names."""
    if "decoder.token_embedding.weight" in state:
        return dict(state)
    renamed = {}
    for key, value in state.items():
        name = key
        for pattern, replacement in _RENAMED:
            name = pattern.sub(cast(Any, replacement), name)
        renamed[name] = value
    renamed.pop("proj_out.weight", None)  # the same as the vectors of the words
    return renamed


def sizes_of(state: Mapping[str, Tensor]) -> dict[str, int]:
    """The sizes that entries in OpenAI's layout have; KeyError or ValueError if they are not
    Whisper's."""
    bands = state["encoder.conv1.weight"].shape[1]
    positions, width = state["encoder.positional_embedding"].shape
    words, text_width = state["decoder.token_embedding.weight"].shape
    if words not in _VOCABULARIES or bands not in _SPECTRUM:
        raise ValueError(
            f"{words} words and {bands} bands; expected {' or '.join(map(str, _VOCABULARIES))} "
            f"words and {' or '.join(map(str, _SPECTRUM))} bands"
        )
    return {
        "n_mels": bands,
        "n_audio_ctx": positions,
        "n_audio_state": width,
        "n_audio_head": width // _HEAD_WIDTH,
        "n_audio_layer": _num_blocks(state, "encoder"),
        "n_vocab": words,
        "n_text_ctx": state["decoder.positional_embedding"].shape[0],
        "n_text_state": text_width,
        "n_text_head": text_width // _HEAD_WIDTH,
        "n_text_layer": _num_blocks(state, "decoder"),
    }


def _num_blocks(state: Mapping[str, Tensor], part: str) -> int:
    found = {key.split(".")[2] for key in state if key.startswith(f"{part}.blocks.")}
    if not found:
        raise ValueError(f"no layers of the {part}")
    return len(found)


def spectra(sounds: Tensor, num_bands: int) -> Tensor:
    """float32 (B, bands, 3000), log-mel as the network takes it, of sounds (B, 480000) at 16 kHz.

    Each window is scaled by its own loudest value.
    """
    library = whisper_library()
    made: Tensor = torch.stack([library.log_mel_spectrogram(s, num_bands) for s in sounds])
    return made
