"""What holds for every registered extractor; a new file in extractors/ is covered by itself.

On a machine with a GPU all of it is checked there as well.
"""

import itertools
import json
from collections import deque

import numpy as np
import pytest
import torch

from vlpipe.extractors import configure_extractor, create_extractor, list_extractors, register
from vlpipe.extractors.extractor_spec import parse_config
from vlpipe.extractors.graph import make_graph
from vlpipe.extractors.media import (
    AudioBlock,
    AudioRequest,
    AudioStream,
    FrameBlock,
    FrameRequest,
    MediaInfo,
    VideoStream,
)
from vlpipe.extractors.network_batches import Made
from vlpipe.extractors.one_pass import VideoPass
from vlpipe.extractors.registry import find_checkpoint, find_extractor
from vlpipe.stores import FeatureDefinition
from vlpipe.stores.errors import EnvironmentLacks, UsageError

# Small inputs keep the large networks fast; the weights are drawn anyway.
SMALL = {"crop": 32, "resize": 32, "stack_size": 16, "step_size": 16}
SMALL |= {"size": (64, 64), "num_updates": 2}

# The linear layers of C3D take frames of 112x112 alone.
_DETECTOR = {"shorter_edge": 32, "longer_edge": 48, "proposals": 2}
_OBJECTS = {**_DETECTOR, "min_boxes": 2, "max_boxes": 2}
_PERSONS = {
    "shorter_edge": 64,
    "longer_edge": 96,
    "proposals": 10,
    "max_persons": 1,
    "min_score": 0.0,
}
_TRACKS = {"start_score": 0.0, "confirm_after": 1}
_PEOPLE = {"person_boxes": _PERSONS, "person_tracks": _TRACKS}
_STACKS = {"crop": 32, "stack_size": 16, "step_size": 16}
SMALL_OF = {
    "person_boxes": _PERSONS,
    "person_tracks": {**_TRACKS, "source_settings": {"person_boxes": _PERSONS}},
    "person_track_table": {"source_settings": _PEOPLE},
    "faces": {"encoder": "iresnet18", "min_face": 48},
    "track_faces": {
        "encoder": "iresnet18",
        "source_settings": {**_PEOPLE, "faces": {"min_face": 48}},
    },
    "body_parts": {"source_settings": _PEOPLE},
    "track_crops": {"source_settings": _PEOPLE},
    "track_paths": {"source_settings": _PEOPLE},
    "track_motion": {"source_settings": {**_PEOPLE, "i3d_rgb": _STACKS}},
    "objects": _OBJECTS,
    "objects_motion": {"source_settings": {"objects": _OBJECTS, "i3d_resnet50": {"crop": 32}}},
    "commonsense": {
        "depth": 50,
        "shorter_edge": 32,
        "longer_edge": 48,
        "confidence": 0,
        "max_boxes": 2,
        "source_settings": {"objects": _DETECTOR},
    },
    "c3d": {"outputs": ("conv5b",)},
    "whisper": {"layers": 1, "width": 64, "max_tokens": 8, "temperatures": ()},
    "svt": {"num_frames": 4, "window_s": 1, "stride_s": 1},
    "videomamba": {"variant": "tiny", "num_frames": 4, "window_s": 1, "stride_s": 1},
}

# In a block. Those that stack frames of their sources need a whole stack.
FRAMES = 4
FRAMES_OF = {"objects_motion": 16, "track_motion": 16}

# Built once for all that read them.
SOURCES = {}

# Their rows are the same for any picture.
READ_FROM_FILES = {"given_boxes", "given_subtitles"}

# Of a family every member is made in one way.
EVERY = [*list_extractors(), "timm:test_vit", "clip:ViT-S-32-alt"]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

INFO = MediaInfo(
    path="made.mp4",
    container="mp4",
    duration_s=60.0,
    num_bytes=1,
    sha256="0" * 64,
    video=VideoStream(128, 96, 0, 25.0, 1500, False, "h264", "yuv420p", 0.0, 60.0),
    audio=AudioStream(16_000, 1, "aac", 0.0, 60.0),
    decoder="pyav",
)


def small_settings(name):
    fields = find_extractor(name).Config.model_fields
    return {key: value for key, value in SMALL.items() if key in fields} | SMALL_OF.get(name, {})


def draw_blocks(request, num_frames):
    """Blocks as the decoder would send them for that request, without an end."""
    random = np.random.default_rng(7)
    if isinstance(request, AudioRequest):
        length = 10 * request.sample_rate
        for k in itertools.count():
            wave = random.normal(0, 0.1, length).astype(np.float32)
            yield AudioBlock(0, wave, 10.0 * k, k * length)
    assert isinstance(request, FrameRequest)
    height, width = request.output_size(INFO.video.height, INFO.video.width)
    for first in itertools.count(step=num_frames):
        frames = random.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
        starts = np.arange(first, first + num_frames) / 25
        yield FrameBlock(0, frames, np.stack([starts, starts + 0.04], axis=1), first)


def draw_samples(extractor, count):
    """So many samples of drawn frames or sound; of one that reads other extractors, what it gets.

    Those are given one block, so that their samples may be fewer.
    """
    graph = make_graph([extractor.spec])
    extractors = {
        key: extractor if key == extractor.name else extractor.source_extractor(node.spec)
        for key, node in graph.items()
    }
    video = VideoPass(list(graph.values()), extractors, INFO)
    samples = []
    waiting = deque()

    def run():
        while waiting:
            key, handed = waiting.popleft()
            if key == extractor.name:
                samples.extend(handed)
            elif handed:
                inferred = extractors[key].infer(handed)
                waiting.extend(video.take(Made(video, key, handed, inferred, 0.0)))

    requests = {key: e.spec.request for key, e in extractors.items() if e.spec.request}
    num_frames = FRAMES_OF.get(extractor.name, FRAMES)
    streams = {key: draw_blocks(request, num_frames) for key, request in requests.items()}
    while len(samples) < count:
        for key, blocks in reversed(streams.items()):  # readers get frames before rows
            waiting.append((key, video.push(key, next(blocks))))
            run()
        if extractor.spec.sources:
            waiting.extend((key, video.finish(key)) for key in video.roots)
            run()
            while not all(lane.is_closed for lane in video._lanes.values()):
                waiting.extend(video.close_ready())
                run()
            break
    assert samples
    return samples[:count]


@pytest.fixture(scope="module")
def given_files(tmp_path_factory):
    """For the extractors that read files: one box, and words, at the start of the drawn video."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "made.json").write_text('{"boxes": [[0, 0, 9, 9]], "labels": [3], "seconds": [0]}')
    words = " ".join(f"word{n}" for n in range(40))
    (folder / "made.srt").write_text(f"1\n00:00:00,000 --> 00:00:40,000\n{words}\n")
    return {
        "given_boxes": {"folder": folder, "within_s": 1.0},
        "given_subtitles": {"folder": folder},
    }


def make_small(name, device, given_files):
    settings = small_settings(name) | given_files.get(name, {})
    made = create_extractor(name, weights="untrained", device=device, **settings)
    made._source_extractors = SOURCES
    # Rows may not depend on what shares a batch, however large that is; small ones are fast.
    made.batch_size = min(made.batch_size, 4)
    return made


@pytest.fixture(
    scope="module", params=[(name, device) for device in DEVICES for name in EVERY], ids="-".join
)
def extractor(request, given_files):
    return make_small(*request.param, given_files)


@pytest.fixture(scope="module")
def samples(extractor):
    return draw_samples(extractor, extractor.batch_size + 1)


@pytest.fixture(scope="module")
def inferred(extractor, samples):
    return extractor.infer(samples)


def test_outputs_are_as_declared_finite_and_fit_their_dtype(extractor, samples, inferred):
    assert set(inferred.rows) == {output.feature for output in extractor.spec.outputs}
    assert len(inferred.counts) == len(samples)
    assert inferred.spans.shape == (inferred.counts.sum(), 2)
    for output in extractor.spec.outputs:
        values = inferred.rows[output.feature]
        assert values.shape == (inferred.counts.sum(), *output.row_shape)
        assert values.dtype == (output.dtype or np.float32)
        assert np.isfinite(values.astype(output.dtype or np.float16)).all()


def test_different_inputs_make_different_rows(extractor, samples, inferred):
    finds_something = len(inferred.spans) > 0  # untrained detectors of faces do not
    if len(samples) > 1 and finds_something and extractor.name not in READ_FROM_FILES:
        first, last = inferred.of_samples(0, 1), inferred.of_samples(len(samples) - 1, len(samples))
        assert any(not np.array_equal(first.rows[f], last.rows[f]) for f in first.rows)


def test_a_row_has_the_same_bits_whatever_shares_its_batch(extractor, samples, inferred):
    turned = extractor.infer(samples[::-1])
    for index in {0, len(samples) - 1}:
        alone = extractor.infer([samples[index]])
        mirrored = len(samples) - 1 - index
        for part in (
            inferred.of_samples(index, index + 1),
            turned.of_samples(mirrored, mirrored + 1),
        ):
            assert np.array_equal(part.spans, alone.spans)
            for feature, rows in alone.rows.items():
                assert np.array_equal(part.rows[feature], rows)


if "cuda" in DEVICES:

    def test_a_gpu_gives_the_rows_of_the_cpu(extractor, samples, inferred, given_files):
        # Detectors choose among untrained scores that differ by rounding.
        chooses = {"objects", "person_boxes", *SMALL_OF} - {"c3d", "whisper", "svt", "videomamba"}
        if extractor.device.type == "cuda" and extractor.name not in chooses:
            wanted = make_small(extractor.name, "cpu", given_files).infer(samples)
            for feature, rows in wanted.rows.items():
                error = np.linalg.norm(inferred.rows[feature].astype(float) - rows)
                assert error <= 1e-3 * np.linalg.norm(rows.astype(float)), (feature, error)


def test_no_samples_give_no_rows(extractor):
    made = extractor.infer([])
    assert made.spans.shape == (0, 2)
    for output in extractor.spec.outputs:
        assert made.rows[output.feature].shape == (0, *output.row_shape)


def test_nothing_learns(extractor):
    assert not extractor.network.training
    assert not any(p.requires_grad for p in extractor.network.parameters())


@pytest.mark.parametrize("name", EVERY)
def test_definitions_survive_json(name):
    spec = configure_extractor(name, weights="untrained")
    for definition in spec.definitions():
        again = FeatureDefinition.from_json(json.loads(json.dumps(definition.to_json())))
        assert again.generation == definition.generation
        assert definition.is_untrained or not spec.extractor.published_checkpoints()
    config = spec.config.model_dump(mode="json")
    assert type(spec.config).model_validate(config) == spec.config


@pytest.mark.parametrize("name", EVERY)
def test_facts_for_listings_are_complete(name):
    extractor = find_extractor(name)
    assert extractor.description
    assert extractor.gflop_per_sample > 0
    assert extractor.samples_per_second(extractor.Config()) > 0
    for checkpoints in extractor.published_checkpoints().values():
        for checkpoint in checkpoints:
            assert checkpoint.url.startswith("https://")
            assert checkpoint.licence
            assert find_checkpoint(checkpoint.name)[0] == checkpoint
            parse_config(extractor, {}, checkpoint.settings)


@pytest.mark.parametrize(
    "change",
    [
        {"fps": 5},
        {"resize": 232},
        {"weights": "untrained:1"},
        {"precision": "bf16"},
        {"store_dtype": "float32"},
    ],
)
def test_what_changes_the_numbers_changes_the_generation(change):
    plain = configure_extractor("resnet18", weights="untrained").definitions()[0]
    other = configure_extractor("resnet18", **({"weights": "untrained"} | change)).definitions()[0]
    assert plain.generation != other.generation


def test_keeping_more_outputs_does_not_change_the_generation():
    plain = configure_extractor("resnet18", weights="untrained").definitions()
    both = configure_extractor(
        "resnet18", weights="untrained", outputs=("pool5", "res5c")
    ).definitions()
    assert plain[0] == both[0]
    assert [d.name for d in both] == ["resnet18", "resnet18_res5c"]
    assert both[1].row_shape == (512, 7, 7)


def test_unknown_names_and_settings_list_what_there_is():
    with pytest.raises(UsageError, match="nearest: resnet152"):
        create_extractor("resnet125", weights="untrained")
    with pytest.raises(UsageError, match="rate") as caught:
        create_extractor("resnet18", weights="untrained", rate=3)
    assert "fps" in str(caught.value.hint)
    with pytest.raises(UsageError, match="fps"):
        create_extractor("resnet18", weights="untrained", fps=-1)
    with pytest.raises(UsageError, match="int8"):
        create_extractor("resnet18", weights="untrained", precision="int8")


def test_an_absent_device_is_named():
    with pytest.raises(EnvironmentLacks, match="cuda:99"):
        create_extractor("resnet18", weights="untrained", device="cuda:99")
    with pytest.raises(UsageError, match="warp:3"):
        configure_extractor("resnet18", weights="untrained", device="warp:3")


def test_a_name_is_given_once():
    with pytest.raises(ValueError, match="registered twice"):
        register("vggish")(find_extractor("resnet18"))
