"""Objects of frames, as bottom-up attention and MASN's converter exchange them.

Rows are frames, (T, boxes, ...): frames with fewer boxes end with zeros, and `num_boxes` says how
many are real. Boxes are corners x0, y0, x1, y1 in pixels; the six spatial numbers are corners,
width and height as shares of the picture.
"""

from vlpipe.stores.exchange.box_lines import BoxLines
from vlpipe.stores.exchange.hdf5_boxes import NUM_BOXES, Hdf5Boxes
from vlpipe.stores.exchange.layout import ANY, Layout, Slot

_FLAT_FILE = "boxes.hdf5"
_FEATURES = ("object", "channel")
_BOXES = ("object", "coordinate")


def _flat(name: str, array: str, feature: str, width: int, axes: tuple[str, str]) -> Slot:
    return Slot(name, (f"{_FLAT_FILE}:/{array}",), (feature,), (ANY, width), axes)


LAYOUTS = (
    Layout(
        "flat-boxes",
        "boxes of all frames one after the other in HDF5, with pos_boxes",
        "ahjeongseo/MASN-pytorch, converter",
        Hdf5Boxes(),
        (
            Slot(
                NUM_BOXES,
                (f"{_FLAT_FILE}:/pos_boxes",),
                ("objects_num_boxes",),
                (1,),
                ("count",),
                dtype="int32",
            ),
            _flat("image_features", "image_features", "objects", ANY, _FEATURES),
            _flat("image_bb", "image_bb", "objects_boxes", 4, _BOXES),
            _flat("spatial_features", "spatial_features", "objects_spatial", 6, _BOXES),
        ),
    ),
    Layout(
        "bottom-up-tsv",
        "tab-separated lines of bottom-up attention, a line per frame (import only)",
        "peteanderson80/bottom-up-attention",
        BoxLines(),
        (
            Slot("features", ("features",), ("objects",), (ANY, ANY), _FEATURES),
            Slot("boxes", ("boxes",), ("objects_boxes",), (ANY, 4), _BOXES),
            Slot("spatial", ("spatial",), ("objects_spatial",), (ANY, 6), _BOXES),
            Slot(NUM_BOXES, ("num_boxes",), ("objects_num_boxes",), (1,), ("count",)),
        ),
    ),
)
