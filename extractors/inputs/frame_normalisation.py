"""Frames to network input: channels first, 0..1, minus a mean, by a standard deviation."""

from collections.abc import Sequence

from torch import Tensor

# Mean and standard deviation of ImageNet's training images, as in torchvision's presets (RGB).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise_frames(frames: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """float32 (B, 3, H, W), (x / 255 - mean) / std, from uint8 RGB (B, H, W, 3)."""
    x = frames.permute(0, 3, 1, 2).float().div_(255)  # (B, 3, H, W)
    x = x.sub_(x.new_tensor(mean).view(3, 1, 1))
    return x.div_(x.new_tensor(std).view(3, 1, 1))
