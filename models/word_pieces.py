"""Word pieces of BERT, from the file of them that is published beside its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vlpipe.stores.errors import EnvironmentLacks, UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def read_word_pieces(path: Path) -> tuple[str, ...]:
    """BERT's vocab.txt, a piece a line; UsageError if it lacks one of the special four."""
    try:
        pieces = tuple(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the vocabulary {path} cannot be read: {error}") from error
    missing = [piece for piece in (PADDING, UNKNOWN, START, END) if piece not in pieces]
    if missing:
        raise UsageError(
            f"{path} is no vocabulary of BERT: {', '.join(missing)} is not in it",
            hint="the file vocab.txt that is published beside BERT's weights",
        )
    return pieces


def word_piece_tokenizer(ids: Mapping[str, int]) -> "Tokenizer":
    """Cuts texts, in lower case, into pieces of these ids; EnvironmentLacks without tokenizers."""
    try:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    except ImportError as error:
        raise EnvironmentLacks(
            "word pieces need the package tokenizers", hint='pip install "vlpipe[bert]"'
        ) from error
    tokenizer = Tokenizer(models.WordPiece(dict(ids), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
