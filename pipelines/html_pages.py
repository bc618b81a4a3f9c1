"""Pages from templates: one HTML file each, with all text escaped."""

from pathlib import Path
from typing import Any

from vlpipe import __version__


def render(template: str, path: Path, **values: Any) -> Path:  # noqa: ANN401 - what pages show
    """Fills a template into a file, which is replaced as a whole."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vlpipe.pipelines", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(version=__version__, **values)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(html, encoding="utf-8")
    temporary.replace(path)
    return path
