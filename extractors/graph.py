"""Which extractors a pass runs, and which of them reads the rows of which.

An extractor that several others read, or that the user asked for as well, is run once: nodes are
merged when all that their numbers depend on is equal.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlpipe.extractors.extractor_spec import ExtractorSpec
from vlpipe.stores.features import canonical_json


@dataclass(frozen=True)
class Node:
    """One extractor of a pass.

    key: its name if the user asked for it, else one made of its name and a number. spec: with all
    outputs that anyone wants. sources: role to the key of the node that plays it.
    """

    key: str
    spec: ExtractorSpec
    sources: Mapping[str, str]


def make_graph(specs: Sequence[ExtractorSpec]) -> dict[str, Node]:
    """The nodes that `specs` need, by key, each after its sources."""
    keys = {_identity(spec): spec.name for spec in specs}
    nodes: dict[str, Node] = {}

    def add(spec: ExtractorSpec) -> str:
        sources = {role: add(source) for role, source in spec.sources.items()}
        key = keys.setdefault(_identity(spec), f"{spec.name}#{len(keys)}")
        known = nodes.get(key)
        nodes[key] = Node(key, _with_outputs_of(spec, known.spec) if known else spec, sources)
        return key

    for spec in specs:
        add(spec)
    return nodes


def with_sources(graph: Mapping[str, Node], keys: Iterable[str]) -> list[str]:
    """`keys` and all that they read, directly or not, in the order of the graph."""
    wanted = set(keys)
    for key in reversed(list(graph)):
        if key in wanted:
            wanted |= set(graph[key].sources.values())
    return [key for key in graph if key in wanted]


def _identity(spec: ExtractorSpec) -> str:
    return canonical_json(spec.provenance())


def _with_outputs_of(spec: ExtractorSpec, other: ExtractorSpec) -> ExtractorSpec:
    if "outputs" not in type(spec.config).model_fields:
        return spec
    merged = dict.fromkeys([*other.config.outputs, *spec.config.outputs])  # type: ignore[attr-defined]
    config = spec.config.model_copy(update={"outputs": tuple(merged)})
    return dataclasses.replace(spec, config=config)
