"""Names of JSFusion's entries: flat ones after its formulas, and yj-yu/lsmdc's (TensorFlow 1).

Flat: `word_embed`, `video_rnn`, `text_rnn`, dense layers `d1v` ... `d8` with their norms `d1v_bn`
..., `att`, `conv1`, `gate1` ...; the public variants add `video_conv1` ... .
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vlpipe.models.published_layouts.tensorflow_cells import lstm_entries

# Names here -> flat names, the first that fits.
_FLAT: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(ours), flat)
    for ours, flat in (
        (r"(?:fusion\.tensor\.)?(att|d\d[vw]?)\.linear\.(\w+)", r"\1.\2"),
        (r"(?:fusion\.tensor\.)?(att|d\d[vw]?)\.norm\.(\w+)", r"\1_bn.\2"),
        (r"fusion\.stage(\d)\.(conv|gate)\.(\w+)", r"\2\1.\3"),
        (r"video_convs\.video_conv(\d)\.conv\.(\w+)", r"video_conv\1.\2"),
        (r"video_convs\.video_conv(\d)\.norm\.(\w+)", r"video_conv\1_bn.\2"),
    )
)

# TensorFlow scopes -> flat names of layers.
_SCOPES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(theirs), flat)
    for theirs, flat in (
        (r"video_(?:cnn|rnn)/conv(\d)", r"video_conv\1"),
        (r"vid_rnn_fc|vid_fc", "d1v"),
        (r"cap_rnn/cap_rnn_fc|cap_fc", "d1w"),
        (r"multimodal/rel_h1|after_fusion/fc1", "d2"),
        (r"multimodal/rel_halp|after_fusion/fcalp", "att"),
        (r"multimodal/rel_h2|after_fusion/fc2", "d3"),
        (r"multimodal/rel_h3|after_fusion/fc3", "d4"),
        (r"(?:multimodal|after_fusion)/conv(\d)", r"conv\1"),
        (r"multimodal/conv(\d)alp", r"gate\1"),
        (r"(?:multimodal|after_sum)/fc1", "d5"),
        (r"(?:multimodal|after_sum)/fc2", "d6"),
        (r"(?:multimodal|after_sum)/fc3", "d7"),
        (r"multimodal/scorefn|rnn_output", "d8"),
    )
)
_ENDS = {
    "weights": ".weight",
    "biases": ".bias",
    "BatchNorm/beta": "_bn.bias",
    "BatchNorm/gamma": "_bn.weight",
    "BatchNorm/moving_mean": "_bn.running_mean",
    "BatchNorm/moving_variance": "_bn.running_var",
}
_LSTM = re.compile(r"cap_rnn/bidirectional_rnn/(fw|bw)/.*basic_lstm_cell/(kernel|weights|bias\w*)")


def flat_key(key: str) -> str:
    """The flat name of the entry `key` of our network."""
    for ours, flat in _FLAT:
        if ours.fullmatch(key):
            return ours.sub(flat, key)
    return key


def from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same entries by flat names, in PyTorch's order of axes; unknown ones keep their names.

    Convolutions [kernel, 1 or kernel, in, out] -> [out, in, ...]; dense weights are transposed; the
    gates of the LSTMs i, g, f, o -> i, f, g, o, with the 1 that TensorFlow adds to the forget gate.
    """
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        lstm = _LSTM.fullmatch(key)
        if key == "word_embed":
            found["word_embed.weight"] = value
        elif lstm is not None:
            ending = "_l0_reverse" if lstm[1] == "bw" else "_l0"
            entries = lstm_entries(value, lstm[2], ending)
            found |= {f"text_rnn.{name}": entry for name, entry in entries.items()}
        else:
            name = _flat_of_tensorflow(key)
            found[name or key] = _turned(value, name) if name else value
    return found


def with_defaults(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with what layouts leave out of `own`: scales of norms are 1, biases 0."""
    completed = dict(state)
    for key, value in own.items():
        if key in state:
            continue
        if key.endswith("_bn.weight"):
            completed[key] = torch.ones_like(value)
        elif key.endswith((".bias", ".num_batches_tracked")):
            completed[key] = torch.zeros_like(value)
    return completed


def _flat_of_tensorflow(key: str) -> str | None:
    for end, flat_end in _ENDS.items():
        scope = key.removesuffix(f"/{end}")
        if scope == key:
            continue
        for theirs, flat in _SCOPES:
            if theirs.fullmatch(scope):
                return theirs.sub(flat, scope) + flat_end
    return None


def _turned(value: Tensor, name: str) -> Tensor:
    if value.ndim == 2:
        return value.T.contiguous()
    if value.ndim != 4:
        return value
    kernel = value.permute(3, 2, 0, 1).contiguous()  # (out, in, rows, columns)
    # Of frames alone the second axis has one place.
    return kernel.squeeze(3) if kernel.shape[3] == 1 else kernel
