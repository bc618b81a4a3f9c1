"""What is named after a paper can be configured, and its rows fit together."""

import pytest

from vlpipe.extractors import configure_extractor
from vlpipe.models import find_model
from vlpipe.pipelines.extraction.presets import PRESETS


def specs_of(name):
    preset = PRESETS[name]
    return {
        feature: configure_extractor(
            feature, weights="untrained", **preset.settings.get(feature, {})
        )
        for feature in preset.features
    }


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_configured(name):
    preset = PRESETS[name]
    assert set(preset.settings) <= set(preset.features)
    assert specs_of(name)


def test_rows_of_masn_come_at_the_same_rate_and_shapes():
    specs = specs_of("masn")
    rates = {s.extractor.samples_per_second(s.config) for s in specs.values()}
    assert rates == {1.5}
    shapes = {o.feature: o.row_shape for s in specs.values() for o in s.outputs}
    assert shapes["resnet152"] == shapes["i3d_resnet50"] == (2048,)
    assert shapes["objects"] == shapes["objects_motion"] == (10, 2048)
    assert shapes["objects_spatial"] == (10, 6)


@pytest.mark.parametrize(
    ("name", "feature", "frames", "window_s", "width"),
    [
        ("svt_classifier", "svt", 8, 6, 768),
        ("videomamba_classifier", "videomamba_middle", 16, 11, 576),
    ],
)
def test_windows_for_actions_overlap_to_the_end_of_the_video(
    name, feature, frames, window_s, width
):
    (spec,) = specs_of(name).values()
    config = spec.config
    assert (config.num_frames, config.window_s, config.stride_s) == (frames, window_s, 3)
    assert (config.fps, config.tail, config.spread, config.whole_frame) == (
        None, "keep", "ends", True,
    )  # fmt: skip
    assert {o.feature: o.row_shape for o in spec.outputs} == {feature: (width,)}
    assert find_model(name).slots["clips"].feature == feature


def test_rows_of_gean_are_of_the_same_frames():
    specs = specs_of("gean")
    rates = {s.extractor.samples_per_second(s.config) for s in specs.values()}
    assert rates == {5}
    shapes = {o.feature: o.row_shape for s in specs.values() for o in s.outputs}
    assert shapes == {
        "googlenet_places": (1024,),
        "c3d_conv5b": (1024, 7, 7),
        "googlenet_inception_5b": (1024, 7, 7),
    }
