"""The features of one media file: a pass of one extractor and its sources over one video."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlpipe.extractors.errors import NonFiniteFeatures
from vlpipe.extractors.graph import make_graph
from vlpipe.extractors.media import DecodePool
from vlpipe.extractors.network_batches import Made, NetworkBatches
from vlpipe.extractors.one_pass import Handed, VideoPass
from vlpipe.stores.features import Features

if TYPE_CHECKING:
    from vlpipe.extractors.extractor import Extractor, Inferred

_WAITING_BYTES = 256 * 2**20


def extract_file(extractor: "Extractor", path: str | Path) -> dict[str, Features]:
    """See `Extractor.extract`."""
    name = extractor.name
    graph = make_graph([extractor.spec])
    extractors = {
        key: extractor if key == name else extractor.source_extractor(node.spec)
        for key, node in graph.items()
    }
    nodes = list(graph.values())
    requests = {key: e.spec.request for key, e in extractors.items() if e.spec.request}
    wanted = list(dict.fromkeys(requests.values()))
    batches = NetworkBatches["VideoPass"](
        extractors, most_bytes=_WAITING_BYTES, is_wanted=lambda *_: True
    )
    made: list[Inferred] = [extractor.infer([])]

    def run(handed: Iterable[Handed]) -> None:
        waiting = deque(handed)
        while waiting:
            key, samples = waiting.popleft()
            for result in batches.add(video, key, samples):
                waiting.extend(take(result))

    def take(result: "Made[VideoPass]") -> Iterable[Handed]:
        if result.key == name:
            made.append(result.inferred)
        return video.take(result)

    with DecodePool(workers=1) as pool, pool.open(path, wanted) as stream:
        video = VideoPass(nodes, extractors, stream.info)
        for block in stream:
            for key, request in reversed(requests.items()):  # see Sampler: frames before rows
                if wanted[block.request] == request:
                    run([(key, video.push(key, block))])
        run([(key, video.finish(key)) for key in video.roots])
    run(video.close_ready())
    while not video.is_complete:
        for result in list(batches.flush()):
            run(take(result))
        run(video.close_ready())

    spans = np.concatenate([part.spans for part in made])
    features: dict[str, Features] = {}
    for output in extractor.spec.outputs:
        rows = np.concatenate([part.rows[output.feature] for part in made])
        if not np.isfinite(rows).all():
            raise NonFiniteFeatures(
                f"{path}: {name} at {extractor.spec.precision} gave NaN or infinite values "
                f"in {output.feature}",
                hint="extract with --precision fp32, or check the checkpoint",
            )
        features[output.feature] = Features(rows, spans)
    return features
