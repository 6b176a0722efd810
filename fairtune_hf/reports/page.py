"""`report.html`: the page of one run, a single file that needs no network.

Built from the run's folder alone. Every string is escaped by Jinja2's autoescape; patient codes
are counted, never printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fairtune_hf.run_folder import write_text

from . import cost, interval_figures, mask_figures, numbers, score_figures, search_figures, tables
from .figure import Figure, write_figure_data
from .loaded_run import LoadedRun, read_run
from .scores import OperatingRow, operating_rows, refit_predictions
from .templating import page_environment
from .verdict import flag_words, method_name, run_verdict, worst_group


def render_report(run_dir: Path | str, out: Path | str | None = None) -> Path:
    """Write `report.html` and the figures' data (`figures/*.csv`) into a run's folder, or another.

    A run that has only been searched gives a page that says what is still to do.

    Args:
        run_dir: Folder of a run, with at least `run.json`.
        out: Folder to write to, for a run that may only be read; the run's own if not given.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: There is no `run.json`.
        ValueError: A file of the run cannot be read.
    """
    folder = read_run(run_dir)
    to, drawn = folder.path if out is None else Path(out), draw_figures(folder)
    for figure in drawn.values():
        write_figure_data(to / "figures", figure)
    return write_text(to / "report.html", report_text(folder, drawn))


def report_text(folder: LoadedRun, drawn: dict[str, Figure] | None = None) -> str:
    """Return the whole page as text; nothing is written."""
    figures = draw_figures(folder) if drawn is None else drawn
    return (
        page_environment().get_template("report.html.jinja").render(page_content(folder, figures))
    )


def draw_figures(folder: LoadedRun) -> dict[str, Figure]:
    """Draw every figure that the run has data for, by name."""
    split = folder.final_split or "validation"
    drawn = [
        interval_figures.difference_figure(folder),
        interval_figures.group_figure(folder, split),
        score_figures.roc_figure(folder, split),
        score_figures.reliability_figure(folder, split),
        mask_figures.mask_figure(folder),
        mask_figures.frequency_figure(folder),
        cost.importance_figure(folder),
        search_figures.history_figure(folder),
        search_figures.curves_figure(folder),
        search_figures.group_curves_figure(folder),
        search_figures.pareto_figure(folder),
    ]
    return {figure.name: figure for figure in drawn if figure is not None}


def page_content(folder: LoadedRun, drawn: dict[str, Figure]) -> dict[str, Any]:
    """Gather what the template prints."""
    split = folder.final_split
    record = folder.record
    dataset, own = record.dataset, record.own
    shown_split = split or "test"
    methods = tables.method_rows(record, shown_split)
    return {
        "title": f"{dataset.external or dataset.name or 'run'}, {folder.sensitive}",
        "dataset": dataset,
        "sensitive": folder.sensitive,
        "split": split,
        "state": run_state(folder),
        "verdict": run_verdict(record),
        "missing": missing_steps(folder),
        "flag_words": flag_words(record, split=shown_split),
        "worst_group": worst_group(own.result(shown_split)),
        "metrics": list(tables.shown_metrics(record, shown_split).values()),
        "methods": methods,
        "chosen": record.chosen,
        "auc_heads": [f"AUC, {row.label.lower()}" for row in methods],
        "groups": tables.group_rows(folder, shown_split),
        "operating": operating_table(folder, shown_split),
        "splits": tables.split_rows(folder),
        "data_rows": tables.data_rows(folder),
        "search": tables.search_rows(folder),
        "optimism": optimism_words(own.search.optimism),
        "best_trials": best_trials(folder.trials, folder.objective[1]),
        "objective": search_figures.axis_words(*folder.objective),
        "cost": cost.cost_rows(folder),
        "cost_heads": list(cost.COST_HEADS),
        "reproduce": tables.reproduce_rows(folder),
        "commands": reproduce_commands(folder),
        "config": tables.config_text(folder),
        "dropped": {str(k): str(v) for k, v in dataset.dropped.items()},
        "warnings": warning_lines(folder, split),
        "figures": drawn,
        "demo": (dataset.name or "").startswith("demo"),
        "n_seeds": own.n_seeds,
        "threshold": numbers.fraction(own.result(shown_split).value("threshold"), 2),
    }


def operating_table(folder: LoadedRun, split: str) -> list[OperatingRow]:
    """Return the operating point and calibration of each group, from the refit's predictions."""
    threshold = folder.result(split).values.get("threshold", 0.5)
    if not numbers.is_number(threshold):
        return []
    return operating_rows(refit_predictions(folder, split), float(threshold))


def run_state(folder: LoadedRun) -> str:
    """Return how far the run has come: `evaluated`, `refitted`, `searched` or `started`."""
    if folder.result("test"):
        return "evaluated"
    if folder.result("validation") or not folder.predictions.empty:
        return "refitted"
    return "searched" if len(folder.trials) else "started"


def missing_steps(folder: LoadedRun) -> list[tuple[str, str]]:
    """Say what cannot be shown yet, and the command that adds it."""
    steps = []
    if folder.trials.empty:
        steps.append(("No trials yet; masks and learning rates are tried by", "fairtune search"))
    if folder.predictions.empty:
        steps.append(("No refit yet; the chosen mask is trained by", "fairtune finetune --run DIR"))
    elif not folder.record.controls:
        steps.append(
            ("No controls to compare with; they are trained by", "fairtune finetune --run DIR")
        )
    if not folder.result("test"):
        words = "Test rows not scored yet; they are measured, once scored, by"
        if not folder.predictions.empty:
            words = "Test rows are scored and not measured yet; they are measured by"
        steps.append((words, "fairtune evaluate --run DIR"))
    return steps


def reproduce_commands(folder: LoadedRun) -> list[str]:
    """Return the commands that repeat the run from its `config.yaml`, as far as it has come."""
    if not folder.config:
        return []
    commands = ["fairtune search --config config.yaml --out DIR"]
    if folder.record.own.n_seeds:
        commands += [
            f"fairtune finetune --run DIR --seeds {folder.record.own.n_seeds}",
            "fairtune evaluate --run DIR",
            "fairtune report --run DIR",
        ]
    return commands


_OF_METHOD = re.compile(
    r"^(?P<method>[\w ]+), (?P<split>validation|test): (?P<words>.*)$", re.DOTALL
)


def merged_warnings(found: Sequence[str]) -> list[str]:
    """Say a warning once that several methods share, with the methods it holds for."""
    methods: dict[tuple[str, str], list[str]] = {}
    plain: list[str] = []
    for item in dict.fromkeys(found):
        match = _OF_METHOD.match(item)
        if match is None:
            plain.append(item)
            continue
        key = (match["split"], match["words"])
        methods.setdefault(key, []).append(method_name(match["method"]))
    told = {words for _, words in methods}
    return [item for item in plain if item not in told] + [
        f"{split} ({', '.join(names)}): {words}" for (split, words), names in methods.items()
    ]


def warning_lines(folder: LoadedRun, split: str | None) -> list[str]:
    """Gather the warnings of the run and of a split, counts of small groups hidden."""
    found = [tables.without_folders(item) for item in folder.record.warnings]
    if split is None:
        return list(dict.fromkeys(found))
    part, small = folder.result(split), folder.small_groups(split)
    found += part.warnings
    lines = [numbers.hide_small_counts(item, small) for item in merged_warnings(found)]
    if worst_group(part) in small:
        lines.insert(
            0,
            f"The lowest AUC on the {split} set is that of a group of fewer than ten people "
            f"({worst_group(part)}): a few pictures more or less would change it.",
        )
    return lines


def optimism_words(optimism: object) -> str:
    """Say by how much the best of the search's values looks too good, whichever way good is."""
    if isinstance(optimism, dict):
        optimism = next((optimism[k] for k in ("optimism", "value") if k in optimism), None)
    if not numbers.is_number(optimism):
        return ""
    return (
        "Picking the best of many noisy trials makes its validation value look too good, by at most "
        f"about {numbers.fraction(optimism)} on average: the estimate takes the trials' errors for "
        "independent, and trials judged on the same patients share a part of them."
    )


def best_trials(trials: pd.DataFrame, sign: int, count: int = 5) -> list[dict[str, str]]:
    """Return the best completed trials, best first: largest value first where `sign` is 1, else smallest."""
    if trials.empty:
        return []
    done = trials[trials["state"].eq("COMPLETE")].copy()
    done["value"] = pd.to_numeric(done["value"], errors="coerce")
    top = done.dropna(subset=["value"]).sort_values("value", ascending=sign < 0).head(count)
    return [
        {
            "number": f"Trial {row.number}",
            "value": numbers.fraction(row.value),
            "preset": row.preset if isinstance(row.preset, str) and row.preset else "sampled",
            "trained": f"{str(row.mask).count('1')} of {len(str(row.mask))}",
            "learning_rate": numbers.learning_rate(row.learning_rate),
            "time": numbers.seconds(row.seconds),
        }
        for row in top.itertuples()
    ]
