"""`vlpipe models`: which networks there are, what they solve and what they read."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, print_table

if TYPE_CHECKING:
    from vlpipe.models import Model

_NETWORK_ONLY = "(the network alone, in Python)"

app = typer.Typer(help="The models: what they solve, what they read.", no_args_is_help=True)


@app.command("ls", epilog="Example:  vlpipe models ls")
def list_(as_json: AsJson = False) -> None:
    """List the models."""
    from vlpipe.models import find_model, list_models

    facts = [_facts(find_model(name)) for name in list_models()]
    if as_json:
        print_json({"models": facts})
        return
    print_table(
        ("name", "what it does", "tasks"),
        [(f["name"], f["description"], ", ".join(f["tasks"]) or _NETWORK_ONLY) for f in facts],
    )


@app.command("show", epilog="Example:  vlpipe models show masn")
def show(name: Annotated[str, typer.Argument(help="The model.")], as_json: AsJson = False) -> None:
    """Show tasks, features, settings and published figures of one model."""
    from vlpipe.models import find_model

    facts = _facts(find_model(name))
    if as_json:
        print_json(facts)
        return
    print_facts(
        [
            ("model", facts["name"]),
            ("what", facts["description"]),
            ("code of the paper", facts["code"]),
            ("tasks", ", ".join(facts["tasks"]) or _NETWORK_ONLY),
            ("training", ", ".join(f"{k} {v:g}" for k, v in facts["training"].items())),
        ]
    )
    print_table(
        ("features.SLOT", "default", "row", "what"),
        [
            (
                s["slot"],
                s["feature"],
                s["row"] or "any",
                s["what"] + (" (optional)" if s["is_optional"] else ""),
            )
            for s in facts["slots"]
        ],
    )
    print_table(
        ("setting", "default"), [(f"model.{k}", str(v)) for k, v in facts["settings"].items()]
    )
    print_table(
        ("task", "dataset", "figure", "published"),
        [(p["task"], p["dataset"], p["metric"], f"{p['value']:g}") for p in facts["published"]],
    )


def _facts(model: type["Model"]) -> dict[str, Any]:
    from vlpipe.models.tasks.registry import list_tasks

    return {
        "name": model.name,
        "description": model.description,
        "code": model.code,
        "tasks": [task for task in model.tasks if task in list_tasks()],
        "training": dict(model.training_defaults),
        "slots": [
            {
                "slot": slot,
                "feature": wanted.feature,
                "row": wanted.rows_in_words,
                "what": wanted.description,
                "is_optional": wanted.is_optional,
            }
            for slot, wanted in model.slots.items()
        ],
        "settings": model.Config().model_dump(mode="json"),
        "published": [
            {
                "task": p.task,
                "dataset": p.dataset,
                "metric": p.metric,
                "value": p.value,
                "source": p.source,
            }
            for p in model.published_results
        ],
    }
