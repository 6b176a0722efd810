"""`fairtune report`: the page and the model card of a run, or several runs side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairtune_hf.baselines import listed_place
from fairtune_hf.cli.arguments import ReportArguments
from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.stored_run import require_run, require_writable
from fairtune_hf.hub import render_card
from fairtune_hf.reports import is_method, render_comparison, render_report
from fairtune_hf.reports.loaded_run import read_run
from fairtune_hf.training import RunFolder

PARSER = PARSERS["report"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check; return the rendering to run."""
    (run, report), _ = PARSER.parse(arguments)
    if report.runs is not None:
        return _plan_comparison(report)
    folder = require_run(run, comparison=True)
    to = require_writable(folder, report.out)
    record = read_run(folder.path).record  # says what is damaged before anything is drawn
    if record.chosen is None:
        return lambda: print(f"Comparison: {render_comparison([folder.path], to)}")

    def execute() -> None:
        page = render_report(folder.path, to)
        if record.own.result("test"):
            render_card(folder.path, out=to)
        print(f"Report: {page}")

    return execute


def _plan_comparison(report: ReportArguments) -> Callable[[], None]:
    runs, out = [Path(path) for path in report.runs or []], Path(str(report.out))
    records = {path: RunFolder(path).read() for path in runs}
    for path, record in records.items():
        if not (record.own.result("test") or is_method(record)):
            raise ValueError(
                f"--runs: expected evaluated runs, and {path} has no test results. Run `fairtune evaluate --run {path}` first."
            )
    # In the order of the methods, whatever order a shell's pattern gave.
    places = {
        path: listed_place(record.chosen or "") if is_method(record) else -1
        for path, record in records.items()
    }
    ordered = sorted(runs, key=lambda path: places[path])
    return lambda: print(f"Comparison: {render_comparison(ordered, out)}")
