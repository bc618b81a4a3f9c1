"""Videos and numbers that no extractor may make a wrong row of, through `extract`."""

import numpy as np
import pytest
from made_media import make_gif

from vlpipe.extractors import create_extractor
from vlpipe.extractors.errors import NonFiniteFeatures

SMALL = {
    "resnet18": {"resize": 32, "crop": 32},
    "i3d_rgb": {"resize": 32, "crop": 32, "stack_size": 16, "step_size": 16},
    "i3d_resnet50": {"resize": 32, "crop": 32},
    "r2plus1d_18": {"resize": 32, "crop": 32},
}


@pytest.fixture(scope="module", params=SMALL)
def extractor(request):
    return create_extractor(request.param, weights="untrained", **SMALL[request.param])


@pytest.mark.parametrize("shown_ms", [200, 1600])
def test_one_frame_and_no_motion_make_finite_rows(extractor, shown_ms, tmp_path):
    path = make_gif(tmp_path / "still.gif", [shown_ms])
    made = extractor.extract(path)[extractor.name]
    (output,) = extractor.spec.outputs
    assert len(made.rows) >= 1
    assert made.rows.shape[1:] == output.row_shape
    assert np.isfinite(made.rows).all()
    assert made.spans[0, 0] == 0
    assert made.spans[-1, 1] == pytest.approx(shown_ms / 1000, abs=1 / 6)


def test_numbers_that_are_not_finite_name_the_video_the_extractor_and_the_precision(tmp_path):
    extractor = create_extractor("i3d_rgb", weights="untrained", **SMALL["i3d_rgb"])
    extractor.network.conv3d_1a_7x7.batch3d.bias.fill_(np.nan)
    path = make_gif(tmp_path / "odd.gif", [40] * 3)
    with pytest.raises(NonFiniteFeatures, match="i3d_rgb at fp32 gave NaN") as caught:
        extractor.extract(path)
    assert str(path) in str(caught.value)
    assert "--precision fp32" in str(caught.value.hint)
