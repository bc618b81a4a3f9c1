"""Encoder and decoder of the bi-modal transformer (Iashin and Rahtu, BMVC 2020, figure 2).

    encoder layer   sound and picture each look at themselves, then, side by side, at each other
                    as that left them, then each passes its feed-forward network
    decoder layer   words look at earlier words; then, side by side, at sound and at picture;
                    both answers are joined to one by a bridge; feed-forward network

Each step is x + dropout(step(norm(x))). Only what asks is normalised, never what is looked at, and
nothing is normalised behind the last layer.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlpipe.models.layers.multihead_attention import (
    FeedForward,
    KeysValues,
    MultiHeadAttention,
    earlier_words,
)


@dataclass(frozen=True, slots=True)
class Widths:
    """Of the rows of sound, picture and words, of all heads together, and of what lies between."""

    audio: int
    video: int
    words: int
    inner: int
    heads: int
    dropout: float

    def attention(self, query: int, memory: int) -> MultiHeadAttention:
        return MultiHeadAttention(query, memory, self.inner, self.heads, self.dropout)

    def feed(self, width: int) -> FeedForward:
        return FeedForward(width, 4 * width, self.dropout)


class BiModalEncoderLayer(nn.Module):
    """Sound (B, Sa, audio) and picture (B, Sv, video), with masks (B, 1, S); the same shapes."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        a, v = widths.audio, widths.video
        self.self_audio, self.self_video = widths.attention(a, a), widths.attention(v, v)
        self.cross_audio, self.cross_video = widths.attention(a, v), widths.attention(v, a)
        self.feed_audio, self.feed_video = widths.feed(a), widths.feed(v)
        self.norms_audio = nn.ModuleList(nn.LayerNorm(a) for _ in range(3))
        self.norms_video = nn.ModuleList(nn.LayerNorm(v) for _ in range(3))
        self.dropout = nn.Dropout(widths.dropout)

    def forward(
        self, audio: Tensor, video: Tensor, audio_mask: Tensor, video_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        drop = self.dropout
        asking = self.norms_audio[0](audio)
        audio = audio + drop(self.self_audio(asking, asking, audio_mask))
        asking = self.norms_video[0](video)
        video = video + drop(self.self_video(asking, asking, video_mask))
        heard = self.cross_audio(self.norms_audio[1](audio), video, video_mask)
        seen = self.cross_video(self.norms_video[1](video), audio, audio_mask)
        audio, video = audio + drop(heard), video + drop(seen)
        audio = audio + drop(self.feed_audio(self.norms_audio[2](audio)))
        video = video + drop(self.feed_video(self.norms_video[2](video)))
        return audio, video


class BiModalEncoder(nn.Module):
    """Layers of BiModalEncoderLayer."""

    def __init__(self, widths: Widths, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BiModalEncoderLayer(widths) for _ in range(num_layers))

    def forward(
        self, audio: Tensor, video: Tensor, audio_mask: Tensor, video_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """audio: (B, Sa, A), video: (B, Sv, V), masks: bool (B, S), True where a row is real."""
        masks = audio_mask[:, None], video_mask[:, None]  # (B, 1, S)
        for layer in self.layers:
            audio, video = layer(audio, video, *masks)
        return audio, video


@dataclass(slots=True)
class DecoderMemory:
    """What decoding keeps of N captions between words.

    audio, video: keys and values of the encoded streams, by layer; their masks bool (N, 1, S).
    words: those of the words so far, by layer; empty before the first word. word_mask: bool
    (N, 1, L), False where a word so far is padding.
    """

    audio: list[KeysValues]
    video: list[KeysValues]
    audio_mask: Tensor
    video_mask: Tensor
    word_mask: Tensor
    words: list[KeysValues] = field(default_factory=list)

    @property
    def num_words(self) -> int:
        return self.word_mask.shape[-1]

    def select(self, rows: Tensor) -> "DecoderMemory":
        """That of the captions `rows`, int64 (M,), in this order; a row may come twice."""
        return DecoderMemory(
            [kept.of_rows(rows) for kept in self.audio],
            [kept.of_rows(rows) for kept in self.video],
            self.audio_mask[rows],
            self.video_mask[rows],
            self.word_mask[rows],
            [kept.of_rows(rows) for kept in self.words],
        )


class BiModalDecoderLayer(nn.Module):
    """Words (B, L, words) -> the same shape."""

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        w = widths.words
        self.self_attention = widths.attention(w, w)
        self.attend_audio = widths.attention(w, widths.audio)
        self.attend_video = widths.attention(w, widths.video)
        self.bridge_norm = nn.LayerNorm(2 * w)
        self.bridge = nn.Linear(2 * w, w)
        self.feed = widths.feed(w)
        self.norm_self, self.norm_audio = nn.LayerNorm(w), nn.LayerNorm(w)
        self.norm_video, self.norm_feed = nn.LayerNorm(w), nn.LayerNorm(w)
        self.dropout = nn.Dropout(widths.dropout)

    def forward(
        self, x: Tensor, words: KeysValues, mask: Tensor | None, number: int, memory: DecoderMemory
    ) -> Tensor:
        """words: keys and values of all words that mask lets x see; number: of this layer."""
        drop = self.dropout
        x = x + drop(self.self_attention.look(self.norm_self(x), words, mask))
        heard = self.attend_audio.look(self.norm_audio(x), memory.audio[number], memory.audio_mask)
        seen = self.attend_video.look(self.norm_video(x), memory.video[number], memory.video_mask)
        both = torch.cat([x + drop(heard), x + drop(seen)], dim=-1)  # (B, L, 2 words)
        x = F.relu(drop(self.bridge(self.bridge_norm(both))))
        fed: Tensor = x + drop(self.feed(self.norm_feed(x)))
        return fed


class BiModalDecoder(nn.Module):
    """Layers of BiModalDecoderLayer: a whole caption at once, or word by word."""

    def __init__(self, widths: Widths, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BiModalDecoderLayer(widths) for _ in range(num_layers))

    def _layers(self) -> list[BiModalDecoderLayer]:
        return cast(list[BiModalDecoderLayer], list(self.layers))

    def remember(
        self, audio: Tensor, video: Tensor, audio_mask: Tensor, video_mask: Tensor
    ) -> DecoderMemory:
        """What the decoder needs of the encoded streams (B, S, ...); masks: bool (B, S)."""
        layers = self._layers()
        return DecoderMemory(
            [layer.attend_audio.remember(audio) for layer in layers],
            [layer.attend_video.remember(video) for layer in layers],
            audio_mask[:, None],
            video_mask[:, None],
            audio_mask.new_empty(len(audio_mask), 1, 0),
        )

    def forward(self, x: Tensor, is_word: Tensor, memory: DecoderMemory) -> Tensor:
        """x: (B, L, words). is_word: bool (B, L), False where a word is padding."""
        mask = is_word[:, None] & earlier_words(x.shape[1], x.device)  # (B, L, L)
        for number, layer in enumerate(self._layers()):
            # Self attention is the one step whose keys are normalised too: they are the queries.
            words = layer.self_attention.remember(layer.norm_self(x))
            x = layer(x, words, mask, number, memory)
        return x

    def step(self, x: Tensor, is_word: Tensor, memory: DecoderMemory) -> Tensor:
        """x: (B, 1, words), the newest word, which memory takes in; is_word: bool (B, 1)."""
        memory.word_mask = torch.cat([memory.word_mask, is_word[:, None]], dim=-1)
        for number, layer in enumerate(self._layers()):
            newest = layer.self_attention.remember(layer.norm_self(x))
            if number < len(memory.words):
                memory.words[number] = memory.words[number].followed_by(newest)
            else:
                memory.words.append(newest)
            x = layer(x, memory.words[number], memory.word_mask, number, memory)
        return x
