"""Figures of the scores by group: ROC curves and reliability."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from . import numbers, svg
from .figure import Figure, legend_key, series_keys, shortened
from .loaded_run import LoadedRun
from .scores import refit_predictions, reliability_points, roc_points


def _square(data: pd.DataFrame, x: str, y: str) -> tuple[svg.Axes, list[Markup], list[str]]:
    """Return axes from 0 to 1 with their names and the diagonal, and the names of the groups."""
    axes = svg.Axes((0.0, 1.0), (0.0, 1.0), left=50, top=12, width=320, height=320)
    diagonal = axes.line([0.0, 1.0], [0.0, 1.0], "line chance")
    return axes, [axes.frame(x, y), diagonal], [str(name) for name in data["group"].unique()]


def roc_figure(folder: LoadedRun, split: str) -> Figure | None:
    """Draw the ROC curve of each group."""
    data = roc_points(refit_predictions(folder, split))
    if data.empty:
        return None
    words = ("false positive rate (1 \u2212 specificity)", "true positive rate (sensitivity)")
    axes, parts, names = _square(data, *words)
    for index, name in enumerate(names):
        rows = data[data["group"] == name]
        x, y = rows["false_positive_rate"].tolist(), rows["true_positive_rate"].tolist()
        parts.append(axes.line(x, y, f"line {svg.series_class(index)} d{index % svg.SERIES}"))
    known = {name: row.auc for name, row in folder.result(split).groups.items()}
    values = ", ".join(f"{name} {numbers.fraction(known.get(name))}" for name in names)
    lines = [f"line {svg.series_class(i)} d{i % svg.SERIES}" for i in range(len(names))]
    return Figure.draw(
        "roc",
        "ROC curves of the groups",
        f"Refit with the chosen seed, {split} set. The dotted diagonal is chance.",
        parts,
        data,
        *((legend_key("line", c), shortened(n, 40)) for c, n in zip(lines, names, strict=True)),
        alt=("ROC curve of each group", f"Areas under the curves: {values}"),
        height=380,
    )


def reliability_figure(folder: LoadedRun, split: str) -> Figure | None:
    """Draw the share of positive labels against the mean score, by group."""
    data = reliability_points(refit_predictions(folder, split))
    if data.empty:
        return None
    axes, parts, names = _square(data, "mean score of the bin", "share with a positive label")
    for index, name in enumerate(names):
        rows, colour = data[data["group"] == name], svg.series_class(index)
        x, y = rows["mean_score"].tolist(), rows["share_positive"].tolist()
        parts.append(axes.line(x, y, f"line {colour} d{index % svg.SERIES}"))
        parts += [_reliability_mark(axes, row, index) for row in rows.itertuples()]
    return Figure.draw(
        "reliability",
        "Reliability of the scores",
        f"Bins of at least 25 pictures, {split} set, Wilson's 95\u202f% intervals, which take pictures for "
        "independent: too narrow where patients have several. On the dotted line a score of 0.3 means "
        "that 30\u202f% are positive; above it the scores are too low for that group.",
        parts,
        data,
        *series_keys(shortened(name, 40) for name in names),
        alt=(
            "Share of positive labels against the mean score, by group",
            _reliability_words(data, names),
        ),
        height=380,
    )


def _reliability_mark(axes: svg.Axes, row: Any, index: int) -> Markup:
    x, colour = axes.px(row.mean_score), svg.series_class(index)
    title = (
        f"{row.group}: mean score {numbers.fraction(row.mean_score, 2)}, share positive "
        f"{numbers.fraction(row.share_positive, 2)} of {numbers.count(row.n)}"
    )
    low, high = axes.py(row.low), axes.py(row.high)
    whisker = svg.element("line", x1=x, x2=x, y1=low, y2=high, class_=f"whisker {colour}")
    shape, y = svg.series_shape(index), axes.py(row.share_positive)
    return svg.group([whisker, svg.mark(shape, x, y, 4, f"fill {colour}", title)])


def _reliability_words(data: pd.DataFrame, names: list[str]) -> str:
    words = []
    for name in names:
        rows = data[data["group"] == name]
        gap = (rows["share_positive"] - rows["mean_score"]).mean()
        words.append(
            f"{name}: share positive minus mean score {numbers.difference(gap)} on average"
        )
    return "; ".join(words)
