"""MDVC (v-iashin/MDVC): an HDF5 file for I3D and one for VGGish, a group per video.

I3D over stacks of 24 frames at 25 a second, 0.96 s like a row of VGGish, so that the rows of both
align one to one. That code cuts the longer to the shorter.
"""

from fractions import Fraction

from vlpipe.stores.exchange.hdf5_videos import Hdf5Videos
from vlpipe.stores.exchange.layout import Layout, Slot

_I3D_FILE = "sub_activitynet_v1-3.i3d_25fps_stack24step24_2stream.hdf5"
_VGGISH_FILE = "sub_activitynet_v1-3.vggish.hdf5"
_RATE = Fraction(25, 24)

LAYOUTS = (
    Layout(
        "mdvc",
        "MDVC's files: NAME/i3d_features/rgb and /flow, and NAME/vggish_features",
        "v-iashin/MDVC",
        Hdf5Videos(),
        (
            Slot(
                "rgb",
                (f"{_I3D_FILE}:/{{key}}/i3d_features/rgb",),
                ("i3d_rgb",),
                (1024,),
                ("channel",),
                rows_per_s=_RATE,
            ),
            Slot(
                "flow",
                (f"{_I3D_FILE}:/{{key}}/i3d_features/flow",),
                ("i3d_flow",),
                (1024,),
                ("channel",),
                rows_per_s=_RATE,
                rows_as="rgb",
            ),
            Slot(
                "vggish",
                (f"{_VGGISH_FILE}:/{{key}}/vggish_features",),
                ("vggish",),
                (128,),
                ("channel",),
                rows_per_s=_RATE,
            ),
        ),
    ),
)
