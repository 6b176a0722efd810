"""A mask's bits laid out as blocks by parts, from the bits' names alone (no tuner, no torch)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_BIT_NAME = re.compile(r"^(?:.*\.)?(?:blocks?|layers?)\.(\d+)(?:\.(.+))?$")
_NORMS = ("norm", "ln")


@dataclass(frozen=True)
class MaskGrid:
    """Bits by block and part.

    Attributes:
        blocks: Number of blocks.
        parts: Names of the rows.
        cells: Whether (row, block) is trained.
    """

    blocks: int
    parts: tuple[str, ...]
    cells: dict[tuple[int, int], bool]


def mask_grid(bits: str, names: Sequence[str]) -> MaskGrid | None:
    """Lay bits out by their names (`blocks.3.attention`); None when they do not fit together."""
    if not bits or len(bits) != len(names) or set(bits) - {"0", "1"}:
        return None
    placed = [_place(name) for name in names]
    if any(place is None for place in placed):
        return None
    known = [place for place in placed if place is not None]
    parts = tuple(dict.fromkeys(part for _, part in known))
    cells = {
        (parts.index(part), block): bit == "1"
        for (block, part), bit in zip(known, bits, strict=True)
    }
    return MaskGrid(1 + max(block for block, _ in known), parts, cells)


def _place(name: str) -> tuple[int, str] | None:
    found = _BIT_NAME.match(name)
    return (int(found[1]), found[2] or "block") if found else None


def preset_masks(names: Sequence[str]) -> dict[str, str]:
    """Return the presets that a layout can express, as strings of bits.

    A preset is left out where the layout has no bit for its part, or where it would be the same
    as a preset before it.
    """
    parts = [(_place(name) or (0, name))[1] for name in names]
    rules = {
        "none": [False for _ in parts],
        "attention": ["attention" in part and not _is_norm(part) for part in parts],
        "layernorm": [_is_norm(part) for part in parts],
        "mlp": ["mlp" in part for part in parts],
        "full_blocks": [True for _ in parts],
    }
    presets: dict[str, str] = {}
    for name, chosen in rules.items():
        bits = "".join("1" if bit else "0" for bit in chosen)
        if bits not in presets.values():
            presets[name] = bits
    return presets


def _is_norm(part: str) -> bool:
    return any(word in part for word in _NORMS)
