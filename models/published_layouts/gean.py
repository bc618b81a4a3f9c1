"""Names of the gaze network's entries: flat ones after its formulas, and those of the TensorFlow
variables of yj-yu/Recurrent_Gaze_Prediction."""

import re
from collections.abc import Mapping

from torch import Tensor

from vlpipe.stores.errors import UsageError

# A scope or variable that was made again gets a number behind its name.
_NUMBER = r"(?:_\d+)?"
_SCOPE = rf"(?:RGP{_NUMBER}/)?"
_CELL = rf"{_SCOPE}(?:RCNBottom{_NUMBER}/)?"
_UP = rf"{_SCOPE}(?:Upsampling{_NUMBER}/)?"
_END = rf"{_NUMBER}(?::0)?"

# TensorFlow names -> flat names.
_NAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(f"{theirs}{_END}"), flat)
    for theirs, flat in (
        (rf"{_SCOPE}proj_c3d_W", "proj.weight"),
        (rf"{_SCOPE}proj_c3d_b", "proj.bias"),
        (rf"{_CELL}GRU_Conv_Wz", "rcn.w_z.weight"),
        (rf"{_CELL}GRU_Conv_Uz", "rcn.u_z.weight"),
        (rf"{_CELL}GRU_Conv_Wr", "rcn.w_r.weight"),
        (rf"{_CELL}GRU_Conv_Ur", "rcn.u_r.weight"),
        (rf"{_CELL}GRU_Conv_W", "rcn.w_h.weight"),
        (rf"{_CELL}GRU_Conv_U", "rcn.u_h.weight"),
        (rf"{_UP}weight1", "deconv1.weight"),
        (rf"{_UP}weight2", "deconv2.weight"),
        (rf"{_UP}weight3", "deconv3.weight"),
        (rf"{_SCOPE}out_W", "out.weight"),
        (rf"{_SCOPE}out_b", "out.bias"),
    )
)
# One norm for each time step, in training with the statistics of the batch, which the formulas
# have not.
_NOT_READ = re.compile(r"(?:.*/)?batch_normalization\w*(?:/.*)?")


def from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same entries by flat names, in PyTorch's order of axes; unknown ones keep their names.

    Convolutions [kernel, kernel, in, out] and transposed ones [kernel, kernel, out, in] have their
    axes moved to the front in reverse, which is what PyTorch takes of either; matrices are
    transposed. Entries of `batch_normalization` are left out. UsageError for two entries that are
    the same one with another number.
    """
    found: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for key, value in state.items():
        if _NOT_READ.fullmatch(key):
            continue
        known = next((flat for theirs, flat in _NAMES if theirs.fullmatch(key)), None)
        name = key if known is None else known
        if name in found:
            raise UsageError(
                f"the checkpoint holds {name} twice, as {origins[name]} and {key}",
                hint="keep the entries of one network; a scope that was made again has a number",
            )
        found[name], origins[name] = value if known is None else _turned(value), key
    return found


def is_tensorflow(state: Mapping[str, Tensor]) -> bool:
    """Whether entries have the names of TensorFlow variables."""
    return any(theirs.fullmatch(key) for key in state for theirs, _ in _NAMES)


def _turned(value: Tensor) -> Tensor:
    if value.ndim == 2:
        return value.T.contiguous()
    return value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
