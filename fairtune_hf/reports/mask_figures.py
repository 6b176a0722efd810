"""Figures of masks: the chosen one beside the presets, and how often each part is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
from markupsafe import Markup

from . import svg
from .figure import Figure, legend_key, shortened
from .masks import mask_grid, preset_masks
from .run_folder import RunFolder


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
