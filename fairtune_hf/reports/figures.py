"""The figures of one run: each is drawn as inline SVG and carries its data and its alt text.

Every function returns a `Figure`, or None when the run has nothing to draw yet. Colours are CSS
classes; shapes and dashes tell the series apart as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from . import numbers, svg
from .masks import mask_grid, preset_masks
from .run_folder import RunFolder
from .tables import capital, method_results
from .verdict import method_name


@dataclass(frozen=True)
class Figure:
    """One figure of a page.

    Attributes:
        name: File name of its data, without ending, and the anchor in the page.
        title: What it shows, in a few words; also its alt text's title.
        caption: How to read it, one or two sentences.
        drawing: The `<svg>`.
        data: The numbers that were drawn.
        keys: Pairs of CSS class or shape and label for the legend.
    """

    name: str
    title: str
    caption: str
    drawing: Markup
    data: pd.DataFrame
    keys: tuple[tuple[Markup, str], ...] = ()


def legend_key(shape: str, class_: str) -> Markup:
    """Draw the little sign that stands before a series' name in a legend."""
    if shape == "line":
        inside = svg.element("polyline", points="1,8 21,8", class_=class_)
    elif shape == "box":
        inside = svg.element("rect", x=5, y=2, width=12, height=12, class_=class_)
    else:
        inside = svg.mark(shape, 11, 8, 5, class_)
    return svg.element("svg", inside, viewBox="0 0 22 16", class_="key", aria_hidden="true")


def difference_figure(folder: RunFolder) -> Figure | None:
    """Draw the paired differences of minimum AUC against each control, with the line of no change."""
    found = [
        item
        for item in folder.run.get("comparisons") or []
        if numbers.is_number(item.get("difference")) and item.get("split", "test") == "test"
    ]
    if not found:
        return None
    rows = pd.DataFrame(
        {
            "metric": [str(item.get("metric", "min_auc")) for item in found],
            "reference": [str(item.get("reference")) for item in found],
            "difference": [float(item["difference"]) for item in found],
            "low": [_bound(item.get("ci"), 0) for item in found],
            "high": [_bound(item.get("ci"), 1) for item in found],
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
    ticks = _bottom_axis(axes, "difference: chosen mask minus control (right is better for it)")
    return Figure(
        "differences",
        "Chosen mask against its controls",
        "Each bar is a 95\u202f% interval paired by patient. One that touches the vertical line at 0 "
        "is within noise.",
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


def _bound(bounds: Sequence[Any] | None, index: int) -> float:
    value = bounds[index] if bounds and len(bounds) == 2 else None
    return float(value) if numbers.is_number(value) else math.nan


def _interval_row(axes: svg.Axes, index: int, row: Any) -> Markup:
    y = axes.top + 40 * index + 28
    reference = method_name(str(row.reference))
    metric = str(row.metric).replace("_auc", "-group AUC").replace("overall-group", "overall")
    label = svg.text(axes.left, y - 14, f"{metric} against {reference}", class_="label")
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


def _bottom_axis(axes: svg.Axes, name: str) -> Markup:
    bottom = axes.top + axes.height + 8
    right = axes.left + axes.width
    parts = [svg.element("line", x1=axes.left, x2=right, y1=bottom, y2=bottom, class_="axis")]
    for tick in svg.nice_ticks(*axes.x, count=6):
        x = axes.px(tick)
        parts.append(svg.element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
        parts.append(
            svg.text(x, bottom + 17, svg.tick_label(tick), class_="tick", text_anchor="middle")
        )
    middle = axes.left + axes.width / 2
    parts.append(svg.text(middle, bottom + 36, name, class_="name", text_anchor="middle"))
    return svg.group(parts)


def group_figure(folder: RunFolder, split: str) -> Figure | None:
    """Draw each group's AUC with its interval, under the chosen mask and each control."""
    hidden = folder.small_groups(split)
    records = [
        (
            str(name),
            method,
            float(row["auc"]),
            _bound(row.get("auc_ci"), 0),
            _bound(row.get("auc_ci"), 1),
        )
        for method, result in method_results(folder.run, split).items()
        for name, row in (result.get("groups") or {}).items()
        if str(name) not in hidden and numbers.is_number(row.get("auc"))
    ]
    if not records:
        return None
    data = pd.DataFrame(records, columns=["group", "method", "auc", "low", "high"])
    groups, methods = list(data["group"].unique()), list(data["method"].unique())
    step = 13 * len(methods) + 26
    axes = svg.Axes(
        svg.padded([*data["auc"], *data["low"], *data["high"]]),
        (0.0, 1.0),
        left=12,
        width=396,
        top=4,
        height=step * len(groups),
    )
    parts = [_bottom_axis(axes, f"AUC on the {split} set, with 95\u202f% intervals")]
    for row in data.itertuples():
        method = methods.index(row.method)
        y = axes.top + step * groups.index(row.group) + 27 + 13 * method
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


def shortened(name: str, length: int) -> str:
    """Return a name that fits a label, with an ellipsis where it was cut."""
    return name if len(name) <= length else name[: length - 1] + "\u2026"


def mask_figure(folder: RunFolder) -> Figure | None:
    """Draw the chosen mask as blocks by parts, above the presets of the same layout."""
    choice = folder.part("choice")
    bits, names = str(choice.get("mask") or ""), [str(n) for n in choice.get("bit_names") or []]
    grid = mask_grid(bits, names)
    if grid is None:
        return None
    left, cell = 92, min(27, 316 // max(grid.blocks, 1))
    parts = [
        svg.text(left + (b + 0.5) * cell, 12, str(b), class_="tick", text_anchor="middle")
        for b in range(grid.blocks)
    ]
    parts += _cells(grid.cells, left, 18, cell, gap=3)
    for row, part in enumerate(grid.parts):
        y = 18 + (row + 0.5) * cell + 4
        parts.append(svg.text(left - 8, y, shortened(part, 13), class_="label", text_anchor="end"))
    top = 18 + len(grid.parts) * cell + 12
    parts.append(svg.text(left, top + 8, "blocks from input to output", class_="name"))
    top += 26
    small, column = 8, 0
    wide = grid.blocks * small + 28
    per_row = max(1, 400 // wide)
    for name, preset in preset_masks(names).items():
        preset_grid = mask_grid(preset, names)
        if preset_grid is None:
            continue
        x = 12 + (column % per_row) * wide
        y = top + (column // per_row) * (len(grid.parts) * small + 30)
        same = " (chosen)" if preset == bits else ""
        parts.append(svg.text(x, y + 10, name.replace("_", " ") + same, class_="tick"))
        parts += _cells(preset_grid.cells, x, y + 16, small, gap=1)
        column += 1
    rows = math.ceil(column / per_row)
    trained = [name for name, bit in zip(names, bits, strict=True) if bit == "1"]
    data = pd.DataFrame({"part": names, "trained": [int(bit) for bit in bits]})
    return Figure(
        "mask",
        "The chosen mask",
        f"Filled parts are trained ({len(trained)} of {len(names)}), open ones keep the weights of "
        "the base model; the classification head is always trained. Below: the preset masks.",
        svg.picture(
            parts,
            identity="mask",
            title="Which parts of each block are trained",
            description=f"{len(trained)} of {len(names)} parts are trained: "
            + (", ".join(trained) or "none, only the head"),
            height=top + rows * (len(grid.parts) * small + 30) + 4,
        ),
        data,
        (
            (legend_key("box", "cell on"), "trained"),
            (legend_key("box", "cell"), "frozen"),
        ),
    )


def _cells(
    cells: Mapping[tuple[int, int], bool], left: float, top: float, size: float, gap: float
) -> list[Markup]:
    return [
        svg.element(
            "rect",
            x=left + block * size + gap / 2,
            y=top + row * size + gap / 2,
            width=float(size - gap),
            height=float(size - gap),
            rx=float(size / 8),
            class_="cell on" if on else "cell",
        )
        for (row, block), on in cells.items()
    ]


_STATE_MARKS = {
    "COMPLETE": ("circle", "fill s0", "completed"),
    "PRUNED": ("down", "open s3", "pruned (last value)"),
    "RUNNING": ("square", "open s7", "still running"),
    "FAIL": ("cross", "stroke s1", "failed"),
}


def history_figure(folder: RunFolder) -> Figure | None:
    """Draw each trial's value by its state, with the best completed value so far."""
    trials = folder.trials.copy()
    if trials.empty:
        return None
    trials["value"] = pd.to_numeric(trials["value"], errors="coerce")
    trials = trials.sort_values("number")
    complete = trials["state"].eq("COMPLETE")
    trials["best_so_far"] = trials["value"].where(complete).cummax().ffill()
    last = _last_values(folder.curves)
    shown = trials["value"].fillna(trials["number"].map(last))
    if not shown.notna().any():
        return None
    low, high = svg.padded([float(v) for v in shown.dropna()])
    last_number = float(trials["number"].max())
    axes = svg.Axes((min(-0.5, 0.0), last_number + 0.5), (low, high))
    parts = [axes.frame("trial", "min-group AUC, validation", whole_x=True)]
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
    return Figure(
        "search_history",
        "The search, trial by trial",
        "Value of every trial and the best completed one so far. The best of many noisy values is "
        "too high on average: see the optimism below.",
        svg.picture(
            parts,
            identity="search_history",
            title="Value of each trial of the search",
            description=f"{len(trials)} trials: {counted}; best value {numbers.fraction(top)}",
        ),
        trials[[column for column in kept if column in trials]],
        (
            *(
                (legend_key(_STATE_MARKS[s][0], _STATE_MARKS[s][1]), _STATE_MARKS[s][2])
                for s in present
            ),
            (legend_key("line", "line s2 dashed"), "best so far"),
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


def curves_figure(folder: RunFolder) -> Figure | None:
    """Draw the validation value of every trial by epoch, the chosen trial in front."""
    curves = (
        folder.curves.dropna(subset=["epoch", "value"]) if len(folder.curves) else folder.curves
    )
    if curves.empty:
        return None
    chosen = folder.part("choice").get("trial")
    axes = svg.Axes(
        (
            float(curves["epoch"].min()),
            max(float(curves["epoch"].max()), float(curves["epoch"].min()) + 1),
        ),
        svg.padded([float(v) for v in curves["value"]]),
    )
    parts = [axes.frame("epoch", "min-group AUC, validation", whole_x=True)]
    lines = {number: frame.sort_values("epoch") for number, frame in curves.groupby("number")}
    order = sorted(lines, key=lambda number: number == chosen)
    for number in order:
        frame = lines[number]
        x, y = frame["epoch"].astype(float).tolist(), frame["value"].astype(float).tolist()
        front = number == chosen
        parts.append(axes.line(x, y, "line s0 thick" if front else "line faint"))
        if front or len(x) == 1:
            marks = "fill s0" if front else "fill s7"
            parts += [
                svg.mark("circle", axes.px(a), axes.py(b), 3, marks)
                for a, b in zip(x, y, strict=True)
            ]
    keys = [(legend_key("line", "line faint"), "other trials")]
    described = f"{len(lines)} trials"
    if chosen in lines:
        keys.insert(0, (legend_key("line", "line s0 thick"), f"chosen trial ({chosen})"))
        ends = lines[chosen]["value"].astype(float)
        described += (
            f"; the chosen trial {chosen} went from {numbers.fraction(ends.iloc[0])} to "
            f"{numbers.fraction(ends.iloc[-1])}"
        )
    return Figure(
        "learning_curves",
        "Learning curves of the trials",
        "Min-group AUC over the whole validation split after each epoch; a line that stops early "
        "was pruned.",
        svg.picture(
            parts,
            identity="learning_curves",
            title="Validation value of each trial by epoch",
            description=described,
        ),
        curves,
        tuple(keys),
    )
