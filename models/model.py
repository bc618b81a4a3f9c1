"""What every model is: a network of one paper, the features it wants, the layouts it reads."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from vlpipe.models.feature_slot import FeatureSlot
from vlpipe.stores import Features


class ModelConfig(BaseModel):
    """Base of the settings of a model: frozen, unknown names refused, round-trips through JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class PublishedResult:
    """A figure of a paper, to stand beside ours: metric name as the task reports it."""

    task: str
    dataset: str
    metric: str
    value: float
    source: str


class Model(nn.Module):
    """A network that solves tasks. Subclasses register with `@register(name)`.

    `forward` takes keyword tensors, named as in the paper's sheet, and returns a dict of named
    tensors: what the task's loss and decoding read (`logits`, `scores`, ...), and `attention` maps
    to look at. It takes no examples, strings or paths.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    """One line for listings: paper, year, what it does."""

    code: ClassVar[str] = ""
    """Where the authors' code is."""

    tasks: ClassVar[tuple[str, ...]]
    Config: ClassVar[type[ModelConfig]]
    slots: ClassVar[Mapping[str, FeatureSlot]] = MappingProxyType({})
    rows_may_be_none: ClassVar[bool] = False
    """Whether a video whose features are stored without rows (nobody in it) can be read."""

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Settings of the training (learning_rate, batch_size, epochs, ...) that the paper used."""

    task_defaults: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})
    """By task, settings of it that the paper used; what the user sets stands above them."""

    published_results: ClassVar[tuple[PublishedResult, ...]] = ()

    def __init__(self, config: ModelConfig, task: str) -> None:
        super().__init__()
        self.task = task

    @property
    def word_embedding(self) -> nn.Embedding | None:
        """Where word vectors of the task's vocabulary go; None if the model has no such layer."""
        return None

    @classmethod
    def slots_in_use(cls, config: ModelConfig) -> Mapping[str, FeatureSlot]:
        """The slots that a model of that configuration reads (default: all)."""
        del config
        return cls.slots

    @classmethod
    def settings_for(
        cls, config: ModelConfig, row_shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        """Settings that follow from the features: row_shapes is by slot, without the time axis."""
        del config, row_shapes
        return {}

    @classmethod
    def settings_from_sentences(
        cls, config: ModelConfig, words: Sequence[str], sentences: Iterable[Sequence[str]]
    ) -> dict[str, Any]:
        """Settings that follow from what is told of the training videos.

        words: the task's vocabulary, by id. sentences: their tokens, as `Task.sentences_of` says.
        """
        del config, words, sentences
        return {}

    @classmethod
    def prepare(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> dict[str, Tensor]:
        """The tensors of one video, by the keyword that `forward` takes them under.

        features: rows and spans by slot; an absent optional slot is not in it.
        window_s: the part of the video that the example is about; None: all of it.
        Default: float32 [T, *row_shape] under the slot's own name, the rows that overlap the
        window. Tensors of one name are stacked into a batch; those whose first axes differ are
        padded with zeros at the end, and NAME_length, int64 (B,), says how many are real.
        """
        del config
        prepared = {}
        for slot, values in features.items():
            rows = torch.from_numpy(values.rows).float()
            if window_s is not None:
                start_s, end_s = window_s
                inside = (values.spans[:, 1] > start_s) & (values.spans[:, 0] < end_s)
                rows = rows[torch.from_numpy(inside)]
            prepared[slot] = rows
        return prepared

    @classmethod
    def row_spans(
        cls,
        config: ModelConfig,
        features: Mapping[str, Features],
        window_s: tuple[float, float] | None = None,
    ) -> npt.NDArray[np.float64] | None:
        """[T, 2] seconds of the T rows that outputs named `..._attention` speak of, to show them
        on frames; None: the model has no such outputs."""
        del config, features, window_s
        return None

    def require_given_weights(self) -> None:
        """UsageError if a part that does not learn has not been given its weights; called when a
        training begins. Default: there is no such part."""

    def auxiliary_loss(
        self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]
    ) -> Tensor | None:
        """What training lowers besides the task's loss; None: nothing.

        outputs: of `forward`, in training. targets: the task's, of the same batch.
        """
        del outputs, targets
        return None

    @abstractmethod
    def load_published(self, state: Mapping[str, Tensor]) -> None:
        """Fills the network from a checkpoint in the layout of the authors' code.

        Sizes that belong to a checkpoint (vocabulary, answers) follow it. Entries that the
        layout has and the network computes are ignored. Raises UsageError naming missing,
        unexpected and misshapen entries.
        """

    def published_state(self) -> dict[str, Tensor] | None:
        """The weights in the authors' layout; None if this configuration cannot be written so."""
        return None

    @classmethod
    def own_entry(cls, key: str) -> str:
        """The entry here that an entry of a file given as `init_from` goes to; default: the same
        name. For parts that are published alone, such as a text encoder."""
        return key

    @classmethod
    def published_file_name(cls, task: str, value: float) -> str | None:
        """The authors' name of a checkpoint with that test figure; None: they have none."""
        del task, value
        return None
