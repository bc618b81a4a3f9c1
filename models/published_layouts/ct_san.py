"""Names of CT-SAN's entries in the public code (TensorFlow 1): two networks, for two tasks.

Names may carry the suffix of a repeated variable (`input_w_1`), and kernels be called weights.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from vlpipe.models.published_layouts.tensorflow_cells import lstm_entries

# TensorFlow scopes of LSTM cells -> name and direction here.
_CELLS: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(theirs), ours, ending)
    for theirs, ours, ending in (
        (r"video_rnn/(?:.*/)?", "video_rnn", "_l0"),
        (r"attr_rnn/(?:.*/)?", "concept.trace_rnn", "_l0"),
        (r"caption_rnn/(?:.*/)?", "caption_rnn", "_l0"),
        (r"fib_rnn/bidirectional_rnn/fw/(?:.*/)?", "text_rnn", "_l0"),
        (r"fib_rnn/bidirectional_rnn/bw/(?:.*/)?", "text_rnn", "_l0_reverse"),
    )
)
_CELL = re.compile(r"(.*?)basic_lstm_cell/(kernel|weights|bias|biases)")

_NAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"word_embed", "word_embed.weight"),
        (r"attr_video_embedding/(?:kernel|weights)", "concept.video_conv.weight"),
        (r"attr_rnn/conv(\d)/(?:kernel|weights)", r"concept.att_conv\1.weight"),
        (r"attr_rnn/conv(\d)/bias(?:es)?", r"concept.att_conv\1.bias"),
        (r"attr_logit/K", "concept.out.weight"),
        (r"(?:caption_rnn|attended_input)/input_W", "att_in.weight"),
        (r"(?:caption_rnn|attended_input)/input_b", "att_in.bias"),
        (r"(?:caption_rnn|attended_input)/input_w", "att_in.gate.weight"),
        (r"(?:caption_rnn|attended_output)/output_W", "att_out.weight"),
        (r"(?:caption_rnn|attended_output)/output_b", "att_out.bias"),
        (r"(?:caption_rnn|attended_output)/output_w", "att_out.gate.weight"),
        (r"affine/weights", "affine.weight"),
        (r"affine/biases", "affine.bias"),
        (r"BatchNorm/gamma", "out_bn.weight"),
        (r"BatchNorm/beta", "out_bn.bias"),
        (r"BatchNorm/moving_mean", "out_bn.running_mean"),
        (r"BatchNorm/moving_variance", "out_bn.running_var"),
        (r"(?:caption_rnn|attended_output)/weights", "word_out.weight"),
        (r"(?:caption_rnn|attended_output)/biases", "word_out.bias"),
    )
)
_TRANSPOSED = frozenset(("affine.weight", "word_out.weight"))


def from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same entries by the names here, in PyTorch's order of axes; unknown ones keep theirs."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        cell = _CELL.fullmatch(key)
        owner = None if cell is None else _owner(cell[1])
        if cell is not None and owner is not None:
            entries = lstm_entries(value, cell[2], owner[1])
            found |= {f"{owner[0]}.{name}": entry for name, entry in entries.items()}
            continue
        name = _name(key)
        found[name or key] = _turned(value, name) if name else value
    return found


def _owner(scope: str) -> tuple[str, str] | None:
    return next((found[1:] for found in _CELLS if found[0].fullmatch(scope)), None)


def _name(key: str) -> str | None:
    for candidate in (key, re.sub(r"_\d+$", "", key)):
        for theirs, ours in _NAMES:
            if theirs.fullmatch(candidate):
                return theirs.sub(ours, candidate)
    return None


def _turned(value: Tensor, name: str) -> Tensor:
    if name == "concept.out.weight":  # (h, w, D, N): cell after cell
        return value.reshape(-1, value.shape[-1]).T.contiguous()
    if name in _TRANSPOSED:
        return value.T.contiguous()
    if name.endswith("gate.weight"):  # (1, width)
        return value.reshape(-1)
    return value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
