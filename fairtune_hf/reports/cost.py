"""What a run cost and which parts of the mask mattered: shown where the run recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from . import numbers, svg
from .figure import Figure, bottom_axis, shortened
from .loaded_run import LoadedRun
from .search_figures import axis_words

_STEPS = {"search": "Search", "refit": "Refits"}
COST_HEADS = ("Time", "Training pictures", "Pictures a second", "Share of peak", "Device")
SHOWN_PARTS = 12


@dataclass(frozen=True)
class CostRow:
    """One step's line: its name, the cells of `COST_HEADS`, and where its time went, in words."""

    step: str
    cells: tuple[str, ...]
    parts: str


def cost_rows(folder: LoadedRun) -> list[CostRow]:
    """Return one row for each step whose cost `run.json` holds; a dash for what is unknown."""
    cost = folder.record.cost
    return [_cost_row(label, cost[key]) for key, label in _STEPS.items() if key in cost]


def cost_lines(folder: LoadedRun) -> list[tuple[str, str]]:
    """Return the same as pairs of step and words, what is unknown left out."""
    lines = []
    for row in cost_rows(folder):
        known = zip(COST_HEADS, row.cells, strict=True)
        words = [f"{head.lower()} {cell}" for head, cell in known if cell != numbers.MISSING]
        lines.append(
            (f"{row.step}, cost", ", ".join([*words, *([row.parts] if row.parts else [])]))
        )
    return lines


def _cost_row(label: str, entry: Mapping[str, Any]) -> CostRow:
    rate, share = entry.get("images_per_second"), entry.get("share_of_peak")
    cells = (
        numbers.seconds(entry.get("seconds")),
        _whole(entry.get("images")),
        _whole(rate) if numbers.is_number(rate) and rate >= 100 else numbers.fraction(rate, 1),
        f"{share:.1%}".replace("%", "\u202f%") if numbers.is_number(share) else numbers.MISSING,
        str(entry.get("device") or numbers.MISSING),
    )
    return CostRow(label, cells, _parts(entry.get("by_part")))


def _whole(value: object) -> str:
    """Write a number of pictures; these are no people, so small ones are not hidden."""
    return (
        f"{round(value):,}".replace(",", "\u202f") if numbers.is_number(value) else numbers.MISSING
    )


def _parts(by_part: object) -> str:
    if not isinstance(by_part, dict):
        return ""
    known = {str(name): float(v) for name, v in by_part.items() if numbers.is_number(v)}
    total = sum(known.values())
    if total <= 0:
        return ""
    return ", ".join(
        f"{name} {value / total:.0%}".replace("%", "\u202f%") for name, value in known.items()
    )


def importance_figure(folder: LoadedRun) -> Figure | None:
    """Draw the parts whose training moved the objective most, with the intervals of their effects."""
    importance = folder.record.own.search.importance or {}
    rows = [
        (str(bit.get("name")), *(float(bit[key]) for key in ("effect", "low", "high")))
        for bit in importance.get("bits") or []
        if all(numbers.is_number(bit.get(key)) for key in ("effect", "low", "high"))
    ]
    if not rows:
        return None
    data = pd.DataFrame(rows, columns=["part", "effect", "low", "high"])
    shown = data.loc[data["effect"].abs().sort_values(ascending=False, kind="stable").index]
    shown = shown.head(SHOWN_PARTS)
    clear = int(((data["low"] > 0) | (data["high"] < 0)).sum())
    height = 24 * len(shown)
    span = svg.padded([0.0, *shown["effect"], *shown["low"], *shown["high"]])
    axes = svg.Axes(span, (0.0, 1.0), left=146, width=262, top=4, height=height)
    parts = [_effect_row(axes, index, row) for index, row in enumerate(shown.itertuples())]
    trials = importance.get("trials")
    ticks = bottom_axis(axes, f"effect on {axis_words(*folder.objective)}, validation")
    return Figure.draw(
        "importance",
        "Which parts mattered in the search",
        f"The {len(shown)} parts of {len(data)} with the largest effects: how much higher the value of a trial was "
        f"that trained the part, all others alike, with 95\u202f% intervals over {trials} trials. {clear} of "
        f"{len(data)} intervals leave out 0; by chance alone about {0.05 * len(data):.0f} would.",
        [axes.zero(), ticks, *parts],
        data,
        alt=(
            "Effect of training each part on the value of a trial",
            "; ".join(
                f"{row.part} {numbers.difference(row.effect)} "
                f"({numbers.signed_interval((row.low, row.high))})"
                for row in shown.itertuples()
            ),
        ),
        height=height + 56,
    )


def _effect_row(axes: svg.Axes, index: int, row: Any) -> Markup:
    y = axes.top + 24 * index + 12
    label = svg.text(
        axes.left - 10, y + 4, shortened(row.part, 22), class_="label", text_anchor="end"
    )
    bar = axes.span(row.low, row.high, y, "bar s0")
    words = f"{row.part}: {numbers.difference(row.effect)}"
    return svg.group([label, bar, svg.mark("circle", axes.px(row.effect), y, 4, "fill s0", words)])
