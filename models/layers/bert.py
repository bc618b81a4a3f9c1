"""BERT as transformers builds it, from a configuration alone: nothing is looked for or fetched."""

from typing import TYPE_CHECKING, Literal, cast

from torch import Tensor, nn

from vlpipe.stores.errors import EnvironmentLacks

if TYPE_CHECKING:
    from collections.abc import Mapping

BertSize = Literal["base", "small"]
"""BERT-base (768 wide, 12 layers), or one that learns from scratch on little text (256, 4)."""

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
