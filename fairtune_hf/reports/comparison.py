"""Many runs side by side: the paper's table form, as HTML, Markdown, LaTeX and CSV.

One row a data set, attribute and metric, one column a method, then averages and average ranks over
the settings in which every method has a value. Reads `run.json` files alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fairtune_hf.metrics import registry
from fairtune_hf.metrics.ranks import average_ranks, average_scores
from fairtune_hf.run_folder import write_text

from . import numbers
from .comparison_figures import comparison_figures
from .figure import write_figure_data
from .loaded_run import LoadedRun, read_run
from .tables import METRICS, capital, method_results
from .templating import page_environment
from .verdict import method_name, run_verdict

COMPARED = {
    name: not registry.is_small_good(name) for name in registry.shown_in(registry.COMPARISON)
}
"""Metrics of the table -> whether higher is better."""


@dataclass(frozen=True)
class TableCell:
    """One value of the table.

    Attributes:
        value: The number as printed.
        interval: Its 95 % interval, or an empty string.
        best: Whether no method has a better one in this row.
    """

    value: str
    interval: str
    best: bool


@dataclass(frozen=True)
class TableRow:
    """One line of the table.

    Attributes:
        setting: Data set and attribute, or what was averaged.
        metric: Name of the metric.
        cells: One cell a method.
        first: Whether the setting changes here.
    """

    setting: str
    metric: str
    cells: tuple[TableCell, ...]
    first: bool


def render_comparison(run_dirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write `comparison.html`, `.md`, `.tex` and `.csv` and the figures' data into a folder.

    Runs whose test rows were not read are left out and named.

    Args:
        run_dirs: Folders of two or more runs.
        out: Folder to write to; made if it does not exist.

    Returns:
        The path of the HTML page.

    Raises:
        FileNotFoundError: A folder has no `run.json`.
        ValueError: No run has test results, or a folder is given twice.
    """
    paths = [Path(run_dir) for run_dir in run_dirs]
    _check_different(paths)
    folders = [read_run(path) for path in paths]
    evaluated = [folder for folder in folders if folder.part("test")]
    if not evaluated:
        raise ValueError(
            f"runs: expected at least one run whose test rows were read; none of the {len(paths)} "
            "given has a `test` part in its run.json. Run `fairtune evaluate --run` on each first."
        )
    names = setting_names(evaluated)
    results = collect_results(evaluated, names)
    methods = list(results["method"].unique())
    rows = table_rows(results, methods)
    heads = [capital(method_name(method)) for method in methods]
    figures = comparison_figures(evaluated, names)
    to = Path(out)
    for figure in figures:
        write_figure_data(to / "figures", figure)
    write_text(to / "comparison.csv", results.to_csv(index=False, lineterminator="\n"))
    write_text(to / "comparison.md", markdown_table(rows, heads))
    write_text(to / "comparison.tex", latex_table(rows, heads))
    content = {
        "heads": heads,
        "rows": rows,
        "figures": figures,
        "verdicts": [(n, run_verdict(f.run)) for n, f in zip(names, evaluated, strict=True)],
        "left_out": [folder.path.name for folder in folders if folder not in evaluated],
        "settings": len(evaluated),
    }
    html = page_environment().get_template("comparison.html.jinja").render(content)
    return write_text(to / "comparison.html", html)


def _check_different(paths: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in paths]
    twice = sorted({str(path) for path in resolved if resolved.count(path) > 1})
    if twice:
        raise ValueError(f"runs: each folder counts once; {', '.join(twice)} was given twice.")


def setting_names(folders: Sequence[LoadedRun]) -> list[str]:
    """Name each run by data set and attribute, and by its folder where those are not enough."""
    names = [f"{f.part('dataset').get('name') or 'run'}, {f.sensitive}" for f in folders]
    return [
        name if names.count(name) == 1 else f"{name} ({folder.path.name})"
        for name, folder in zip(names, folders, strict=True)
    ]


def collect_results(folders: Sequence[LoadedRun], names: Sequence[str]) -> pd.DataFrame:
    """Return one row a setting, method and metric: the refit with `choice.seed`, and the seeds."""
    records = []
    for folder, setting in zip(folders, names, strict=True):
        controls = folder.part("controls")
        for method, result in method_results(folder.run, "test").items():
            recipe = folder.run if method == "fairtune" else controls[method]
            seeds = [seed.get("test") or {} for seed in recipe.get("seeds") or []]
            for metric in COMPARED:
                known = [s[metric] for s in seeds if numbers.is_number(s.get(metric))]
                low, high = result.get(f"{metric}_ci") or (None, None)
                records.append(
                    {
                        "setting": setting,
                        "dataset": folder.part("dataset").get("name"),
                        "attribute": folder.sensitive,
                        "method": method,
                        "metric": metric,
                        "value": result.get(metric),
                        "low": low,
                        "high": high,
                        "mean_over_seeds": sum(known) / len(known) if known else None,
                        "n_seeds": len(known),
                    }
                )
    table = pd.DataFrame(records)
    for column in ("value", "low", "high", "mean_over_seeds"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def table_rows(results: pd.DataFrame, methods: Sequence[str]) -> list[TableRow]:
    """Return the lines of the table: each setting, then averages and average ranks."""
    rows = []
    for setting, held in results.groupby("setting", sort=False):
        for index, metric in enumerate(COMPARED):
            of_metric = held[held["metric"] == metric].set_index("method").reindex(list(methods))
            bounds = list(zip(of_metric["low"], of_metric["high"], strict=True))
            cells = _cells(of_metric["value"].tolist(), COMPARED[metric], bounds=bounds)
            rows.append(TableRow(str(setting), METRICS[metric], cells, index == 0))
    return rows + _summary_rows(results, methods)


def _summary_rows(results: pd.DataFrame, methods: Sequence[str]) -> list[TableRow]:
    """Average over the settings where every method has a value, so that all average the same."""
    rows: list[TableRow] = []
    ranks: list[TableRow] = []
    for metric, higher in COMPARED.items():
        wide = results[results["metric"] == metric].pivot(
            index="setting", columns="method", values="value"
        )
        complete = wide.reindex(columns=list(methods)).dropna()
        if len(complete) < 2:
            continue
        over = f"over {len(complete)} settings"
        means = average_scores(complete).tolist()
        places = average_ranks(complete, higher_is_better=higher).tolist()
        rows.append(TableRow(f"Mean {over}", METRICS[metric], _cells(means, higher), not rows))
        cells = _cells(places, higher_is_better=False, digits=2)
        ranks.append(TableRow(f"Mean rank {over}", METRICS[metric], cells, not ranks))
    return rows + ranks


def _cells(
    values: Sequence[float],
    higher_is_better: bool,
    *,
    bounds: Sequence[tuple[float, float]] | None = None,
    digits: int = 3,
) -> tuple[TableCell, ...]:
    known = [value for value in values if numbers.is_number(value)]
    best = (max if higher_is_better else min)(known, default=None)
    return tuple(
        TableCell(
            numbers.fraction(value, digits),
            numbers.interval(bounds[index]) if bounds else "",
            len(known) > 1 and value == best,
        )
        for index, value in enumerate(values)
    )


def markdown_table(rows: Sequence[TableRow], heads: Sequence[str]) -> str:
    """Write the table in Markdown; the best value of a row is bold."""
    lines = [
        "| Setting | Metric | " + " | ".join(map(_markdown, heads)) + " |",
        "| --- | --- |" + " ---: |" * len(heads),
    ]
    for row in rows:
        cells = []
        for cell in row.cells:
            shown = f"**{cell.value}**" if cell.best else cell.value
            cells.append(f"{shown} [{cell.interval}]" if cell.interval else shown)
        setting = _markdown(row.setting) if row.first else ""
        lines.append(f"| {setting} | {row.metric} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _NOTE, ""])


_NOTE = (
    "Test rows; the refit with the chosen seed. In brackets: 95 % intervals over patients. Bold: best "
    "value of the row, which does not mean that the difference is beyond noise."
)


def _markdown(words: str) -> str:
    safe = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for letter in "\\`*[]|":
        safe = safe.replace(letter, f"\\{letter}")
    return " ".join(safe.split())


def latex_table(rows: Sequence[TableRow], heads: Sequence[str]) -> str:
    """Write the table in LaTeX (package booktabs); the best value of a row is bold."""
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{ll" + "r" * len(heads) + "}",
        "\\toprule",
        " & ".join(["Setting", "Metric", *map(latex_text, heads)]) + " \\\\",
    ]
    for row in rows:
        if row.first:
            lines.append("\\midrule")
        cells = []
        for cell in row.cells:
            value = latex_text(cell.value)
            shown = f"\\textbf{{{value}}}" if cell.best else value
            small = f" {{\\scriptsize [{latex_text(cell.interval)}]}}" if cell.interval else ""
            cells.append(shown + small)
        setting = latex_text(row.setting) if row.first else ""
        lines.append(" & ".join([setting, row.metric, *cells]) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", f"% {_NOTE}", ""])


_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "\u2212": "$-$",
    "\u2013": "--",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
}


def latex_text(words: str) -> str:
    """Write any text so that LaTeX prints it and runs none of it."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(words.split()))
