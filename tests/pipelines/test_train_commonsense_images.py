"""Images as VC R-CNN learns from them: scaled as the extractor does, flipped, and in batches."""

import shutil

import made_objects
import numpy as np
import pytest
import torch
from PIL import Image

from vlpipe.extractors.commonsense import Commonsense
from vlpipe.pipelines.commonsense_training.images import NOT_FLIPPED, RegionDataset, join
from vlpipe.pipelines.commonsense_training.job import (
    CommonsenseSettings,
    parse_commonsense_settings,
)
from vlpipe.stores.datasets.coco_instances import read_instances
from vlpipe.stores.errors import VlpipeError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    made_objects.make_objects(folder)
    return folder


def test_images_are_scaled_as_the_extractor_scales_them(data):
    settings = parse_commonsense_settings(None, ["shorter_edge=48", "longer_edge=80", "flip=1"])
    (chosen, *_) = read_instances(data / "instances.json").images
    images = RegionDataset([chosen], data / "images", settings)
    plain, flipped = images[NOT_FLIPPED, 0], images[0, 0]
    extractor = object.__new__(Commonsense)
    extractor.spec = type("Spec", (), {"config": settings})
    extractor.device = torch.device("cpu")
    frame = np.asarray(Image.open(data / "images" / chosen.file))
    wanted = extractor.to_input(frame[None])
    assert torch.equal(join([plain]).images, wanted)
    assert torch.equal(flipped.image, plain.image.flip(2))
    width = plain.image.shape[2]
    assert torch.allclose(flipped.boxes[:, [0, 2]], width - 1 - plain.boxes[:, [2, 0]])
    assert torch.equal(flipped.boxes[:, [1, 3]], plain.boxes[:, [1, 3]])
    ratio = width / chosen.width
    assert torch.allclose(plain.boxes[:, 0], torch.from_numpy(chosen.boxes[:, 0]) * ratio)


def test_flips_follow_from_seed_epoch_and_image(data):
    chosen = read_instances(data / "instances.json").images
    settings = parse_commonsense_settings(None, ["shorter_edge=32", "longer_edge=48"])
    plain = RegionDataset(chosen, data / "images", settings)
    unflipped = [plain[NOT_FLIPPED, n].image for n in range(6)]
    flips = [
        [not torch.equal(plain[epoch, n].image, unflipped[n]) for n in range(6)]
        for epoch in range(8)
    ]
    again = [not torch.equal(plain[3, n].image, unflipped[n]) for n in range(6)]
    assert again == flips[3]
    assert 12 <= sum(map(sum, flips)) <= 36
    assert len(set(map(tuple, flips))) > 4


def test_images_of_different_sizes_share_a_batch_padded_with_zeros(data, tmp_path):
    folder = tmp_path / "d"
    content = made_objects.make_objects(folder, num_images=2)
    Image.open(folder / "images" / "0.png").resize((64, 96)).save(folder / "images" / "0.png")
    content["images"][0] |= {"width": 64, "height": 96}
    made_objects.write_instances(folder, content)
    chosen = read_instances(folder / "instances.json").images
    settings = parse_commonsense_settings(None, ["shorter_edge=40", "longer_edge=60"])
    images = RegionDataset(chosen, folder / "images", settings)
    batch = join([images[NOT_FLIPPED, 0], images[NOT_FLIPPED, 1]])
    assert batch.images.shape == (2, 3, 64, 64)
    assert not batch.images[0, :, :, 40:].any()
    assert not batch.images[1, :, 40:].any()


def test_a_picture_of_another_size_is_named(data, tmp_path):
    shutil.copytree(data, tmp_path / "d")
    Image.new("RGB", (20, 20)).save(tmp_path / "d" / "images" / "0.png")
    (tmp_path / "d" / "images" / "part" / "1.png").write_bytes(b"no picture")
    chosen = read_instances(tmp_path / "d" / "instances.json").images
    images = RegionDataset(chosen, tmp_path / "d" / "images", CommonsenseSettings())
    with pytest.raises(VlpipeError, match=r"0\.png has 20 x 20 pixels.*96 x 64"):
        images[0, 0]
    with pytest.raises(VlpipeError, match=r"1\.png cannot be read"):
        images[0, 1]
