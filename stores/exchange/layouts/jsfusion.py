"""JSFusion (ECCV 2018, yj-yu/lsmdc): ResNet-152 and VGGish joined to 2176 numbers a frame.

That code reads a dataset per clip, of any number of frames, and pads in front to 40 itself. The
padded form is one array (N, 40, 2176) for those who want it ready, with `/ids` and `/lengths`; of
longer clips it has the rows floor(i T / 40). A row of VGGish is repeated for the frames that it
covers; without sound there are zeros (both are choices: the paper is silent).
"""

from vlpipe.stores.exchange.hdf5_padded import Hdf5Padded
from vlpipe.stores.exchange.hdf5_videos import Hdf5Videos
from vlpipe.stores.exchange.layout import Layout, Slot

_ORIGIN = "yj-yu/lsmdc"
_FILE = "RESNET_pool5wav.hdf5"
_JOINED = ("resnet152", "vggish")

LAYOUTS = (
    Layout(
        "jsfusion",
        "JSFusion's file of LSMDC: frames and sound joined, a dataset per clip",
        _ORIGIN,
        Hdf5Videos(),
        (Slot("frames", (f"{_FILE}:/{{key}}",), _JOINED, (2176,), ("channel",)),),
    ),
    Layout(
        "jsfusion-padded",
        "the same as one array (N, 40, 2176), padded in front, with ids and lengths",
        _ORIGIN,
        Hdf5Padded(),
        (
            Slot(
                "frames",
                ("RESNET_pool5wav_padded.hdf5:/features",),
                _JOINED,
                (2176,),
                ("channel",),
                pad_rows=40,
                pad_side="left",
                surplus="even",
            ),
        ),
    ),
)
