"""TGIF-QA's own feature files: one HDF5 file per network and layer, a dataset per GIF.

A dataset is (frames, dimension) and its name is the `key` column of the question tables. Maps are
kept as vectors: res5c as 2048 x 7 x 7, conv5b as 512 x 2 x 7 x 7 of C3D, in C order.
"""

from vlpipe.stores.exchange.hdf5_videos import Hdf5Videos
from vlpipe.stores.exchange.layout import Layout, Slot


def _slot(name: str, file: str, feature: str, dimension: int) -> Slot:
    return Slot(name, (f"{file}:/{{key}}",), (feature,), (dimension,), ("channel",), is_flat=True)


LAYOUTS = (
    Layout(
        "tgif-qa",
        "TGIF-QA's own files: ResNet, C3D and ResNet of optical flow, a dataset per GIF",
        "YunseokJANG/tgif-qa",
        Hdf5Videos(),
        (
            _slot("resnet_pool5", "TGIF_RESNET_pool5.hdf5", "resnet152", 2048),
            _slot("resnet_res5c", "TGIF_RESNET_res5c.hdf5", "resnet152_res5c", 2048 * 7 * 7),
            _slot("c3d_fc6", "TGIF_C3D_fc6.hdf5", "c3d_fc6", 4096),
            _slot("c3d_conv5b", "TGIF_C3D_conv5b.hdf5", "c3d_conv5b", 512 * 2 * 7 * 7),
            _slot("resof_pool5", "TGIF_ResOF_pool5.hdf5", "resnet152_flow", 2048),
            _slot("resof_res5c", "TGIF_ResOF_res5c.hdf5", "resnet152_flow_res5c", 2048 * 7 * 7),
        ),
    ),
)
