"""Figures of a search: its history, learning curves, and its objective against another metric."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from fairtune_hf.metrics.registry import METRICS

from . import numbers, svg
from .figure import Figure, legend_key, series_keys, shortened
from .loaded_run import LoadedRun
from .tables import capital

_STATE_MARKS = {
    "COMPLETE": ("circle", "fill s0", "completed"),
    "PRUNED": ("down", "open s3", "pruned (last value)"),
    "RUNNING": ("square", "open s7", "still running"),
    "FAIL": ("cross", "stroke s1", "failed"),
}


def objective_words(name: str) -> str:
    """Return the words for an objective within a sentence; one that has none is named as in the command."""
    words = METRICS[name].label if name in METRICS else name
    return words[0].lower() + words[1:] if words[1:2].islower() else words


def axis_words(name: str, sign: int) -> str:
    """Return the words for an objective on an axis, which say so where small is good."""
    return objective_words(name) + ("" if sign > 0 else " (lower is better)")


def history_figure(folder: LoadedRun) -> Figure | None:
    """Draw each trial's value by its state, with the best completed value so far."""
    trials = folder.trials.copy()
    if trials.empty:
        return None
    trials["value"] = pd.to_numeric(trials["value"], errors="coerce")
    trials = trials.sort_values("number")
    complete = trials["state"].eq("COMPLETE")
    name, sign = folder.objective
    trials["best_so_far"] = sign * (sign * trials["value"]).where(complete).cummax().ffill()
    last = _last_values(folder.curves)
    shown = trials["value"].fillna(trials["number"].map(last))
    if not shown.notna().any():
        return None
    low, high = svg.padded([float(v) for v in shown.dropna()])
    last_number = float(trials["number"].max())
    axes = svg.Axes((min(-0.5, 0.0), last_number + 0.5), (low, high))
    parts = [axes.frame("trial", f"{axis_words(name, sign)}, validation", whole_x=True)]
    best = trials[trials["best_so_far"].notna()]
    if len(best):
        x = [*(float(v) for v in best["number"]), last_number + 0.5]
        y = [*(float(v) for v in best["best_so_far"]), float(best["best_so_far"].iloc[-1])]
        parts.append(axes.steps(x, y, "line s2 dashed"))
    for row, value in zip(trials.itertuples(), shown, strict=True):
        parts.append(_trial_mark(axes, row, float(value)))
    present = [s for s in _STATE_MARKS if trials["state"].eq(s).any()]
    counted = ", ".join(f"{int(trials['state'].eq(s).sum())} {_STATE_MARKS[s][2]}" for s in present)
    top = float(best["best_so_far"].iloc[-1]) if len(best) else math.nan
    kept = ["number", "state", "value", "best_so_far", "preset", "learning_rate", "mask"]
    marks = [_STATE_MARKS[s] for s in present]
    return Figure.draw(
        "search_history",
        "The search, trial by trial",
        "Value of every trial and the best completed one so far. The best of many noisy values looks "
        "too good on average: see the optimism below.",
        parts,
        trials[[column for column in kept if column in trials]],
        *((legend_key(shape, class_), words) for shape, class_, words in marks),
        (legend_key("line", "line s2 dashed"), "best so far"),
        alt=(
            "Value of each trial of the search",
            f"{len(trials)} trials: {counted}; best value {numbers.fraction(top)}",
        ),
    )


def _last_values(curves: pd.DataFrame) -> dict[Any, float]:
    if curves.empty:
        return {}
    ordered = curves.dropna(subset=["value"]).sort_values("epoch")
    return {
        number: float(value) for number, value in ordered.groupby("number")["value"].last().items()
    }


def _trial_mark(axes: svg.Axes, row: Any, value: float) -> Markup:
    shape, class_, words = _STATE_MARKS.get(str(row.state), ("plus", "stroke s7", str(row.state)))
    y = axes.py(value) if math.isfinite(value) else float(axes.top + axes.height - 6)
    preset = row.preset if isinstance(row.preset, str) and row.preset else "sampled mask"
    title = (
        f"trial {row.number}, {words}: {numbers.fraction(value)}, {preset}, "
        f"learning rate {numbers.learning_rate(row.learning_rate)}"
    )
    return svg.mark(shape, axes.px(float(row.number)), y, 4, class_, title)


def curves_figure(folder: LoadedRun) -> Figure | None:
    """Draw the validation value of every trial by epoch, the chosen trial in front."""
    curves = folder.curves
    curves = curves.dropna(subset=["epoch", "value"]) if len(curves) else curves
    if curves.empty:
        return None
    chosen = folder.record.choice.trial
    first, last = float(curves["epoch"].min()), float(curves["epoch"].max())
    axes = svg.Axes((first, max(last, first + 1)), svg.padded([float(v) for v in curves["value"]]))
    parts = [axes.frame("epoch", f"{axis_words(*folder.objective)}, validation", whole_x=True)]
    by_trial = curves.groupby("number")
    lines: dict[Any, pd.DataFrame] = {n: frame.sort_values("epoch") for n, frame in by_trial}
    order = sorted(lines, key=lambda number: number == chosen)
    for number in order:
        frame = lines[number]
        x, y = frame["epoch"].astype(float).tolist(), frame["value"].astype(float).tolist()
        front = number == chosen
        parts.append(axes.line(x, y, "line s0 thick" if front else "line faint"))
        if front or len(x) == 1:
            parts += axes.dots("circle", x, y, 3, "fill s0" if front else "fill s7")
    keys = [(legend_key("line", "line faint"), "other trials")]
    described = f"{len(lines)} trials"
    if chosen in lines:
        keys.insert(0, (legend_key("line", "line s0 thick"), f"chosen trial ({chosen})"))
        ends = lines[chosen]["value"].astype(float)
        described += (
            f"; the chosen trial {chosen} went from {numbers.fraction(ends.iloc[0])} to "
            f"{numbers.fraction(ends.iloc[-1])}"
        )
    return Figure.draw(
        "learning_curves",
        "Learning curves of the trials",
        f"{capital(axis_words(*folder.objective))} over the whole validation split after each epoch; a "
        "line that stops early was pruned.",
        parts,
        curves,
        *keys,
        alt=("Validation value of each trial by epoch", described),
    )


def group_curves_figure(folder: LoadedRun) -> Figure | None:
    """Draw the AUC of each group by epoch in the chosen trial."""
    curves, chosen = folder.curves, folder.record.choice.trial
    rows = curves[curves["number"] == chosen].sort_values("epoch") if len(curves) else curves
    names = group_columns(curves, folder.small_groups("validation"))
    names = [name for name in names if rows[f"auc_{name}"].notna().any()] if len(rows) else []
    if len(rows) < 2 or not names:
        return None
    x = rows["epoch"].astype(float).tolist()
    drawn = {name: rows[f"auc_{name}"].astype(float).tolist() for name in names}
    train = {name: f"train_auc_{name}" for name in names if f"train_auc_{name}" in rows}
    every = [value for values in drawn.values() for value in values]
    every += [float(v) for column in train.values() for v in rows[column]]
    axes = svg.Axes((min(x), max(x)), svg.padded(every))
    parts = [axes.frame("epoch", "AUC", whole_x=True)]
    for index, (name, y) in enumerate(drawn.items()):
        colour = svg.series_class(index)
        parts.append(axes.line(x, y, f"line {colour}"))
        parts += axes.dots(svg.series_shape(index), x, y, 3.5, f"fill {colour}")
        if name in train:
            fitted = rows[train[name]].astype(float).tolist()
            parts.append(axes.line(x, fitted, f"line {colour} dashed"))
    ends = ", ".join(f"{name} {numbers.fraction(y[-1])}" for name, y in drawn.items())
    both = " (solid) and training set (dashed: scored while it was trained on, pictures augmented)"
    return Figure.draw(
        "group_curves",
        "Learning curves of the groups",
        f"Chosen trial {chosen}, validation set{both if train else ''}.",
        parts,
        rows[["number", "epoch", *(f"auc_{name}" for name in names), *train.values()]],
        *series_keys(shortened(name, 40) for name in names),
        alt=(
            "AUC of each group by epoch in the chosen trial",
            f"AUC after the last epoch: {ends}",
        ),
    )


def group_columns(curves: pd.DataFrame, hidden: set[str]) -> list[str]:
    """Name the groups that have a column `auc_NAME` in the learning curves."""
    names = [str(c).removeprefix("auc_") for c in curves.columns if str(c).startswith("auc_")]
    return [name for name in names if name != "gap" and name not in hidden]


def pareto_figure(folder: LoadedRun) -> Figure | None:
    """Draw the objective of the completed trials against the second one, with the front of the two.

    A search with one objective has overall AUC as the second, or the gap if it looked for overall AUC.
    """
    objectives = folder.objectives
    name, sign = folder.objective
    others = {**objectives, "overall_auc": 1, "auc_gap": -1}
    other = next(key for key in others if key != name)
    trials = folder.trials
    if trials.empty or not {other, "value"} <= set(trials.columns):
        return None
    points = trials[trials["state"].eq("COMPLETE")].copy()
    for column in (other, "value"):
        points[column] = pd.to_numeric(points[column], errors="coerce")
    points = points.dropna(subset=[other, "value"])
    if len(points) < 2:
        return None
    points["on_front"] = pareto_front(
        (others[other] * points[other]).tolist(), (sign * points["value"]).tolist()
    )
    axes = svg.Axes(svg.padded(points[other]), svg.padded(points["value"]))
    front = points[points["on_front"]].sort_values(other)
    words = objective_words(other), objective_words(name)
    parts = [
        axes.frame(
            f"{axis_words(other, others[other])}, validation",
            f"{axis_words(name, sign)}, validation",
        ),
        axes.line(front[other].tolist(), front["value"].tolist(), "line s2 dashed"),
    ]
    chosen = folder.record.choice.trial
    parts += [
        _pareto_mark(axes, row, float(x), words, chosen)
        for row, x in zip(points.itertuples(), points[other], strict=True)
    ]
    title = f"{capital(words[0])} against {words[1]}"
    kept = ["number", other, "value", "on_front", "preset"]
    listed = ", ".join(str(number) for number in front["number"])
    return Figure.draw(
        "pareto",
        title,
        "Completed trials. For any trial off the dashed front another one was at least as good in both "
        "and better in one.",
        parts,
        points[[column for column in kept if column in points]],
        (legend_key("circle", "fill s0"), "sampled mask"),
        (legend_key("diamond", "fill s3"), "preset mask"),
        (legend_key("circle", "ring"), "chosen trial"),
        (legend_key("line", "line s2 dashed"), "Pareto front"),
        alt=(
            f"{title} of the trials",
            f"{len(front)} of {len(points)} trials are on the Pareto front: {listed}",
        ),
    )


def pareto_front(first: list[float], second: list[float]) -> list[bool]:
    """Tell of each point whether no other is at least as high in both and higher in one."""
    points = list(zip(first, second, strict=True))
    return [not any(a >= x and b >= y and (a > x or b > y) for a, b in points) for x, y in points]


def _pareto_mark(
    axes: svg.Axes, row: Any, other: float, words: tuple[str, str], chosen: object
) -> Markup:
    x, y = axes.px(other), axes.py(row.value)
    preset = row.preset if isinstance(row.preset, str) and row.preset else ""
    title = (
        f"trial {row.number}{', ' + preset if preset else ''}: {words[0]} "
        f"{numbers.fraction(other)}, {words[1]} {numbers.fraction(row.value)}"
    )
    parts = [
        svg.mark(
            "diamond" if preset else "circle", x, y, 4, f"fill {'s3' if preset else 's0'}", title
        )
    ]
    if row.number == chosen:
        parts.append(svg.mark("circle", x, y, 9, "ring"))
    return svg.group(parts)
