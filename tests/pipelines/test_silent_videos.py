"""Videos of which an optional feature has no rows take part in training; incomplete ones do not."""

from dataclasses import dataclass

import numpy as np
import pytest

from vlpipe.models import find_model
from vlpipe.models.registry import parse_config
from vlpipe.models.tasks import Clip
from vlpipe.pipelines.training.data import PreparedVideos, available_examples
from vlpipe.stores import FeatureDefinition, Features, FeatureStore
from vlpipe.stores.errors import UsageError

SLOTS = {"frames": "frames", "sound": "sound"}
ROWS = {"frames": {"whole": 3, "silent": 3, "half_done": 3, "blank": 0}}
ROWS["sound"] = {"whole": 2, "silent": 0, "blank": 2}
WIDTHS = {"frames": 2048, "sound": 128}


@dataclass(frozen=True)
class Named:
    id: str

    @property
    def clips(self):
        return (Clip(self.id),)


def rows_of(count, width):
    spans = np.stack([np.arange(count), np.arange(count) + 1], 1).astype(np.float64)
    return Features(np.ones((count, width), np.float32), spans)


@pytest.fixture(scope="module")
def store():
    made = FeatureStore.create("memory://silent-videos")
    for name, counts in ROWS.items():
        definition = FeatureDefinition(name, "float32", (WIDTHS[name],), ("channel",), {})
        with made.writer([definition]) as writer:
            for video, count in counts.items():
                writer.add(video, {name: rows_of(count, WIDTHS[name])})
    return made


def test_a_silent_video_is_kept_and_an_incomplete_or_empty_one_left_out(store):
    model = find_model("jsfusion")
    found = available_examples([Named(v) for v in ROWS["frames"]], store, SLOTS, model)
    assert [example.id for example in found.examples] == ["whole", "silent"]
    assert found.left_out == ("half_done", "blank")


def test_the_model_does_not_get_the_slot_that_has_no_rows(store):
    model = find_model("jsfusion")
    videos = PreparedVideos(store, SLOTS, model, parse_config(model, {}), 0)
    assert set(videos.features("whole")) == {"frames", "sound"}
    assert set(videos.features("silent")) == {"frames"}
    assert not videos[Clip("silent")]["video"][:, 2048:].any()
    with pytest.raises(UsageError, match=r"blank.*frames"):
        videos.features("blank")
