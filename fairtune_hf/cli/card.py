"""`fairtune card`: the model card of an evaluated run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.stored_run import require_run, require_writable
from fairtune_hf.hub import render_card
from fairtune_hf.reports.loaded_run import read_run

PARSER = PARSERS["card"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check; return the rendering to run."""
    (run, card), _ = PARSER.parse(arguments)
    folder = require_run(run)
    if not folder.read().own.result("test"):
        raise ValueError(
            f"--run: expected an evaluated run, and {folder.path} has no test results. "
            f"Run `fairtune evaluate --run {folder.path}` first."
        )
    to = require_writable(folder, card.out)
    read_run(folder.path)  # says what is damaged
    return lambda: print(f"Card: {render_card(folder.path, out=to)}")
