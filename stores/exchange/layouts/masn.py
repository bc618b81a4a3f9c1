"""MASN (arXiv 2106.10446): four HDF5 files of TGIF-QA, MSVD-QA or MSRVTT-QA.

One dataset per video, named by the `key` column of TGIF-QA's tables, `vid` or `video` and a number
for the other two. Row t of all of them describes the same clip. The folder and the file of local
motion are those that ahjeongseo/MASN-pytorch opens. A video that is in one of the files only gets
one row of zeros from that code.
"""

from vlpipe.stores.exchange.hdf5_videos import Hdf5Videos
from vlpipe.stores.exchange.layout import Layout, Slot

_ORIGIN = "ahjeongseo/MASN-pytorch"


def _slots(appearance: str, regions: str, motion: str, *region_motion: str) -> tuple[Slot, ...]:
    """region_motion: as the code opens it, then other names under which it is found."""
    return (
        Slot("appearance", (f"{appearance}:/{{key}}",), ("resnet152",), (2048,), ("channel",)),
        Slot(
            "regions",
            (f"{regions}:/image_features/{{key}}",),
            ("objects",),
            (10, 2048),
            ("object", "channel"),
            rows_as="appearance",
        ),
        Slot(
            "spatial",
            (f"{regions}:/spatial_features/{{key}}",),
            ("objects_spatial",),
            (10, 6),
            ("object", "coordinate"),
            rows_as="appearance",
        ),
        Slot(
            "motion",
            (f"{motion}:/{{key}}",),
            ("i3d_resnet50",),
            (2048,),
            ("channel",),
            rows_as="appearance",
        ),
        Slot(
            "region_motion",
            tuple(f"{name}:/{{key}}" for name in region_motion),
            ("objects_motion",),
            (10, 2048),
            ("object", "channel"),
            rows_as="appearance",
        ),
    )


LAYOUTS = (
    Layout(
        "masn",
        "MASN's files of TGIF-QA: appearance and motion of frames and of 10 objects",
        _ORIGIN,
        Hdf5Videos(),
        _slots(
            "res152_avgpool.hdf5",
            "tgif_btup_f_obj10.hdf5",
            "tgif_i3d_hw7_perclip_avgpool.hdf5",
            "tgif_i3d_roialign_hw7_perclip_avgpool_obj10.hdf5",
            "tgif_i3d_roialign_hw7_perclip_avgpool.hdf5",  # of the download
        ),
    ),
    Layout(
        "masn-msvd",
        "the same of MSVD-QA; keys are vid and a number",
        _ORIGIN,
        Hdf5Videos(),
        _slots(
            "msvd_res152_avgpool.hdf5",
            "msvd_btup_f_obj10.hdf5",
            "msvd_i3d_avgpool_perclip.hdf5",
            "msvd_i3d_roialign_perclip_obj10.hdf5",
        ),
    ),
    Layout(
        "masn-msrvtt",
        "the same of MSRVTT-QA; keys are video and a number",
        _ORIGIN,
        Hdf5Videos(),
        _slots(
            "msrvtt_res152_avgpool.hdf5",
            "msrvtt_btup_f_obj10.hdf5",
            "msrvtt_i3d_avgpool_perclip.hdf5",
            "msrvtt_i3d_roialign_perclip_obj10.hdf5",
        ),
    ),
)
