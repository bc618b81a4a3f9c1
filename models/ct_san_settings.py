"""The settings of CT-SAN: sizes, and what the tables of its thesis leave out."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from vlpipe.models.layers.concept_detector import Detector
from vlpipe.models.model import ModelConfig


class CtSanConfig(ModelConfig):
    """Sizes, and the ablations of the thesis's tables.

    vocabulary_size, num_answers, blank_id: given by the task; num_answers for blanks alone.
    channels, grid: of the maps, given by the features; a row without cells is a map of one.
    variant: `thesis`, or `public` for the code: frames as the mean of the maps, LSTMs of one layer
        without norms, words as wide as the LSTM, a norm before the answers.
    detector: see `layers/concept_detector.py`. The public one made the code's checkpoints.
    concepts: K; 0 for Base-SAN, without detector and attention.
    num_concept_words: N, the most frequent ones. concept_list: a file with a word a line, for which
        words these are, in the place of those that `models/concept_words.py` chooses.
    concept_ids: which words of the vocabulary these are, found in the training sentences; empty:
        the first N behind the two special ones.
    input_attention, output_attention: each alone (4.9, 4.11).
    layers, layer_norm: None: those of the variant.
    penalty: of the attention (4.15). concept_weight: of the detector's loss (4.6).
    train_words: the code keeps word vectors as they are given.
    pooled_width, maxout_width, normalise_pooled: of compact bilinear pooling, for retrieval.
    normalise_inputs: cells are centred and scaled by the statistics of the training frames, as
        features of untrained networks need.
    """

    vocabulary_size: PositiveInt = 12489
    num_answers: PositiveInt = 12489
    blank_id: int = Field(default=1, ge=0)
    channels: PositiveInt = 2048
    grid: tuple[PositiveInt, PositiveInt] = (7, 7)
    max_frames: PositiveInt = 40
    word_width: PositiveInt = 300
    hidden: PositiveInt = 500
    variant: Literal["thesis", "public"] = "thesis"
    detector: Detector = "public"
    concepts: NonNegativeInt = 10
    num_concept_words: PositiveInt = 2000
    concept_list: Path | None = None
    concept_ids: tuple[NonNegativeInt, ...] = ()
    input_attention: bool = True
    output_attention: bool = True
    layers: PositiveInt | None = None
    layer_norm: bool | None = None
    dropout: float = Field(default=0.2, ge=0, lt=1)
    penalty: NonNegativeFloat = 0.01
    concept_weight: NonNegativeFloat = 1.0
    train_words: bool = True
    pooled_width: PositiveInt = 8000
    maxout_width: PositiveInt = 1500
    normalise_pooled: bool = True
    normalise_inputs: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.variant == "public" and self.word_width != self.hidden:
            raise ValueError(
                f"variant public has words as wide as its LSTM: word_width is {self.word_width}, "
                f"hidden {self.hidden}"
            )
        if self.concept_ids and max(self.concept_ids) >= self.vocabulary_size:
            raise ValueError(
                f"concept_ids names word {max(self.concept_ids)} of {self.vocabulary_size}"
            )
        return self

    @property
    def known_concepts(self) -> tuple[int, ...]:
        """The ids of the N words, none for Base-SAN."""
        if not self.concepts:
            return ()
        last = min(2 + self.num_concept_words, self.vocabulary_size)
        return self.concept_ids or tuple(range(min(2, last - 1), last))
