"""The checkpoints that torchvision publishes of one of its architectures."""

from torchvision.models import get_model_weights

from vlpipe.extractors.weights.checkpoint import PublishedCheckpoint


def torchvision_checkpoints(architecture: str) -> list[PublishedCheckpoint]:
    """Its published weights, torchvision's first, named `ARCHITECTURE_imagenet1k_v1` and so on.

    settings: `resize` (pixels of the shorter edge, or height and width) and `crop` of their preset.
    """
    entries = []
    for weights in get_model_weights(architecture):
        filename = weights.url.rpartition("/")[2]
        preset = weights.transforms()
        size = tuple(preset.resize_size)
        entries.append(
            PublishedCheckpoint(
                name=f"{architecture}_{weights.name.lower()}",
                filename=filename,
                url=weights.url,
                licence="BSD-3-Clause",
                sha256=filename.removesuffix(".pth").rpartition("-")[2],
                settings={
                    "resize": size[0] if len(size) == 1 else size,
                    "crop": preset.crop_size[0],
                },
            )
        )
    return entries
