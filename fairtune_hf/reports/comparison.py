"""Methods side by side, in one setting or many: results, paired tests, cost, means and ranks.

A setting is a data set and an attribute. Its methods are those of one run (what a search chose, and its
controls) or of several (the methods of a comparison); a method that failed is a row that says why. Reads
`run.json` files alone. Holm's correction is made here, over the methods that are set side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.metrics.multiplicity import holm_p_values
from fairtune_hf.run_folder import write_text
from fairtune_hf.run_record import MethodRecord, RunRecord

from .comparison_figures import comparison_figures
from .comparison_tables import COMPARED, comparison_tables
from .figure import write_figure_data
from .loaded_run import LoadedRun, read_run
from .plain_table import latex, markdown
from .templating import page_environment
from .verdict import run_verdict

REFERENCE = "full"  # what the methods of a comparison are compared with


def render_comparison(run_dirs: Sequence[Path | str], out: Path | str) -> Path:
    """Write `comparison.html`, `.md`, `.tex` and `.csv` and the figures' data into a folder.

    Args:
        run_dirs: Folders of runs, of methods of a comparison, or of whole comparisons; of one or several
            data sets and attributes. Runs whose test rows were not read are left out and named.
        out: Folder to write to; made if it does not exist.

    Returns:
        The path of the HTML page.

    Raises:
        FileNotFoundError: A folder has no `run.json`.
        ValueError: Nothing has test results, or a folder, or a method of a setting, is given twice.
    """
    paths = [Path(run_dir) for run_dir in run_dirs]
    _check_different(paths)
    folders = [read_run(path) for path in paths]
    held = [folder for folder in folders if folder.result("test") or is_method(folder.record)]
    if not held:
        raise ValueError(
            f"runs: expected at least one run whose test rows were read; none of the {len(paths)} "
            "given has a `test` part in its run.json. Run `fairtune evaluate --run` on each first."
        )
    settings = collect_settings(held)
    table = collect_results(settings)
    tables, figures, to = (
        comparison_tables(settings, table),
        comparison_figures(settings),
        Path(out),
    )
    for figure in figures:
        write_figure_data(to / "figures", figure)
    write_text(to / "comparison.csv", table.to_csv(index=False, lineterminator="\n"))
    write_text(to / "comparison.md", "\n".join(map(markdown, tables)))
    write_text(to / "comparison.tex", "\n".join(map(latex, tables)))
    content = {
        "settings": list(settings),
        "tables": tables,
        "figures": figures,
        "verdicts": [(name, run_verdict(run)) for name, run in settings.items() if run.chosen],
        "left_out": [folder.path.name for folder in folders if folder not in held],
    }
    html = page_environment().get_template("comparison.html.jinja").render(content)
    return write_text(to / "comparison.html", html)


render_methods = render_comparison  # its name where methods of a comparison are meant


def is_method(run: RunRecord) -> bool:
    """Whether a run is one method of a comparison, or a whole comparison: no search with its controls."""
    return run.chosen is None or bool(run.own.source or run.own.failure)


def _check_different(paths: Sequence[Path]) -> None:
    resolved = [path.resolve() for path in paths]
    twice = sorted({str(path) for path in resolved if resolved.count(path) > 1})
    if twice:
        raise ValueError(f"runs: each folder counts once; {', '.join(twice)} was given twice.")


def collect_settings(folders: Sequence[LoadedRun]) -> dict[str, RunRecord]:
    """Return the record of each setting by its name, the methods of one data set and attribute in one.

    Raises:
        ValueError: A method of a setting is given twice.
    """
    parts: dict[str, list[RunRecord]] = {}
    for folder in folders:
        if is_method(folder.record):
            parts.setdefault(folder.setting, []).append(folder.record)
    settings = {name: merge_methods(records, name) for name, records in parts.items()}
    runs = [folder for folder in folders if not is_method(folder.record)]
    names = [*settings, *(folder.setting for folder in runs)]
    for folder in runs:
        name = folder.setting
        settings[name if names.count(name) == 1 else f"{name} ({folder.path.name})"] = folder.record
    return settings


def merge_methods(records: Sequence[RunRecord], setting: str = "the same data") -> RunRecord:
    """Put the methods of several runs on the same data into one record, as that of a comparison.

    Raises:
        ValueError: A method is given twice.
    """
    first = next((run for run in records if run.model), records[0])
    merged = RunRecord(
        dataset=first.dataset,
        model=first.model,
        chosen=None,
        reference=next((run.reference for run in records if run.reference), None),
        versions=first.versions,
        hardware=first.hardware,
    )
    for run in records:
        for name, method in run.methods.items():
            if name in merged.methods:
                raise ValueError(
                    f"runs: the method {name} on {setting} was given twice. Leave one out."
                )
            merged.methods[name] = method
        merged.comparisons += run.comparisons
        merged.warnings += [text for text in run.warnings if text not in merged.warnings]
    return merged


def collect_results(settings: Mapping[str, RunRecord]) -> pd.DataFrame:
    """Return one row a setting, method and metric, with paired differences and Holm's p-values.

    The value is that of the refit with the choice's seed. The differences are those of the row's method minus
    the setting's `reference`. Methods that failed have one row without a metric, with the reason under `failure`.
    """
    rows = [
        {
            "setting": setting,
            "dataset": run.dataset.name,
            "attribute": run.dataset.sensitive or "group",
            "reference": run.reference,
            "method": name,
            **row,
        }
        for setting, run in settings.items()
        for name, method in run.methods.items()
        for row in _method_rows(name, method, run)
    ]
    table = pd.DataFrame(rows, columns=[*_PLACE, *_VALUES])
    numbers = [name for name in _VALUES if name not in ("metric", "failure")]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    for _, held in table.groupby(["setting", "metric"], sort=False):
        tested = held["p_value"].dropna()
        adjusted = holm_p_values({str(i): float(p) for i, p in tested.items()})
        for index, value in adjusted.items():
            table.loc[int(index), "p_holm"] = value
    return table


_PLACE = ("setting", "dataset", "attribute", "reference", "method")
_VALUES = (
    *("metric", "value", "low", "high", "mean_over_seeds", "n_seeds", "failure"),
    *("difference", "difference_low", "difference_high", "p_value", "p_holm"),
)


def _method_rows(name: str, method: MethodRecord, run: RunRecord) -> list[dict[str, Any]]:
    result = method.result("test")
    if method.failure or not result:
        return [{"failure": method.failure or "not finished"}]
    rows = []
    for metric in COMPARED:
        known = [v for r in method.results("test") if (v := r.value(metric)) is not None]
        low, high = result.interval(metric) or (None, None)
        rows.append(
            {
                "metric": metric,
                "value": result.value(metric),
                "low": low,
                "high": high,
                "mean_over_seeds": sum(known) / len(known) if known else None,
                "n_seeds": len(known),
                **_tested(name, metric, run),
            }
        )
    return rows


def _tested(name: str, metric: str, run: RunRecord) -> dict[str, Any]:
    """Return the paired difference of a method minus the reference, whichever of the two was recorded first."""
    for item in run.comparisons:
        pair = {item.method, item.reference}
        if (item.metric, item.split) != (metric, "test") or pair != {name, run.reference}:
            continue
        sign = 1 if item.method == name else -1
        bounds = sorted(sign * end for end in item.ci or () if end is not None)
        low, high = bounds if len(bounds) == 2 else (None, None)
        return {
            "difference": None if item.difference is None else sign * item.difference,
            "difference_low": low,
            "difference_high": high,
            "p_value": item.p_value,
        }
    return {}
