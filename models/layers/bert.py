"""BERT as transformers builds it, from a configuration alone: nothing is looked for or fetched."""

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from vlpipe.stores.errors import EnvironmentLacks, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

BertSize = Literal["base", "small"]
"""BERT-base (768 wide, 12 layers), or one that learns from scratch on little text (256, 4), of the
size that is published as BERT-Mini."""

WIDTHS: "Mapping[BertSize, int]" = {"base": 768, "small": 256}
_LAYERS: "Mapping[BertSize, int]" = {"base": 12, "small": 4}


class Bert(nn.Module):
    """Ids of word pieces (B, L), mask (B, L) -> (B, L, D), with random weights at first.

    Entries are named as in BERT's published checkpoints, below `bert.`; segments are all 0.
    Raises EnvironmentLacks without transformers.
    """

    def __init__(self, size: BertSize, vocabulary_size: int, dropout: float) -> None:
        super().__init__()
        try:
            from transformers import BertConfig, BertModel
        except ImportError as error:
            raise EnvironmentLacks(
                "BERT needs the package transformers", hint='pip install "vlpipe[bert]"'
            ) from error
        width = WIDTHS[size]
        config = BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=width,
            num_hidden_layers=_LAYERS[size],
            num_attention_heads=width // 64,
            intermediate_size=4 * width,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        self.bert = BertModel(config)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        outputs = self.bert(input_ids=ids, attention_mask=mask.long())
        return cast(Tensor, outputs.last_hidden_state)


class FrozenBert(Bert):
    """BERT as a reader that does not learn: (B, L) ids and mask -> (B, L, D), without gradients.

    Raises UsageError when it is to read before any weights were given to it: what it says would
    mean nothing, and nothing would ever change that. at_once: sequences that are read together.
    """

    is_filled: Tensor

    def __init__(self, size: BertSize, vocabulary_size: int, *, at_once: int = 256) -> None:
        super().__init__(size, vocabulary_size, 0.0)
        self.at_once = at_once
        self.register_buffer("is_filled", torch.tensor(False))
        self.requires_grad_(False)

    def require_weights(self) -> None:
        """UsageError while no weights were given."""
        if not self.is_filled:
            raise UsageError(
                "BERT has no weights yet, and does not learn here",
                hint="--set init_from=bert.safetensors --set task.vocabulary=vocab.txt",
            )

    @torch.no_grad()
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.require_weights()
        parts = zip(*(torch.split(x, self.at_once) for x in (ids, mask)), strict=True)
        return torch.cat([super(FrozenBert, self).forward(*part) for part in parts])

    def _load_from_state_dict(
        self,
        state_dict: "Mapping[str, Tensor]",
        prefix: str,
        *rest: Any,  # noqa: ANN401 - torch's own
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        # A checkpoint of BERT says nothing of that, one of ours does. Nothing reads the pooler.
        wanted = (key for key in self.bert.state_dict() if not key.startswith("pooler."))
        if f"{prefix}is_filled" not in state_dict and all(
            f"{prefix}bert.{key}" in state_dict for key in wanted
        ):
            self.is_filled.fill_(True)
