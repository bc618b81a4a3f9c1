"""BMT (dense captioning, v-iashin/BMT): `.npy` files per video, in a folder for I3D and one for
VGGish.

Rows of I3D follow each other by 64 frames at 25 a second, those of VGGish by 0.96 s. The tool for
single videos calls the third file `NAME_vggish.npy`: that is read as well. Videos without sound
have no file, and that code then takes one row of zeros.
"""

from fractions import Fraction

from vlpipe.stores.exchange.layout import Layout, Slot
from vlpipe.stores.exchange.npy_folder import NpyFolder

_I3D_FOLDER = "i3d_25fps_stack64step64_2stream_npy"
_I3D_RATE = Fraction(25, 64)
_VGGISH_RATE = Fraction(100, 96)

LAYOUTS = (
    Layout(
        "bmt",
        "BMT's folders: NAME_rgb.npy, NAME_flow.npy, and NAME.npy or NAME_vggish.npy",
        "v-iashin/BMT",
        NpyFolder(),
        (
            Slot(
                "rgb",
                (f"{_I3D_FOLDER}/{{key}}_rgb.npy", "{key}_rgb.npy"),
                ("i3d_rgb",),
                (1024,),
                ("channel",),
                rows_per_s=_I3D_RATE,
            ),
            Slot(
                "flow",
                (f"{_I3D_FOLDER}/{{key}}_flow.npy", "{key}_flow.npy"),
                ("i3d_flow",),
                (1024,),
                ("channel",),
                rows_per_s=_I3D_RATE,
                rows_as="rgb",
            ),
            Slot(
                "vggish",
                ("vggish_npy/{key}.npy", "{key}_vggish.npy", "{key}.npy"),
                ("vggish",),
                (128,),
                ("channel",),
                rows_per_s=_VGGISH_RATE,
            ),
        ),
    ),
)
