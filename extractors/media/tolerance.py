"""The two settings of decoding that are words."""

from typing import Literal

Tolerance = Literal["strict", "lenient"]
DecoderChoice = Literal["auto", "pyav", "decord"]
