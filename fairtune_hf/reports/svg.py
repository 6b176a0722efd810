"""Small functions that draw inline SVG: elements, scales, axes and marks.

Colours are CSS classes (`s0` ... `s7`, `ink`, `grid`), so that one drawing serves light, dark and
paper; every text that comes from outside is escaped here. Knows nothing of runs or metrics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 420
HEIGHT = 270
SERIES = 8


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """Build one SVG element; text children are escaped, `Markup` children are kept.

    A trailing underscore of an attribute's name is dropped (`class_`), other underscores become
    hyphens (`text_anchor`), floats are written with at most two decimals.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _number(value))
        for name, value in attributes.items()
        if value is not None
    )
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), written, inside)


def _number(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value


def group(children: Iterable[str], **attributes: object) -> Markup:
    """Put elements into one `<g>`."""
    return element("g", *children, **attributes)


def picture(
    children: Iterable[str],
    *,
    identity: str,
    title: str,
    description: str,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Markup:
    """Close a drawing: an `<svg role="img">` that carries its title and description as alt text."""
    return element(
        "svg",
        element("title", title, id=f"{identity}-title"),
        element("desc", description, id=f"{identity}-desc"),
        *children,
        role="img",
        aria_labelledby=f"{identity}-title {identity}-desc",
        viewBox=f"0 0 {width} {height}",
        style=f"max-width:{width * 1.2:.0f}px",
    )


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) inside [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def padded(values: Iterable[float], *, least: float = 0.02) -> tuple[float, float]:
    """Return a range that holds the finite values with 6 % of air, at least `least` wide."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    air = max(0.06 * (high - low), (least - (high - low)) / 2)
    return low - air, high + air


@dataclass(frozen=True)
class Axes:
    """A rectangle of pixels and the numbers it stands for.

    Attributes:
        x: Numbers at the left and right edge.
        y: Numbers at the lower and upper edge.
        left: Pixels left of the rectangle, where the y labels stand.
        top: Pixels above it.
        width: Pixels across.
        height: Pixels down.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    left: int = 60
    top: int = 12
    width: int = WIDTH - 60 - 12
    height: int = HEIGHT - 12 - 44

    def px(self, value: float) -> float:
        """Return the horizontal pixel of a number."""
        return self.left + self.width * (value - self.x[0]) / ((self.x[1] - self.x[0]) or 1.0)

    def py(self, value: float) -> float:
        """Return the vertical pixel of a number."""
        share = (value - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return self.top + self.height * (1 - share)

    def frame(
        self, x_label: str, y_label: str, *, whole_x: bool = False, x_ticks: int = 5
    ) -> Markup:
        """Draw grid lines, tick labels and the two axis names."""
        bottom = self.top + self.height
        right = self.left + self.width
        parts: list[Markup] = []
        for tick in nice_ticks(*self.y):
            y = self.py(tick)
            parts.append(element("line", x1=self.left, x2=right, y1=y, y2=y, class_="grid"))
            label = tick_label(tick)
            parts.append(text(self.left - 6, y + 4, label, class_="tick", text_anchor="end"))
        for tick in nice_ticks(*self.x, count=x_ticks):
            if whole_x and tick != round(tick):
                continue
            x = self.px(tick)
            parts.append(element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="axis"))
            parts.append(
                text(x, bottom + 17, tick_label(tick), class_="tick", text_anchor="middle")
            )
        parts.append(element("line", x1=self.left, x2=right, y1=bottom, y2=bottom, class_="axis"))
        middle = self.left + self.width / 2
        parts.append(text(middle, bottom + 36, x_label, class_="name", text_anchor="middle"))
        height = self.top + self.height / 2
        parts.append(
            text(
                11,
                height,
                y_label,
                class_="name",
                text_anchor="middle",
                transform=f"rotate(-90 11 {height:.0f})",
            )
        )
        return group(parts)

    def line(self, x: Sequence[float], y: Sequence[float], class_: str) -> Markup:
        """Draw a line through points, leaving out those that are not finite."""
        points = " ".join(
            f"{self.px(a):.1f},{self.py(b):.1f}"
            for a, b in zip(x, y, strict=True)
            if math.isfinite(a) and math.isfinite(b)
        )
        return element("polyline", points=points, class_=class_)

    def dots(
        self, shape: str, x: Sequence[float], y: Sequence[float], size: float, class_: str
    ) -> list[Markup]:
        """Draw a point at each pair that has a finite height."""
        pairs = zip(x, y, strict=True)
        return [
            mark(shape, self.px(a), self.py(b), size, class_) for a, b in pairs if math.isfinite(b)
        ]

    def zero(self) -> Markup:
        """Draw the vertical line at 0."""
        x, bottom = self.px(0.0), self.top + self.height
        return element("line", x1=x, x2=x, y1=self.top, y2=bottom, class_="zero")

    def span(self, low: float, high: float, y: float, class_: str) -> Markup:
        """Draw a horizontal line between two numbers at a vertical pixel; nothing where one is not finite."""
        if not (math.isfinite(low) and math.isfinite(high)):
            return Markup("")
        return element("line", x1=self.px(low), x2=self.px(high), y1=y, y2=y, class_=class_)

    def steps(self, x: Sequence[float], y: Sequence[float], class_: str) -> Markup:
        """Draw a staircase: each value holds until the next one."""
        corner_x = [value for value in x for _ in range(2)][1:]
        corner_y = [value for value in y for _ in range(2)][:-1]
        return self.line(corner_x, corner_y, class_)


def text(x: float, y: float, content: str, **attributes: object) -> Markup:
    """Draw one line of text."""
    return element("text", content, x=float(x), y=float(y), **attributes)


def tick_label(value: float) -> str:
    """Write a tick without needless zeros, with a true minus sign."""
    return f"{value:.6g}".replace("-", "\u2212")


_SHAPES = ("circle", "square", "triangle", "diamond", "cross", "down", "plus", "star")


def mark(shape: str, x: float, y: float, size: float, class_: str, title: str = "") -> Markup:
    """Draw one point. Shapes differ as well as colours, for readers who cannot tell colours apart.

    Args:
        shape: `circle`, `square`, `triangle`, `down`, `diamond`, `cross`, `plus` or `star`.
        x: Pixel across.
        y: Pixel down.
        size: Half the width in pixels.
        class_: CSS classes that set colour and fill.
        title: What a pointer resting on the point shows.
    """
    inside = [element("title", title)] if title else []
    if shape == "circle":
        return element("circle", *inside, cx=float(x), cy=float(y), r=float(size), class_=class_)
    return element("path", *inside, d=_path(shape, x, y, size), class_=class_)


def _path(shape: str, x: float, y: float, s: float) -> str:
    lines: dict[str, list[tuple[float, float]]] = {
        "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
        "triangle": [(0, -1.15), (1.05, 0.8), (-1.05, 0.8)],
        "down": [(0, 1.15), (1.05, -0.8), (-1.05, -0.8)],
        "diamond": [(0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)],
    }
    if shape in lines:
        corners = " L".join(f"{x + a * s:.1f} {y + b * s:.1f}" for a, b in lines[shape])
        return f"M{corners}Z"
    strokes: dict[str, list[tuple[float, float, float, float]]] = {
        "cross": [(-1, -1, 1, 1), (-1, 1, 1, -1)],
        "plus": [(-1, 0, 1, 0), (0, -1, 0, 1)],
        "star": [(-1, 0, 1, 0), (-0.5, -0.9, 0.5, 0.9), (-0.5, 0.9, 0.5, -0.9)],
    }
    return "".join(
        f"M{x + a * s:.1f} {y + b * s:.1f}L{x + c * s:.1f} {y + d * s:.1f}"
        for a, b, c, d in strokes[shape]
    )


def series_shape(index: int) -> str:
    """Return the point shape of the n-th series."""
    return _SHAPES[index % len(_SHAPES)]


def series_class(index: int) -> str:
    """Return the CSS class that colours the n-th series."""
    return f"s{index % SERIES}"
