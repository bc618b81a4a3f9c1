"""`vlpipe evaluate`: the figures of a trained run on a split."""

from pathlib import Path
from typing import Annotated

import typer

from vlpipe.pipelines.cli.output import AsJson, print_facts, print_json, print_table, remark

EXAMPLE = "Example:  vlpipe evaluate runs/masn-count-tgif --split test"


def evaluate(
    run: Annotated[Path, typer.Argument(help="The folder that vlpipe train made.")],
    split: Annotated[
        str, typer.Option(help="train, validation or test; or a split of hidden answers.")
    ] = "test",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or auto (default: the run's).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate the best checkpoint of a run; write its predictions in the benchmark's form."""
    from vlpipe.pipelines.training.evaluation import evaluate_run

    found = evaluate_run(run, split, device=device)
    if as_json:
        print_json(found.to_json())
        return
    if not found.metrics:
        remark(
            f"the answers of {split} are hidden: there are no figures of its {found.num_examples} "
            "examples; the predictions are for the benchmark's server"
        )
    print_table(
        ("figure", "value", "without video"),
        [
            (name, f"{value:.2f}", f"{found.baseline.get(name, float('nan')):.2f}")
            for name, value in found.metrics.items()
        ],
        title=f"{run}, {split}: {found.num_examples} examples",
    )
    print_facts([("predictions", found.predictions)])
    if found.num_left_out:
        remark(f"{found.num_left_out} examples are left out: their videos have no features")
