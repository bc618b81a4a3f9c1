"""Names in checkpoints of BERT alone, as its publishers give them."""

import re

_ENTRY = re.compile(r"bert\..*|(embeddings|encoder\.layer|pooler)\..*")


def bert_entry(key: str) -> str | None:
    """Where an entry of BERT, with or without `bert.` in front, goes in a network that has BERT as
    its `encoder`; None of other entries. LayerNorm's old names (gamma, beta) become its new ones.
    """
    if not _ENTRY.match(key):
        return None
    key = f"encoder.bert.{key.removeprefix('bert.')}"
    return key.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )
