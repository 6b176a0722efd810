"""Figures of masks: the chosen one beside the presets, and how often each part is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from . import svg
from .figure import Figure, legend_key, shortened
from .loaded_run import LoadedRun
from .masks import mask_grid, preset_masks


def mask_figure(folder: LoadedRun) -> Figure | None:
    """Draw the chosen mask as blocks by parts, above the presets of the same layout."""
    choice = folder.record.choice
    bits, names = choice.mask, [str(name) for name in choice.bit_names or []]
    grid = mask_grid(bits, names)
    if grid is None:
        return None
    left, cell = 92, min(27, 316 // max(grid.blocks, 1))
    parts = block_numbers(grid.blocks, left, cell) + part_names(grid.parts, left, cell)
    parts += cells(grid.cells, left, 18, cell, gap=3)
    top = 18 + len(grid.parts) * cell + 12
    parts.append(svg.text(left, top + 8, "blocks from input to output", class_="name"))
    top += 26
    small, column = 8, 0
    wide = max(grid.blocks * small, 110) + 22
    per_row = max(1, 418 // wide)
    for name, preset in preset_masks(names).items():
        preset_grid = mask_grid(preset, names)
        if preset_grid is None:
            continue
        x = 12 + (column % per_row) * wide
        y = top + (column // per_row) * (len(grid.parts) * small + 30)
        same = " (chosen)" if preset == bits else ""
        parts.append(svg.text(x, y + 10, name.replace("_", " ") + same, class_="tick"))
        parts += cells(preset_grid.cells, x, y + 16, small, gap=1)
        column += 1
    rows = math.ceil(column / per_row)
    trained = [name for name, bit in zip(names, bits, strict=True) if bit == "1"]
    listed = ", ".join(trained) or "none, only the head"
    return Figure.draw(
        "mask",
        "The chosen mask",
        f"Filled parts are trained ({len(trained)} of {len(names)}), open ones keep the weights of "
        "the base model; the classification head is always trained. Below: the preset masks.",
        parts,
        pd.DataFrame({"part": names, "trained": [int(bit) for bit in bits]}),
        (legend_key("box", "cell on"), "trained"),
        (legend_key("box", "cell"), "frozen"),
        alt=(
            "Which parts of each block are trained",
            f"{len(trained)} of {len(names)} parts are trained: {listed}",
        ),
        height=top + rows * (len(grid.parts) * small + 30) + 4,
    )


def cells(
    cells: Mapping[tuple[int, int], bool], left: float, top: float, size: float, gap: float
) -> list[Markup]:
    """Draw a mask: a filled square for a trained part, an open one for a frozen part."""
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


BEST_SHARE = 0.25
FEWEST_BEST = 5


def best_masks(folder: LoadedRun) -> list[str]:
    """Return the masks of the best quarter of the completed trials, five trials at least."""
    trials = folder.trials
    if trials.empty:
        return []
    values = pd.to_numeric(trials["value"], errors="coerce")
    done = trials[trials["state"].eq("COMPLETE") & values.notna()]
    order = (
        values.loc[done.index].sort_values(ascending=folder.objective[1] < 0, kind="stable").index
    )
    kept = max(FEWEST_BEST, math.ceil(BEST_SHARE * len(done)))
    return [str(mask) for mask in done.loc[order, "mask"].head(kept)]


def frequency_figure(folder: LoadedRun) -> Figure | None:
    """Draw how often each part is trained among the best trials of the search."""
    names = [str(name) for name in folder.record.choice.bit_names or []]
    masks = [mask for mask in best_masks(folder) if len(mask) == len(names)]
    if len(masks) < FEWEST_BEST:
        return None
    return shares_figure(
        masks,
        names,
        identity="mask_frequency",
        title="How often the best trials train each part",
        caption=f"The best {len(masks)} completed trials, presets among them. A cell fills up from "
        "below; half full is what masks drawn at random give.",
    )


def shares_figure(
    masks: Sequence[str], names: Sequence[str], *, identity: str, title: str, caption: str
) -> Figure | None:
    """Draw the share of masks that train each part, as cells that fill from below."""
    grid = mask_grid(masks[0], names)
    if grid is None:
        return None
    shares = [sum(mask[i] == "1" for mask in masks) / len(masks) for i in range(len(names))]
    left, cell = 92, min(27, 316 // max(grid.blocks, 1))
    parts = block_numbers(grid.blocks, left, cell) + part_names(grid.parts, left, cell)
    for (row, block), share, name in zip(grid.cells, shares, names, strict=True):
        x, y, side = left + block * cell + 1.5, 18 + row * cell + 1.5, cell - 3.0
        words = svg.element("title", f"{name}: {share:.0%}")
        box: dict[str, Any] = {"x": x, "y": y, "width": side, "height": side}
        parts.append(svg.element("rect", words, **box, rx=3.0, class_="cell"))
        box |= {"y": y + side * (1 - share), "height": side * share}
        parts.append(svg.element("rect", words, **box, class_="cell on"))
    most = sorted(zip(shares, names, strict=True), reverse=True)[:3]
    described = ", ".join(f"{name} {share:.0%}" for share, name in most)
    height = 18 + len(grid.parts) * cell + 26
    parts.append(svg.text(left, height - 6, "blocks from input to output", class_="name"))
    return Figure.draw(
        identity,
        title,
        caption,
        parts,
        pd.DataFrame({"part": names, "share": shares, "masks": len(masks)}),
        (legend_key("box", "cell on"), "trained in all"),
        (legend_key("box", "cell"), "in none"),
        alt=(title, f"Share of {len(masks)} masks that train a part; most often {described}"),
        height=height,
    )


def block_numbers(blocks: int, left: float, cell: float) -> list[Markup]:
    """Write the block numbers above a grid of cells."""
    return [
        svg.text(left + (b + 0.5) * cell, 12, str(b), class_="tick", text_anchor="middle")
        for b in range(blocks)
    ]


def part_names(parts: Sequence[str], left: float, cell: float) -> list[Markup]:
    """Write the parts' names left of a grid of cells."""
    heights = [18 + (row + 0.5) * cell + 4 for row in range(len(parts))]
    return [
        svg.text(left - 8, y, shortened(part, 13), class_="label", text_anchor="end")
        for y, part in zip(heights, parts, strict=True)
    ]
