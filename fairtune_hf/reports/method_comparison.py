"""The methods of a comparison side by side: results, paired tests, ranks and cost, from run.json alone.

One row a method. A method that failed is a row that says why. The paired differences against full
fine-tuning come from the run.json files; Holm's correction is made here, over the methods compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.metrics.multiplicity import holm_p_values
from fairtune_hf.metrics.ranks import average_ranks
from fairtune_hf.metrics.registry import TESTED
from fairtune_hf.run_folder import write_text

from . import numbers
from .comparison import COMPARED, collect_results, latex_text, setting_names
from .loaded_run import LoadedRun, read_run
from .tables import METRICS
from .templating import page_environment

REFERENCE = "full"
_DASH = numbers.MISSING


@dataclass(frozen=True)
class PlainTable:
    """A table of finished strings.

    Attributes:
        title: What it shows.
        note: How to read it.
        heads: Column headings.
        rows: One tuple of cells a row, as long as `heads`.
    """

    title: str
    note: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def is_method_run(run: dict[str, Any]) -> bool:
    """Whether a run.json is that of one method of a comparison."""
    return isinstance(run.get("method"), dict)


def render_methods(run_dirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write `comparison.html`, `.md`, `.tex` and `.csv` of the methods' runs into a folder.

    Args:
        run_dirs: Folders of methods, of one or several data sets and attributes.
        out: Folder to write to; made if it does not exist.

    Returns:
        The path of the HTML page.

    Raises:
        FileNotFoundError: A folder has no `run.json`.
        ValueError: A folder holds no method's run, or two runs of one method and setting.
    """
    folders = [read_run(Path(run_dir)) for run_dir in run_dirs]
    table = collect_methods(folders)
    tables = comparison_tables(folders, table)
    to = Path(out)
    write_text(to / "comparison.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(to / "comparison.md", "\n".join(map(markdown, tables)))
    write_text(to / "comparison.tex", "\n".join(map(latex, tables)))
    page = page_environment().get_template("methods.html.jinja")
    settings = list(dict.fromkeys(map(_setting, folders)))
    return write_text(to / "comparison.html", page.render(tables=tables, settings=settings))


def collect_methods(folders: Sequence[LoadedRun]) -> pd.DataFrame:
    """Return one row a setting, method and metric, with paired differences and Holm's p-values.

    Methods that failed have one row without a metric, with the reason under `failure`.

    Raises:
        ValueError: A folder holds no method's run, or two runs of one method and setting.
    """
    seen: set[tuple[str, str]] = set()
    parts = []
    for folder in folders:
        if not is_method_run(folder.run):
            raise ValueError(
                f"runs: expected the methods of a comparison, and {folder.path.name} is another run. "
                "Report it in a call of its own."
            )
        setting, method = _setting(folder), str(folder.part("method")["name"])
        if (setting, method) in seen:
            raise ValueError(
                f"runs: the method {method} on {setting} was given twice. Leave one out."
            )
        seen.add((setting, method))
        parts.append(_method_rows(folder, setting, method))
    table = pd.concat(parts, ignore_index=True)
    for column in ("metric", "mean_over_seeds", "p_value", "p_holm"):
        if column not in table:  # every method failed, or p_holm, which is made here
            table[column] = float("nan")
    for _, held in table.groupby(["setting", "metric"], sort=False):
        tested = held["p_value"].dropna()
        adjusted = holm_p_values({str(i): float(p) for i, p in tested.items()})
        for index, value in adjusted.items():
            table.loc[int(index), "p_holm"] = value
    return table


def _setting(folder: LoadedRun) -> str:
    return f"{folder.part('dataset').get('name') or 'run'}, {folder.sensitive}"


def _method_rows(folder: LoadedRun, setting: str, method: str) -> pd.DataFrame:
    failure = folder.part("method").get("failure")
    if failure or not folder.part("test"):
        reason = failure or "not finished"
        return pd.DataFrame([{"setting": setting, "method": method, "failure": reason}])
    rows = collect_results([folder], setting_names([folder])).drop(columns=["dataset", "attribute"])
    rows = rows.assign(setting=setting, method=method, failure=None)
    found = {
        item["metric"]: item
        for item in folder.run.get("comparisons") or []
        if item["reference"] == REFERENCE and item["split"] == "test"
    }
    tested = []
    for metric in rows["metric"]:
        item = found.get(metric) or {"difference": None, "ci": None, "p_value": None}
        tested.append((item["difference"], *(item["ci"] or [None, None]), item["p_value"]))
    names = ("difference", "difference_low", "difference_high", "p_value")
    for name, values in zip(names, zip(*tested, strict=True), strict=True):
        rows[name] = pd.to_numeric(pd.Series(values, index=rows.index), errors="coerce")
    return rows


def comparison_tables(folders: Sequence[LoadedRun], table: pd.DataFrame) -> list[PlainTable]:
    """Lay out results, paired tests and cost of each setting, and the ranks."""
    tables = []
    for setting in table["setting"].unique():
        held = table[table["setting"] == setting]
        own = [folder for folder in folders if _setting(folder) == setting]
        tables += [_results(setting, held), _tests(setting, held), _cost(setting, own)]
    return [*tables, _ranks(table)]


def _results(setting: str, held: pd.DataFrame) -> PlainTable:
    rows = []
    for method, of_method in held.groupby("method", sort=False):
        failure = of_method["failure"].iloc[0]
        if isinstance(failure, str):
            rows.append((str(method), f"failed: {failure}", *[""] * len(COMPARED)))
            continue
        by_metric = _by_metric(of_method)
        cells = []
        for metric in COMPARED:
            row = by_metric[metric]
            cells.append(_with_interval(row["value"], (row["low"], row["high"])))
        mean = by_metric["min_auc"]
        seeds = f"{numbers.fraction(mean['mean_over_seeds'])} ({int(mean['n_seeds'])})"
        rows.append((str(method), *cells, seeds))
    heads = ("Method", *(METRICS[m] for m in COMPARED), "Min-group AUC, mean (seeds)")
    note = (
        "Test rows, the refit with the chosen seed; in brackets 95 % intervals over patients. The last column "
        "is the mean over the refits."
    )
    return PlainTable(f"{setting}: results", note, heads, tuple(rows))


def _by_metric(of_method: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of one method by metric."""
    records: list[dict[str, Any]] = of_method.to_dict("records")  # type: ignore[assignment]
    return {str(record["metric"]): record for record in records}


def _with_interval(value: float, bounds: tuple[float, float]) -> str:
    interval = numbers.interval(bounds)
    return f"{numbers.fraction(value)} [{interval}]" if interval else numbers.fraction(value)


def _tests(setting: str, held: pd.DataFrame) -> PlainTable:
    rows = []
    for method, of_method in held.groupby("method", sort=False):
        by_metric = _by_metric(of_method)
        if method == REFERENCE or "difference" not in of_method:
            continue
        cells: list[str] = []
        for metric in TESTED:
            row = by_metric.get(metric)
            if row is None or pd.isna(row["difference"]):
                cells += [_DASH, _DASH]
                continue
            span = numbers.signed_interval((row["difference_low"], row["difference_high"]))
            shown = numbers.difference(row["difference"])
            cells.append(f"{shown} [{span}]" if span else shown)
            cells.append(_p_value(row["p_holm"]))
        rows.append((str(method), *cells))
    heads = ["Method"]
    for metric in TESTED:
        heads += [f"{METRICS[metric]} minus {REFERENCE}", "p (Holm)"]
    note = (
        "Paired differences on the same test patients, mean over the seeds; the 95 % intervals hold the chance of "
        "patients and of seeds. p-values are two-sided and corrected by Holm over the methods of the column."
    )
    return PlainTable(
        f"{setting}: paired tests against full fine-tuning", note, tuple(heads), tuple(rows)
    )


def _p_value(p: float) -> str:
    if pd.isna(p):
        return _DASH
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _cost(setting: str, folders: Sequence[LoadedRun]) -> PlainTable:
    rows = []
    for folder in folders:
        method, search, choice = (folder.part(name) for name in ("method", "search", "choice"))
        extra = {
            "learning_rate": choice.get("learning_rate"),
            **(choice.get("hyperparameters") or {}),
        }
        values = ", ".join(
            f"{name} {value:.3g}" if numbers.is_number(value) else f"{name} {value}"
            for name, value in extra.items()
            if value is not None
        )
        counts = [search.get(key) for key in ("completed", "pruned", "failed")]
        trainable = method.get("trainable_parameters")
        rows.append(
            (
                str(method.get("name")),
                f"{trainable:,}" if numbers.is_number(trainable) else _DASH,
                " / ".join(_DASH if n is None else str(n) for n in counts),
                _plain(search.get("trained_epochs")),
                _plain(search.get("seconds")),
                _plain(method.get("refit_seconds")),
                values or _DASH,
            )
        )
    heads = (
        "Method",
        "Trainable parameters",
        "Trials completed / pruned / failed",
        "Epochs searched",
        "Seconds of search",
        "Seconds of refits",
        "Chosen",
    )
    note = "Seconds are of this machine, with as many methods at once as it was given workers."
    return PlainTable(f"{setting}: cost", note, heads, tuple(rows))


def _plain(value: Any) -> str:
    return f"{value:,.0f}" if numbers.is_number(value) else _DASH


def _ranks(table: pd.DataFrame) -> PlainTable:
    """Rank the methods that have a value in every setting, by the mean over the seeds."""
    ranks = {}
    n_settings = table["setting"].nunique()
    for metric, higher in COMPARED.items():
        wide = table[table["metric"] == metric].pivot(
            index="setting", columns="method", values="mean_over_seeds"
        )
        order = [m for m in table["method"].unique() if m in wide.columns]
        complete = wide[order].reindex(table["setting"].unique()).dropna(axis=1)
        if complete.shape[1]:
            ranks[metric] = average_ranks(complete, higher_is_better=higher)
    methods = list(table["method"].unique())
    rows = tuple(
        (
            str(method),
            *(
                f"{ranks[m][method]:.2f}" if m in ranks and method in ranks[m] else _DASH
                for m in COMPARED
            ),
        )
        for method in methods
    )
    over = "this setting" if n_settings == 1 else f"{n_settings} settings"
    note = (
        f"Mean rank over {over}, by the mean over the seeds; 1 is best, ties share the mean of their places. A "
        "rank says nothing about whether a difference is beyond noise."
    )
    return PlainTable("Ranks", note, ("Method", *(METRICS[m] for m in COMPARED)), rows)


def markdown(table: PlainTable) -> str:
    """Write a table in Markdown under its title."""
    lines = [f"## {table.title}", "", table.note, ""]
    lines.append("| " + " | ".join(table.heads) + " |")
    lines.append("| --- |" + " ---: |" * (len(table.heads) - 1))
    for row in table.rows:
        safe = (" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in row)
        lines.append("| " + " | ".join(safe) + " |")
    return "\n".join([*lines, ""])


def latex(table: PlainTable) -> str:
    """Write a table in LaTeX (package booktabs) under its title."""
    body = [" & ".join(map(latex_text, row)) + " \\\\" for row in (table.heads, *table.rows)]
    return "\n".join(
        [
            f"% {latex_text(table.title)}: {latex_text(table.note)}",
            "\\begin{tabular}{l" + "r" * (len(table.heads) - 1) + "}",
            "\\toprule",
            body[0],
            "\\midrule",
            *body[1:],
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )
