"""Features that a slot takes and refuses, by the shape of a row."""

import pytest

from vlpipe.models import create_model, find_model
from vlpipe.models.feature_slot import FeatureSlot, require_fitting_rows
from vlpipe.stores.errors import UsageError

SLOTS = {
    "global": FeatureSlot("resnet152", "a row or a map", row_shapes=("A", "A height width")),
    "local": FeatureSlot("objects", "objects in each row", row_shapes=("objects A",)),
    "boxes": FeatureSlot("objects_spatial", "boxes", row_shapes=("objects 6",)),
    "count": FeatureSlot("counts", "how many", row_shapes=("",)),
    "any": FeatureSlot("whatever", "all rows"),
}


def check(**row_shapes):
    require_fitting_rows("made", SLOTS, {slot: f"of_{slot}" for slot in SLOTS}, row_shapes)


def test_rows_that_fit_pass():
    check(**{"global": (8,), "local": (3, 8), "boxes": (5, 6), "count": (), "any": (1, 2, 3)})
    check(**{"global": (8, 7, 7), "local": (3, 8)})
    check()


@pytest.mark.parametrize(
    ("row_shapes", "message"),
    [
        ({"local": (8,)}, r"rows of of_local are 8, .*'local' of model 'made' takes objects x A"),
        ({"global": ()}, r"are one number, .* takes A or A x height x width"),
        ({"boxes": (5, 4)}, r"are 5 x 4, .* takes objects x 6"),
        ({"count": (1,)}, r"are 1, .* takes one number"),
        ({"global": (8,), "local": (3, 9)}, r"3 x 9, .*where A is 8 as in global"),
    ],
)
def test_rows_that_do_not_fit_are_named(row_shapes, message):
    with pytest.raises(UsageError, match=message) as caught:
        check(**row_shapes)
    assert "--set features." in caught.value.hint


def test_masn_wants_the_same_objects_everywhere():
    model = find_model("masn")
    rows = {"appearance_global": (8,), "motion_global": (8,), "appearance_local": (5, 8)}
    found = model.settings_for(model.Config(), rows | {"motion_local": (5, 8)})
    assert found["num_objects"] == 5
    with pytest.raises(UsageError, match="appearance_local 5, motion_local 4"):
        model.settings_for(model.Config(), rows | {"motion_local": (4, 8)})
    cells = model.Config(grid=2)
    maps = rows | {"appearance_local": (8, 7, 7), "motion_local": (8, 7, 7)}
    assert model.settings_for(cells, maps)["num_objects"] == 4


@pytest.mark.parametrize("name", ["bmt", "mdvc"])
def test_flow_is_as_wide_as_the_picture(name):
    model = find_model(name)
    widths = model.settings_for(model.Config(), {"rgb": (2, 4), "flow": (8,), "audio": (3,)})
    assert widths == {"video_width": 8, "audio_width": 3}
    with pytest.raises(UsageError, match="have 4 numbers instead of 8"):
        model.settings_for(model.Config(), {"rgb": (8,), "flow": (4,)})


@pytest.mark.parametrize(
    ("name", "settings"), [("bmt", {"inner": 32, "heads": 7}), ("mdvc", {"heads": 3})]
)
def test_heads_that_cannot_share_the_channels_are_refused(name, settings):
    with pytest.raises(UsageError, match=r"attention heads cannot share \d+ channels"):
        create_model(name, task="captioning", **settings)
