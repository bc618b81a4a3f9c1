"""`vlpipe extractors`: what each makes, needs and costs."""

from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer

from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, print_table

if TYPE_CHECKING:
    from vlpipe.extractors import Extractor

app = typer.Typer(help="The extractors: what each makes, needs, costs.", no_args_is_help=True)


@app.command("ls", epilog="Example:  vlpipe extractors ls")
def list_(as_json: AsJson = False) -> None:
    """List the extractors."""
    from vlpipe.extractors.registry import find_extractor, list_extractors, list_families

    facts = [_facts(find_extractor(name)) for name in list_extractors()]
    families = [
        {"name": f"{family.name}:NAME", "description": family.description}
        for family in list_families()
    ]
    if as_json:
        print_json({"extractors": facts, "families": families})
        return
    print_table(
        ("name", "what it makes", "GFLOP a row"),
        [(f["name"], f["description"], f["gflop_per_row"]) for f in facts]
        + [(f["name"], f["description"], "see show") for f in families],
    )


@app.command("show", epilog="Example:  vlpipe extractors show resnet152")
def show(
    name: Annotated[str, typer.Argument(help="The extractor.")], as_json: AsJson = False
) -> None:
    """Show features, settings, input and checkpoints of one extractor."""
    from vlpipe.extractors.registry import find_extractor

    facts = _facts(find_extractor(name))
    if as_json:
        print_json(facts)
        return
    print_facts(
        [
            ("extractor", f"{facts['name']} (version {facts['version']})"),
            ("what", facts["description"]),
            ("input", facts["input"]),
            ("cost", f"{facts['gflop_per_row']} GFLOP a row"),
        ]
    )
    print_table(
        ("feature", "row", "axes"),
        [
            (f["feature"], " x ".join(map(str, f["row_shape"])), ", ".join(f["dimensions"]))
            for f in facts["features"]
        ],
    )
    print_table(
        ("setting", "default", "type"),
        [(f"{name}.{s['name']}", s["default"], s["type"]) for s in facts["settings"]],
    )
    print_table(
        ("checkpoint", "file", "licence", "from", "added"),
        [
            (c["name"], c["file"], c["licence"], c["url"], "yes" if c["is_added"] else "no")
            for c in facts["checkpoints"]
        ],
    )


def _type_name(annotation: Any) -> str:  # noqa: ANN401 - whatever stands behind a field's colon
    """`int or none`, `pool5 | res5c, ...`: the type of a setting in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin is Annotated:
        return _type_name(inner[0])
    if origin in (Union, UnionType):
        return " or ".join(_type_name(t) for t in inner)
    if origin is tuple:
        return ", ".join("..." if t is Ellipsis else _type_name(t) for t in inner)
    return "none" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))


def _facts(extractor: type["Extractor"]) -> dict[str, Any]:
    from vlpipe.extractors.media.requests import request_to_json
    from vlpipe.extractors.weights.folder import WeightsFolder

    folder = WeightsFolder()
    config = extractor.Config()
    request = extractor.media_request(config)
    return {
        "name": extractor.name,
        "version": extractor.version,
        "description": extractor.description,
        "input": request_to_json(request) if request is not None else None,
        "sources": [source.extractor for source in extractor.sources(config).values()],
        "gflop_per_row": extractor.gflop_per_sample,
        "features": [
            {
                "feature": output.feature,
                "row_shape": list(output.row_shape),
                "dimensions": list(output.dimensions),
            }
            for output in extractor.declare_outputs(config)
        ],
        "settings": [
            {
                "name": key,
                "default": config.model_dump(mode="json").get(key, getattr(config, key)),
                "type": _type_name(field.annotation),
            }
            for key, field in extractor.Config.model_fields.items()
        ],
        "checkpoints": [
            {
                "name": checkpoint.name,
                "role": role,
                "file": checkpoint.filename,
                "licence": checkpoint.licence,
                "url": checkpoint.url,
                "is_added": folder.find(checkpoint.name) is not None,
            }
            for role, checkpoints in extractor.published_checkpoints().items()
            for checkpoint in checkpoints
        ],
    }
