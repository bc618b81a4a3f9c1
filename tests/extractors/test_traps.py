"""Mistakes that features of motion, flow and sound invite, where no other test would notice."""

import itertools

import golden_cases
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from decoded_media import decode_all
from made_media import ffmpeg, make_audio, make_gif, make_video, reference_frames
from PIL import Image

from vlpipe.extractors import configure_extractor, create_extractor
from vlpipe.extractors.inputs.stacks import StackRule
from vlpipe.extractors.media import DecodePool, FrameRequest, Resize
from vlpipe.extractors.networks.pwc import PwcNetwork
from vlpipe.extractors.weights.checkpoint import Checkpoint


@pytest.fixture(scope="module")
def pool():
    with DecodePool(workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def vggish():
    return create_extractor("vggish", weights="untrained")


def test_a_stack_of_flow_ends_with_the_frame_that_opens_the_next_one():
    rule = StackRule(64, 64, "drop")
    first, second = rule.rows(130)
    assert len(first) == 65
    assert first[-1] == second[0] == 64


def test_the_frame_that_makes_a_stack_full_is_not_part_of_an_rgb_row(tmp_path):
    settings = {"stack_size": 16, "step_size": 16, "resize": 32, "crop": 32, "tail": "drop"}
    extractor = create_extractor("i3d_rgb", weights="untrained", fps=None, **settings)
    rows = []
    for last in (0, 200):
        frames = [
            Image.fromarray(np.full((32, 32, 3), v, np.uint8)) for v in (*range(1, 33, 2), last)
        ]
        path = tmp_path / f"{last}.gif"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
        rows.append(extractor.extract(path)["i3d_rgb"].rows)
    assert rows[0].shape == (1, 1024)
    assert np.array_equal(rows[0], rows[1])


def test_the_frame_size_at_which_flow_is_clamped_is_part_of_the_provenance():
    generations = {
        configure_extractor("i3d_flow", weights="untrained", resize=resize)
        .definitions()[0]
        .generation
        for resize in (256, 320)
    }
    assert len(generations) == 2


def test_u_and_v_are_rescaled_by_the_padding_of_their_own_axis():
    network = PwcNetwork().eval()
    state = {key: torch.from_numpy(value) for key, value in golden_cases.state("pwc_net").items()}
    network.load(Checkpoint("pwc_net.pt", state))
    random = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, 3, 16, 12, generator=random)
    images = (255 * F.interpolate(coarse, size=(120, 70), mode="bilinear")).unsqueeze(1)
    padded = F.interpolate(images[:, 0], size=(128, 128), mode="bilinear").unsqueeze(1)
    with torch.inference_mode():
        made, whole = (network(*pair)["flow"] for pair in (images, padded))
    shares = made.mean(dim=(0, 2, 3)) / whole.mean(dim=(0, 2, 3))
    assert shares.tolist() == pytest.approx([70 / 128, 120 / 128], rel=0.02)


def test_a_slower_source_repeats_frames_so_that_every_other_flow_is_zero(tmp_path, pool):
    path = make_gif(tmp_path / "half.gif", [80] * 10)
    got = decode_all(pool, path, FrameRequest(fps=25)).frames()
    assert len(got) == 20
    is_repeated = [np.array_equal(a, b) for a, b in itertools.pairwise(got)]
    assert is_repeated == [k % 2 == 0 for k in range(19)]


def test_an_odd_average_rate_is_met_by_time_stamps(tmp_path, pool):
    path = make_video(tmp_path / "odd.mkv", seconds=6, fps="10900/439", codec="ffv1")
    got = decode_all(pool, path, FrameRequest(fps=25))
    assert np.array_equal(got.frames(), reference_frames(path, "fps=25:round=near"))
    assert got.spans()[:, 0] == pytest.approx(np.arange(len(got.spans())) / 25)


@pytest.mark.parametrize("fps", [6, 25])
def test_gifs_are_counted_as_ffmpeg_counts_them(tmp_path, pool, fps):
    path = make_gif(tmp_path / "tgif.gif", [60] * 45)
    got = decode_all(pool, path, FrameRequest(), FrameRequest(fps=fps))
    assert got.info.decoder == "pyav"
    assert len(got.frames(0)) == 45
    assert got.info.duration_s == pytest.approx(2.7)
    expected = reference_frames(path, f"fps={fps}:round=near")
    assert np.array_equal(got.frames(1), expected)


def test_gifs_that_repeat_are_read_once_and_partial_pictures_are_composed(tmp_path, pool):
    random = np.random.default_rng(0)
    pictures = []
    for k in range(5):
        picture = Image.new("RGBA", (40, 30), (0, 0, 0, 0))
        colour = (*random.integers(0, 256, 3).tolist(), 255)
        picture.paste(colour, (6 * k, 4, 6 * k + 9, 20))
        pictures.append(picture)
    for disposal in (1, 2):
        path = tmp_path / f"{disposal}.gif"
        pictures[0].save(
            path,
            save_all=True,
            append_images=pictures[1:],
            duration=100,
            disposal=disposal,
            loop=3,
        )
        got = decode_all(pool, path, FrameRequest()).frames()
        assert len(got) == 5
        with Image.open(path) as image:
            for k, frame in enumerate(got):
                image.seek(k)
                shown = image.convert("RGBA")
                wanted = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
                assert np.array_equal(frame, np.asarray(wanted.convert("RGB")))


def examples_of(vggish, pool, path):
    """Samples that VGGish gets of a file, and the note of a video with so many rows."""
    with pool.open(path, [vggish.spec.request]) as stream:
        sampler = vggish.sampler(stream.info)
        samples = [sample for block in stream for sample in sampler.push(block)]
        samples += sampler.finish()
        return samples, vggish.note(stream.info, len(samples))


def test_no_sound_silence_and_too_little_sound_are_told_apart(tmp_path, pool, vggish):
    mute = make_gif(tmp_path / "mute.gif", [100] * 3)
    silent = make_audio(tmp_path / "silent.wav", seconds=2.5, filters="volume=0")
    short = make_audio(tmp_path / "short.wav", seconds=0.96)
    found = {path.stem: examples_of(vggish, pool, path) for path in (mute, silent, short)}
    assert {stem: (len(samples), note) for stem, (samples, note) in found.items()} == {
        "mute": (0, "no_audio"),
        "silent": (2, None),
        "short": (0, "too_short"),
    }


@pytest.mark.parametrize("codec", ["libmp3lame", "ac3", "flac"])
def test_sound_that_is_not_aac_is_read_from_an_mp4(tmp_path, pool, vggish, codec):
    video = make_video(tmp_path / "a.mkv", seconds=2, codec="ffv1")
    path = tmp_path / "b.mp4"
    tone = ["-f", "lavfi", "-i", "sine=duration=2"]
    ffmpeg("-i", video, *tone, "-c:v", "libx264", "-strict", "-2", "-c:a", codec, path)
    samples, note = examples_of(vggish, pool, path)
    assert note is None
    assert [sample.span[0] for sample in samples] == pytest.approx([0.0, 0.96], abs=0.03)
    assert all(sample.data.max() > -1 for sample in samples)


def test_flatten_order_of_vggish_is_time_then_mel_then_channel(vggish):
    seen, maps = [], []
    layers = list(vggish.network.modules())
    (linear,) = (layer for layer in layers if getattr(layer, "in_features", 0) == 12_288)
    *_, last = (layer for layer in layers if isinstance(layer, torch.nn.Conv2d))
    hooks = [
        linear.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
        last.register_forward_hook(lambda _m, _i, out: maps.append(out)),
    ]
    with torch.inference_mode():
        vggish.network(torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(0)))
    for hook in hooks:
        hook.remove()
    pooled = F.max_pool2d(maps[0].relu(), 2)  # (1, 512, 6, 4)
    wanted = pooled.permute(0, 2, 3, 1).flatten()  # time 6, mel 4, channel 512
    assert torch.allclose(seen[0].flatten(), wanted)


def test_the_way_of_scaling_is_in_the_provenance_and_matters(pool, tmp_path):
    request = configure_extractor("i3d_rgb", weights="untrained").provenance()["media"]["request"]
    assert request["resize"]["interpolation"] == "bilinear"
    path = make_video(tmp_path / "a.mkv", codec="ffv1")
    ways = [
        FrameRequest(resize=Resize(shorter_edge=37, interpolation=way))
        for way in ("bilinear", "bicubic")
    ]
    got = decode_all(pool, path, *ways)
    difference = np.abs(got.frames(0).astype(int) - got.frames(1))
    assert difference.max() > 5
