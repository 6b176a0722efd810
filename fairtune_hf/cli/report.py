"""`fairtune report`: the page and the model card of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairtune_hf.cli.arguments import RunArguments
from fairtune_hf.cli.evaluate import require_run
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.hub import render_card
from fairtune_hf.reports import render_report

PARSER = RecipeParser(
    "report",
    "Write report.html (one self-contained page) and README.md (the model card) into a run's folder.",
    "fairtune report --run runs/nih",
    (RunArguments,),
)


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check; return the rendering to run."""
    (run,), _ = PARSER.parse(arguments)
    folder = require_run(run)

    def execute() -> None:
        page = render_report(folder.path)
        if folder.read()["test"] is not None:
            render_card(folder.path)
        print(f"Report: {page}")

    return execute
