"""What a figure is: a drawing with its data, alt text and legend, and what all drawings share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from fairtune_hf.run_folder import write_text

from . import numbers, svg


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

    @classmethod
    def draw(
        cls, name: str, title: str, caption: str, parts: Iterable[str], data: pd.DataFrame,
        *keys: tuple[Markup, str], alt: tuple[str, str], height: int = svg.HEIGHT,
    ) -> Figure:  # fmt: skip
        """Close a drawing of these parts; `alt` is its title and description for who does not see it."""
        drawing = svg.picture(parts, identity=name, title=alt[0], description=alt[1], height=height)
        return cls(name, title, caption, drawing, data, keys)


def write_figure_data(to: Path, figure: Figure) -> Path:
    """Write the numbers of a figure as CSV."""
    table = figure.data.to_csv(index=False, lineterminator="\n")
    return write_text(to / f"{figure.name}.csv", table)


def legend_key(shape: str, class_: str) -> Markup:
    """Draw the little sign that stands before a series' name in a legend."""
    if shape == "line":
        inside = svg.element("polyline", points="1,8 21,8", class_=class_)
    elif shape == "box":
        inside = svg.element("rect", x=5, y=2, width=12, height=12, class_=class_)
    else:
        inside = svg.mark(shape, 11, 8, 5, class_)
    return svg.element("svg", inside, viewBox="0 0 22 16", class_="key", aria_hidden="true")


def series_keys(names: Iterable[str]) -> list[tuple[Markup, str]]:
    """Return the legend of marks by series."""
    return [
        (legend_key(svg.series_shape(i), f"fill {svg.series_class(i)}"), name)
        for i, name in enumerate(names)
    ]


def bound(bounds: Sequence[Any] | None, index: int) -> float:
    """Return one end of an interval, NaN where there is none."""
    value = bounds[index] if bounds and len(bounds) == 2 else None
    return float(value) if numbers.is_number(value) else math.nan


def bottom_axis(axes: svg.Axes, name: str) -> Markup:
    """Draw the ticks and the name of the horizontal axis alone."""
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


def shortened(name: str, length: int) -> str:
    """Return a name that fits a label, with an ellipsis where it was cut."""
    return name if len(name) <= length else name[: length - 1] + "\u2026"
