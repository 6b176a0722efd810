"""Figures of intervals: paired differences against the controls, and the AUC of each group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from fairtune_hf.metrics.registry import TESTED, is_small_good

from . import numbers, svg
from .figure import Figure, bottom_axis, bound, legend_key, shortened
from .loaded_run import LoadedRun
from .search_figures import axis_words
from .tables import capital, method_results
from .verdict import method_name

_METRIC_WORDS = {name: axis_words(name, -1 if is_small_good(name) else 1) for name in TESTED}


def difference_figure(folder: LoadedRun) -> Figure | None:
    """Draw the paired differences of minimum AUC against each control, with the line of no change."""
    found = [
        item
        for item in folder.run.get("comparisons") or []
        if numbers.is_number(item.get("difference")) and item.get("split", "test") == "test"
    ]
    if not found:
        return None
    order = [*_METRIC_WORDS]
    found.sort(
        key=lambda item: order.index(_metric(item)) if _metric(item) in order else len(order)
    )
    rows = pd.DataFrame(
        {
            "metric": [_metric(item) for item in found],
            "reference": [str(item.get("reference")) for item in found],
            "difference": [float(item["difference"]) for item in found],
            "low": [bound(item.get("ci"), 0) for item in found],
            "high": [bound(item.get("ci"), 1) for item in found],
        }
    )
    span = svg.padded([0.0, *rows["difference"], *rows["low"], *rows["high"]])
    height = 62 + 40 * len(rows)
    axes = svg.Axes(span, (float(len(rows)), 0.0), left=12, width=396, top=4, height=40 * len(rows))
    parts = [_interval_row(axes, index, row) for index, row in enumerate(rows.itertuples())]
    zero = axes.px(0.0)
    line = svg.element(
        "line", x1=zero, x2=zero, y1=axes.top, y2=axes.top + axes.height, class_="zero"
    )
    ticks = bottom_axis(axes, "difference: chosen mask minus control")
    return Figure(
        "differences",
        "Chosen mask against its controls",
        "Each bar is a 95\u202f% interval paired by patient. One that touches the vertical line at 0 "
        "is within noise. For AUC, right of the line is better for the chosen mask; for the gap, left. "
        "The bars are not corrected for their number.",
        svg.picture(
            [line, ticks, *parts],
            identity="differences",
            title="Differences of AUC between the chosen mask and its controls",
            description="; ".join(
                f"{row.metric} against {method_name(str(row.reference))}: "
                f"{numbers.difference(row.difference)} "
                f"({numbers.signed_interval((row.low, row.high))})"
                for row in rows.itertuples()
            ),
            height=height,
        ),
        rows,
    )


def _metric(item: Mapping[str, Any]) -> str:
    return str(item.get("metric", "min_auc"))


def _interval_row(axes: svg.Axes, index: int, row: Any) -> Markup:
    y = axes.top + 40 * index + 28
    reference = method_name(str(row.reference))
    metric = _METRIC_WORDS.get(str(row.metric), str(row.metric).replace("_", " "))
    words = f"{metric} against {reference}"
    label = svg.text(axes.left, y - 14, shortened(words, 56), class_="label")
    value = svg.text(
        axes.left + axes.width,
        y - 14,
        numbers.difference(row.difference),
        class_="label",
        text_anchor="end",
    )
    bar = Markup("")
    if math.isfinite(row.low) and math.isfinite(row.high):
        bar = svg.element(
            "line", x1=axes.px(row.low), x2=axes.px(row.high), y1=y, y2=y, class_="bar s0"
        )
    dot = svg.mark("circle", axes.px(row.difference), y, 5, "fill s0")
    return svg.group([label, value, bar, dot])


def group_figure(folder: LoadedRun, split: str) -> Figure | None:
    """Draw each group's AUC with its interval, under the chosen mask and each control."""
    records = [
        (
            str(name),
            method,
            float(row["auc"]),
            bound(row.get("auc_ci"), 0),
            bound(row.get("auc_ci"), 1),
        )
        for method, result in method_results(folder.run, split).items()
        for name, row in (result.get("groups") or {}).items()
        if numbers.is_number(row.get("auc"))
    ]
    if not records:
        return None
    data = pd.DataFrame(records, columns=["group", "method", "auc", "low", "high"])
    shown = set(data["group"])
    groups = [name for name in folder.group_order(split) if name in shown]
    methods = list(data["method"].unique())
    step = 13 * len(methods) + 26
    axes = svg.Axes(
        svg.padded([*data["auc"], *data["low"], *data["high"]]),
        (0.0, 1.0),
        left=12,
        width=396,
        top=4,
        height=step * len(groups),
    )
    parts = [bottom_axis(axes, f"AUC on the {split} set, with 95\u202f% intervals")]
    for row in data.itertuples():
        method = methods.index(row.method)
        y = axes.top + step * groups.index(str(row.group)) + 27 + 13 * method
        parts.append(_interval_mark(axes, row, y, method))
    for index, name in enumerate(groups):
        y = axes.top + step * index + 14
        parts.append(svg.text(axes.left, y, shortened(name, 52), class_="label"))
    described = "; ".join(
        f"{row.group} under {method_name(str(row.method))}: {numbers.fraction(row.auc)}"
        for row in data.itertuples()
    )
    return Figure(
        "group_auc",
        "AUC of each group",
        "The leftmost point of a method is its worst group; the spread of its points is its gap.",
        svg.picture(
            parts,
            identity="group_auc",
            title=f"AUC of each group on the {split} set",
            description=described,
            height=axes.height + 60,
        ),
        data,
        tuple(
            (
                legend_key(svg.series_shape(i), f"fill {svg.series_class(i)}"),
                capital(method_name(m)),
            )
            for i, m in enumerate(methods)
        ),
    )


def _interval_mark(axes: svg.Axes, row: Any, y: float, index: int) -> Markup:
    colour = svg.series_class(index)
    title = (
        f"{row.group}, {method_name(str(row.method))}: {numbers.fraction(row.auc)} "
        f"({numbers.interval((row.low, row.high))})"
    )
    parts = [svg.mark(svg.series_shape(index), axes.px(row.auc), y, 4.5, f"fill {colour}", title)]
    if math.isfinite(row.low) and math.isfinite(row.high):
        line = svg.element(
            "line",
            x1=axes.px(row.low),
            x2=axes.px(row.high),
            y1=y,
            y2=y,
            class_=f"whisker {colour}",
        )
        parts.insert(0, line)
    return svg.group(parts)
