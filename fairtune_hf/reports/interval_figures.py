"""Figures of intervals: paired differences against the controls, and the AUC of each group."""

from __future__ import annotations

from typing import Any

import pandas as pd
from markupsafe import Markup

from fairtune_hf.metrics.registry import TESTED, is_small_good

from . import numbers, svg
from .figure import Figure, bottom_axis, bound, series_keys, shortened
from .loaded_run import LoadedRun
from .search_figures import axis_words
from .tables import capital, method_results
from .verdict import method_name

_METRIC_WORDS = {name: axis_words(name, -1 if is_small_good(name) else 1) for name in TESTED}


def difference_figure(folder: LoadedRun) -> Figure | None:
    """Draw the paired differences of minimum AUC against each control, with the line of no change."""
    found = [
        item
        for item in folder.record.comparisons
        if numbers.is_number(item.difference) and item.split == "test"
    ]
    if not found:
        return None
    order = [*_METRIC_WORDS]
    found.sort(key=lambda i: order.index(i.metric) if i.metric in order else len(order))
    rows = pd.DataFrame(
        {
            "metric": [item.metric for item in found],
            "reference": [item.reference for item in found],
            "difference": [float(item.difference or 0.0) for item in found],
            "low": [bound(item.ci, 0) for item in found],
            "high": [bound(item.ci, 1) for item in found],
        }
    )
    span = svg.padded([0.0, *rows["difference"], *rows["low"], *rows["high"]])
    height = 62 + 40 * len(rows)
    axes = svg.Axes(span, (float(len(rows)), 0.0), left=12, width=396, top=4, height=40 * len(rows))
    parts = [_interval_row(axes, index, row) for index, row in enumerate(rows.itertuples())]
    ticks = bottom_axis(axes, "difference: chosen mask minus control")
    return Figure.draw(
        "differences",
        "Chosen mask against its controls",
        "Each bar is a 95\u202f% interval paired by patient. One that touches the vertical line at 0 "
        "is within noise. For AUC, right of the line is better for the chosen mask; for the gap, left. "
        "The bars are not corrected for their number.",
        [axes.zero(), ticks, *parts],
        rows,
        alt=(
            "Differences of AUC between the chosen mask and its controls",
            "; ".join(
                f"{row.metric} against {method_name(str(row.reference))}: "
                f"{numbers.difference(row.difference)} "
                f"({numbers.signed_interval((row.low, row.high))})"
                for row in rows.itertuples()
            ),
        ),
        height=height,
    )


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
    bar = axes.span(row.low, row.high, y, "bar s0")
    dot = svg.mark("circle", axes.px(row.difference), y, 5, "fill s0")
    return svg.group([label, value, bar, dot])


def group_figure(folder: LoadedRun, split: str) -> Figure | None:
    """Draw each group's AUC with its interval, under the chosen mask and each control."""
    records = [
        (name, method, row.auc, bound(row.auc_ci, 0), bound(row.auc_ci, 1))
        for method, result in method_results(folder.record, split).items()
        for name, row in result.groups.items()
        if numbers.is_number(row.auc)
    ]
    if not records:
        return None
    data = pd.DataFrame(records, columns=["group", "method", "auc", "low", "high"])
    rows = data.set_axis(list(ROWS), axis=1).assign(series=data["method"].map(method_name))
    return intervals_figure(
        rows.sort_values(
            "place", key=lambda p: p.map(folder.group_order(split).index), kind="stable"
        ),
        data,
        name="group_auc",
        title="AUC of each group",
        caption="The leftmost point of a method is its worst group; the spread of its points is its gap.",
        described=f"AUC of each group on the {split} set",
        axis=f"AUC on the {split} set, with 95\u202f% intervals",
    )


ROWS = ("place", "series", "value", "low", "high")


def intervals_figure(
    rows: pd.DataFrame,
    data: pd.DataFrame,
    *,
    name: str,
    title: str,
    caption: str,
    described: str,
    axis: str,
    signed: bool = False,
) -> Figure:
    """Draw values with their intervals, one block of rows a place and one mark a series.

    Args:
        rows: Columns `ROWS`; places and series in the order in which they come first.
        data: The numbers as they are written beside the page.
        name: Name of the figure.
        title: Title of the figure.
        caption: How to read it.
        described: Title of the drawing, for who does not see it.
        axis: What the values are.
        signed: Whether these are differences, with a line where there is none.
    """
    places, series = list(rows["place"].unique()), list(rows["series"].unique())
    step = 13 * len(series) + 26
    values = [*([0.0] if signed else []), *rows["value"], *rows["low"], *rows["high"]]
    height = step * len(places)
    axes = svg.Axes(svg.padded(values), (0.0, 1.0), left=12, width=396, top=4, height=height)
    parts, words = [bottom_axis(axes, axis)], []
    if signed:
        parts.append(axes.zero())
    for row in rows.itertuples():
        index = series.index(row.series)
        y = axes.top + step * places.index(row.place) + 27 + 13 * index
        words.append(_words(row, signed))
        parts.append(_interval_mark(axes, row, y, index, words[-1]))
    parts += [
        svg.text(axes.left, axes.top + step * index + 14, shortened(str(place), 52), class_="label")
        for index, place in enumerate(places)
    ]
    keys = series_keys(map(capital, series))
    alt = (described, "; ".join(words))
    return Figure.draw(name, title, caption, parts, data, *keys, alt=alt, height=height + 60)


def _words(row: Any, signed: bool) -> str:
    value, bounds = row.value, (row.low, row.high)
    shown = numbers.difference(value) if signed else numbers.fraction(value)
    interval = numbers.signed_interval(bounds) if signed else numbers.interval(bounds)
    return f"{row.place}, {row.series}: {shown} ({interval})"


def _interval_mark(axes: svg.Axes, row: Any, y: float, index: int, title: str) -> Markup:
    colour = svg.series_class(index)
    dot = svg.mark(svg.series_shape(index), axes.px(row.value), y, 4.5, f"fill {colour}", title)
    return svg.group([axes.span(row.low, row.high, y, f"whisker {colour}"), dot])
