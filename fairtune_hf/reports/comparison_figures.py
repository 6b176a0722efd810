"""Figures over many runs: what the masks did for the worst groups, and which parts they train."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from . import numbers, svg
from .figure import Figure, bottom_axis, bound, legend_key, shortened
from .loaded_run import LoadedRun
from .mask_figures import shares_figure
from .tables import capital
from .verdict import method_name


def comparison_figures(folders: Sequence[LoadedRun], names: Sequence[str]) -> list[Figure]:
    """Draw every figure that these runs have data for."""
    drawn = [differences_figure(folders, names), *mask_shares_figures(folders)]
    return [figure for figure in drawn if figure is not None]


def differences_figure(folders: Sequence[LoadedRun], names: Sequence[str]) -> Figure | None:
    """Draw the difference of minimum AUC against each control in each setting."""
    data = _differences(folders, names)
    if data.empty:
        return None
    settings, references = list(data["setting"].unique()), list(data["reference"].unique())
    step = 15 * len(references) + 26
    span = svg.padded([0.0, *data["difference"], *data["low"], *data["high"]])
    axes = svg.Axes(span, (0.0, 1.0), left=12, width=396, top=4, height=step * len(settings))
    zero, bottom = axes.px(0.0), axes.top + axes.height
    parts = [
        svg.element("line", x1=zero, x2=zero, y1=axes.top, y2=bottom, class_="zero"),
        bottom_axis(axes, "min-group AUC: chosen mask minus control"),
    ]
    for index, setting in enumerate(settings):
        y = axes.top + step * index + 14
        parts.append(svg.text(axes.left, y, shortened(str(setting), 52), class_="label"))
    for setting, reference, difference, low, high in data.itertuples(index=False, name=None):
        series = references.index(reference)
        y = axes.top + step * settings.index(setting) + 29 + 15 * series
        parts.append(_bar(axes, y, series, (difference, low, high)))
    described = "; ".join(
        f"{setting} against {method_name(reference)}: {numbers.difference(difference)} "
        f"({numbers.signed_interval((low, high))})"
        for setting, reference, difference, low, high in data.itertuples(index=False, name=None)
    )
    return Figure(
        "setting_differences",
        "The worst group under the chosen mask, by setting",
        "Paired differences with 95\u202f% intervals; right of the line the chosen mask did better, "
        "and an interval that touches it is within noise.",
        svg.picture(
            parts,
            identity="setting_differences",
            title="Difference of minimum AUC against each control, by setting",
            description=described,
            height=axes.height + 60,
        ),
        data,
        tuple(
            (
                legend_key(svg.series_shape(i), f"fill {svg.series_class(i)}"),
                f"against {method_name(reference)}",
            )
            for i, reference in enumerate(references)
        ),
    )


def _bar(axes: svg.Axes, y: float, series: int, values: tuple[float, float, float]) -> Markup:
    difference, low, high = values
    colour = svg.series_class(series)
    mark = svg.mark(svg.series_shape(series), axes.px(difference), y, 4.5, f"fill {colour}")
    if not (numbers.is_number(low) and numbers.is_number(high)):
        return mark
    line = svg.element(
        "line", x1=axes.px(low), x2=axes.px(high), y1=y, y2=y, class_=f"whisker {colour}"
    )
    return svg.group([line, mark])


def _differences(folders: Sequence[LoadedRun], names: Sequence[str]) -> pd.DataFrame:
    records = [
        (
            setting,
            str(item.get("reference")),
            float(item["difference"]),
            bound(item.get("ci"), 0),
            bound(item.get("ci"), 1),
        )
        for folder, setting in zip(folders, names, strict=True)
        for item in folder.run.get("comparisons") or []
        if item.get("metric") == "min_auc"
        and item.get("split", "test") == "test"
        and numbers.is_number(item.get("difference"))
    ]
    columns = ["setting", "reference", "difference", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def mask_shares_figures(folders: Sequence[LoadedRun]) -> list[Figure]:
    """Draw how many of the chosen masks train each part, once for each layout of two runs or more."""
    layouts: dict[tuple[str, ...], list[str]] = {}
    for folder in folders:
        choice = folder.part("choice")
        names = tuple(str(name) for name in choice.get("bit_names") or [])
        mask = str(choice.get("mask") or "")
        if names and len(mask) == len(names):
            layouts.setdefault(names, []).append(mask)
    drawn = [
        shares_figure(
            masks,
            names,
            identity="chosen_masks" if index == 0 else f"chosen_masks_{index + 1}",
            title=capital(f"how many of the {len(masks)} chosen masks train each part"),
            caption="A cell fills up from below with the share of runs whose chosen mask trains it.",
        )
        for index, (names, masks) in enumerate(layouts.items())
        if len(masks) > 1
    ]
    return [figure for figure in drawn if figure is not None]
