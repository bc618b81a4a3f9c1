"""VGGish in TensorFlow: the variables of `vggish_model.ckpt` and the arrays of its PCA.

Source: TensorFlow models `research/audioset/vggish`. Kernels are (height, width, in, out), and
matrices (in, out). `vggish/fc1/fc1_1/weights` (12288, 4096) reads a map that was flattened as
(time 6, mel 4, channel 512), as the network here flattens it. `vggish_pca_params.npz` has the
names of the published torch file.
"""

from vlpipe.extractors.vggish import VggishConfig, VggishNetwork
from vlpipe.extractors.weights.foreign.layout import (
    TENSORFLOW_IGNORED,
    ForeignLayout,
    Origin,
    Shape,
    Variables,
    register_layout,
    shapes_of,
)

_LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3/conv3_1",
    "features.8": "conv3/conv3_2",
    "features.11": "conv4/conv4_1",
    "features.13": "conv4/conv4_2",
    "embeddings.0": "fc1/fc1_1",
    "embeddings.2": "fc1/fc1_2",
    "embeddings.4": "fc2",
}


def _entries(variables: Variables) -> dict[str, Shape]:
    del variables
    shapes = shapes_of(lambda: VggishNetwork(VggishConfig()))
    return {entry: shape for entry, shape in shapes.items() if not entry.startswith("pca.")}


def _origin(entry: str) -> Origin:
    layer, _, kind = entry.rpartition(".")
    if kind == "bias":
        return Origin(f"{_LAYERS[layer]}/biases")
    axes = (3, 2, 0, 1) if layer.startswith("features.") else (1, 0)
    return Origin(f"{_LAYERS[layer]}/weights", axes)


register_layout(
    ForeignLayout(
        role="vggish",
        title="TensorFlow's VGGish",
        signature="fc1/fc1_1/weights",
        entries=_entries,
        origin=_origin,
        ignored=TENSORFLOW_IGNORED,
    )
)
register_layout(
    ForeignLayout(
        role="vggish_pca",
        title="VGGish's PCA",
        signature="pca_eigen_vectors",
        entries=lambda _: {"pca_eigen_vectors": (128, 128), "pca_means": (128,)},
        origin=Origin,
    )
)
