"""Encoder and decoder of "Attention Is All You Need" with the norm in front, for one stream (MDVC).

Each step is x + dropout(step(norm(x))); what is looked at is not normalised, nothing is normalised
behind the last layer, and only these branches and the positions have dropout.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from vlpipe.models.layers.multihead_attention import (
    FeedForward,
    KeysValues,
    MultiHeadAttention,
    earlier_words,
)


class EncoderLayer(nn.Module):
    """Rows (B, S, width), mask bool (B, 1, S); the same shape."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, width, width, heads)
        self.feed = FeedForward(width, inner)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        asking = self.norms[0](x)
        x = x + self.dropout(self.attention(asking, asking, mask))
        fed: Tensor = x + self.dropout(self.feed(self.norms[1](x)))
        return fed


class Encoder(nn.Module):
    """Layers of EncoderLayer."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, inner, dropout) for _ in range(num_layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (B, S, width). mask: bool (B, S), True where a row is real."""
        for layer in self.layers:
            x = layer(x, mask[:, None])
        return x


@dataclass(slots=True)
class StreamMemory:
    """What the decoder of one stream keeps of N captions between words: keys and values of the
    stream and of the words so far, by layer; mask bool (N, 1, S)."""

    stream: list[KeysValues]
    mask: Tensor
    words: list[KeysValues] = field(default_factory=list)

    def select(self, rows: Tensor) -> "StreamMemory":
        """That of the captions `rows`, int64 (M,); a row may come twice."""
        return StreamMemory(
            [kept.of_rows(rows) for kept in self.stream],
            self.mask[rows],
            [kept.of_rows(rows) for kept in self.words],
        )


class DecoderLayer(nn.Module):
    """Words (N, L, width) -> the same shape."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(width, width, width, heads)
        self.stream_attention = MultiHeadAttention(width, width, width, heads)
        self.feed = FeedForward(width, inner)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def newest(self, x: Tensor) -> KeysValues:
        """Keys and values of words."""
        return self.self_attention.remember(self.norms[0](x))

    def forward(
        self, x: Tensor, words: KeysValues, mask: Tensor, stream: KeysValues, stream_mask: Tensor
    ) -> Tensor:
        x = x + self.dropout(self.self_attention.look(self.norms[0](x), words, mask))
        x = x + self.dropout(self.stream_attention.look(self.norms[1](x), stream, stream_mask))
        fed: Tensor = x + self.dropout(self.feed(self.norms[2](x)))
        return fed


class Decoder(nn.Module):
    """Layers of DecoderLayer: a whole caption at once, or word by word."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, inner, dropout) for _ in range(num_layers)
        )

    def remember(self, stream: Tensor, mask: Tensor) -> StreamMemory:
        """stream: (N, S, width), encoded. mask: bool (N, S)."""
        kept = [layer.stream_attention.remember(stream) for layer in self._layers()]
        return StreamMemory(kept, mask[:, None])

    def forward(self, x: Tensor, is_word: Tensor, memory: StreamMemory) -> Tensor:
        """x: (N, L, width). is_word: bool (N, L), False where a word is padding."""
        mask = is_word[:, None] & earlier_words(x.shape[1], x.device)  # (N, L, L)
        for layer, stream in zip(self._layers(), memory.stream, strict=True):
            x = layer(x, layer.newest(x), mask, stream, memory.mask)
        return x

    def step(self, x: Tensor, word_mask: Tensor, memory: StreamMemory) -> Tensor:
        """x: (N, 1, width), the newest word, which memory takes in. word_mask: bool (N, 1, L) of
        all words so far."""
        for number, (layer, stream) in enumerate(zip(self._layers(), memory.stream, strict=True)):
            newest = layer.newest(x)
            if number < len(memory.words):
                memory.words[number] = memory.words[number].followed_by(newest)
            else:
                memory.words.append(newest)
            x = layer(x, memory.words[number], word_mask, stream, memory.mask)
        return x

    def _layers(self) -> list[DecoderLayer]:
        return cast(list[DecoderLayer], list(self.layers))


@dataclass(slots=True)
class CaptionMemory:
    """The memories of all streams by name; word_mask: bool (N, 1, L), False where a word so far is
    padding."""

    streams: dict[str, StreamMemory]
    word_mask: Tensor

    @property
    def num_words(self) -> int:
        return self.word_mask.shape[-1]

    def take_in(self, is_word: Tensor) -> None:
        """is_word: bool (N,), of the newest words."""
        self.word_mask = torch.cat([self.word_mask, is_word[:, None, None]], dim=-1)

    def select(self, rows: Tensor) -> "CaptionMemory":
        """That of the captions `rows`, int64 (M,); a row may come twice."""
        streams = {name: memory.select(rows) for name, memory in self.streams.items()}
        return CaptionMemory(streams, self.word_mask[rows])
