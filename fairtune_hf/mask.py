"""Masks as data: which parts of which transformer blocks are trained.

Pure Python: neither torch nor PEFT may be imported here, so that a mask can be read, compared and
printed anywhere. The bit layouts are those of FairTune (ICLR 2024, section 3) and its code.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairtune_hf.naming import closest

LAYOUTS: dict[str, tuple[str, ...]] = {
    "block3": ("layernorm", "attention", "mlp"),
    "block4": ("norm1", "attention", "norm2", "mlp"),
    "block": ("block",),
    "attention": ("attention",),
    "layernorm": ("layernorm",),
    "mlp": ("mlp",),
    "attention_params": (
        "attention.qkv.weight",
        "attention.qkv.bias",
        "attention.proj.weight",
        "attention.proj.bias",
    ),
}
"""Layout name -> what each of a block's bits switches, in bit order."""

UNITS: dict[str, tuple[str, ...]] = {
    "layernorm": ("norm1", "norm2"),
    "block": ("norm1", "attention", "norm2", "mlp"),
}
"""Bits that switch more than one module of a block; every other bit is a unit by itself."""

TRAIN_ALSO: tuple[str, ...] = (
    "position_embeddings",
    "cls_token",
    "patch_embeddings",
    "final_norm",
    "biases",
    "everything_else",
)
"""What can be trained beside the masked blocks and the head. `biases` is every bias of the model,
`everything_else` every parameter outside the parts that a mask can name."""


@dataclass(frozen=True)
class Preset:
    """A named choice: the units trained in every block and what is trained outside the blocks."""

    units: tuple[str, ...]
    train_also: tuple[str, ...] = ()


_ALL_UNITS = UNITS["block"]

PRESETS: dict[str, Preset] = {
    "none": Preset(()),
    "attention": Preset(("attention",)),
    "layernorm": Preset(("norm1", "norm2")),
    "mlp": Preset(("mlp",)),
    "full_blocks": Preset(_ALL_UNITS),
    "full": Preset(_ALL_UNITS, ("everything_else",)),
    "linear_readout": Preset(()),
    "attention_tuning": Preset(("attention",), ("position_embeddings",)),
    "layernorm_tuning": Preset(("norm1", "norm2"), ("final_norm",)),
    "bitfit": Preset((), ("biases",)),
}
"""Presets by name. The first five stay within the blocks; the others are methods of the literature."""


def suggest_name(name: str, valid: Iterable[str]) -> str:
    """Say which names are valid and which of them is closest to `name`."""
    names = list(valid)
    return f"Valid names: {', '.join(names)}.{closest(name, names)}"


def check_layout(layout: str) -> None:
    """Raise a `ValueError` unless `layout` is one of `LAYOUTS`."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout!r} is not a mask layout. {suggest_name(layout, LAYOUTS)}")


def mask_bit_names(layout: str = "block3", blocks: int = 12) -> list[str]:
    """Name every bit of a layout by the module it switches.

    Examples:
        >>> mask_bit_names("block3", 12)[:4]
        ['blocks.0.layernorm', 'blocks.0.attention', 'blocks.0.mlp', 'blocks.1.layernorm']
        >>> mask_bit_names("block", 2)
        ['blocks.0', 'blocks.1']
    """
    check_layout(layout)
    return [
        f"blocks.{block}" if part == "block" else f"blocks.{block}.{part}"
        for block in range(blocks)
        for part in LAYOUTS[layout]
    ]


@dataclass(frozen=True, repr=False)
class Mask:
    """One bit for each part of each block; 1 = trained.

    Args:
        bits: Block by block, within a block in the order of `LAYOUTS[layout]`.
        layout: Name of the layout.
        blocks: Number of transformer blocks of the model.

    Examples:
        >>> mask = Mask.parse({"attention": "0011"}, blocks=4)
        >>> str(mask)
        '000000010010'
        >>> mask.count()
        2
        >>> print(mask.summary())
        blocks     0 1 2 3
        layernorm  . . . .
        attention  . . # #
        mlp        . . . .
    """

    bits: tuple[int, ...]
    layout: str = "block3"
    blocks: int = 12

    def __post_init__(self) -> None:
        check_layout(self.layout)
        object.__setattr__(self, "bits", tuple(_as_bit(bit) for bit in self.bits))
        _check_length(self.bits, self.layout, self.blocks)

    @classmethod
    def parse(cls, value: Any, layout: str = "block3", blocks: int = 12) -> Mask:
        """Read a mask in any of the forms a user may write it.

        Args:
            value: A `Mask`; a preset's name; a string or sequence of bits; or a mapping from a part
                of the layout to its bits over the blocks (or to `True`/`False` for all of them).
                Parts left out of a mapping are zero.
            layout: Name of the layout the bits are in.
            blocks: Number of blocks of the model.

        Raises:
            ValueError: If the number of bits is wrong, or a bit, preset, part or layout is unknown.
            TypeError: If `value` is of another kind.
        """
        check_layout(layout)
        if isinstance(value, Mask):
            if (value.layout, value.blocks) != (layout, blocks):
                raise ValueError(
                    f"mask: expected layout {layout!r} over {blocks} blocks, got a mask in layout "
                    f"{value.layout!r} over {value.blocks} blocks. Build the mask for this model, or "
                    f"pass layout={value.layout!r}."
                )
            return value
        if isinstance(value, str):
            bits = _bits_of_text(value, layout, blocks)
        elif isinstance(value, Mapping):
            bits = _bits_of_mapping(value, layout, blocks)
        elif isinstance(value, Iterable):
            bits = tuple(_as_bit(bit) for bit in value)
        else:
            raise TypeError(
                "mask: expected bits, a string, a mapping of parts or a preset's name, got "
                f"{type(value).__name__}. Presets: {', '.join(PRESETS)}."
            )
        return cls(bits, layout, blocks)

    @property
    def bit_names(self) -> list[str]:
        """The name of every bit, in bit order."""
        return mask_bit_names(self.layout, self.blocks)

    @property
    def parts(self) -> tuple[str, ...]:
        """What each of a block's bits switches, in bit order."""
        return LAYOUTS[self.layout]

    def row(self, part: str) -> tuple[int, ...]:
        """The bits of one part over the blocks."""
        if part not in self.parts:
            raise ValueError(
                f"part={part!r} is not in layout {self.layout!r}. {suggest_name(part, self.parts)}"
            )
        return self.bits[self.parts.index(part) :: len(self.parts)]

    def units(self) -> frozenset[tuple[int, str]]:
        """The (block, unit) pairs that are trained, such as `(3, "norm1")`."""
        return frozenset(
            (block, unit)
            for part in self.parts
            for block, bit in enumerate(self.row(part))
            if bit
            for unit in UNITS.get(part, (part,))
        )

    def count(self) -> int:
        """The number of bits that are 1."""
        return sum(self.bits)

    def union(self, other: Mask) -> Mask:
        """The mask that trains what either mask trains."""
        self._check_comparable(other)
        bits = tuple(a | b for a, b in zip(self.bits, other.bits, strict=True))
        return Mask(bits, self.layout, self.blocks)

    def distance(self, other: Mask) -> int:
        """The number of bits in which two masks differ; 0 if they are equal."""
        self._check_comparable(other)
        return sum(a != b for a, b in zip(self.bits, other.bits, strict=True))

    def to_dict(self) -> dict[str, str]:
        """The canonical form: a string of bits over the blocks for each part.

        Examples:
            >>> Mask.parse("attention", blocks=3).to_dict()
            {'layernorm': '000', 'attention': '111', 'mlp': '000'}
        """
        return {part: "".join(map(str, self.row(part))) for part in self.parts}

    def summary(self) -> str:
        """Draw blocks x parts; `#` is trained, `.` is frozen."""
        head = ["blocks", *(str(block) for block in range(self.blocks))]
        rows = [[part, *(".#"[bit] for bit in self.row(part))] for part in self.parts]
        left = max(len(row[0]) for row in [head, *rows]) + 1
        right = len(str(max(self.blocks - 1, 0)))
        return "\n".join(
            " ".join([row[0].ljust(left), *(cell.rjust(right) for cell in row[1:])])
            for row in [head, *rows]
        )

    def _check_comparable(self, other: Mask) -> None:
        if (self.layout, self.blocks) != (other.layout, other.blocks):
            raise ValueError(
                f"masks can only be compared in one layout over the same blocks, got {self.layout!r} "
                f"over {self.blocks} and {other.layout!r} over {other.blocks}."
            )

    def __or__(self, other: Mask) -> Mask:
        return self.union(other)

    def __str__(self) -> str:
        return "".join(map(str, self.bits))

    def __repr__(self) -> str:
        return f"Mask({self.layout}, {self.blocks} blocks, {self.count()} of {len(self.bits)} bits)\n{self.summary()}"


def preset_mask(name: str, layout: str, blocks: int) -> tuple[int, ...]:
    """Write a preset's units as bits of a layout.

    Raises:
        ValueError: If the name is unknown or the layout cannot express the preset.
    """
    if name not in PRESETS:
        raise ValueError(f"mask={name!r} is not a preset. {suggest_name(name, PRESETS)}")
    wanted = set(PRESETS[name].units)
    block_bits = []
    expressed: set[str] = set()
    for part in LAYOUTS[layout]:
        covered = {unit.partition(".")[0] for unit in UNITS.get(part, (part,))}
        block_bits.append(int(covered <= wanted))
        expressed |= covered if covered <= wanted else set()
    if expressed != wanted:
        raise ValueError(
            f"mask={name!r} trains {', '.join(sorted(wanted))}, which layout {layout!r} has no bits "
            f"for ({', '.join(LAYOUTS[layout])}). Use layout='block3'."
        )
    return tuple(block_bits) * blocks


def infer_blocks(value: Any, layout: str) -> int | None:
    """The number of blocks a written-out mask is for, or `None` if it does not say."""
    if isinstance(value, Mask):
        return value.blocks
    if isinstance(value, Mapping):
        rows = [row for row in value.values() if not isinstance(row, bool)]
        return max((len(_strip(r) if isinstance(r, str) else r) for r in rows), default=None)
    if isinstance(value, str):
        length = len(_strip(value)) if is_bits(value) else 0
    else:
        length = len(value) if hasattr(value, "__len__") else 0
    blocks, rest = divmod(length, len(LAYOUTS[layout]))
    return blocks if blocks and not rest else None


def is_bits(text: str) -> bool:
    """Whether a string is written in bits (blanks, commas, bars and underscores may part them)."""
    bare = _strip(text)
    return bool(bare) and set(bare) <= {"0", "1"}


def _strip(text: str) -> str:
    return re.sub(r"[\s,|_]", "", text)


def _as_bit(value: Any) -> int:
    if value in (0, 1):  # True, False and numpy's integers too
        return int(value)
    if value in ("0", "1"):
        return int(value)
    raise ValueError(f"mask: expected bits that are 0 or 1, got {value!r}. Write 1 for trained.")


def _check_length(bits: Sequence[int], layout: str, blocks: int) -> None:
    per_block = len(LAYOUTS[layout])
    if len(bits) == per_block * blocks:
        return
    fitting = [name for name, parts in LAYOUTS.items() if len(parts) * blocks == len(bits)]
    hint = f" {len(bits)} bits fit layout {' or '.join(map(repr, fitting))}." if fitting else ""
    raise ValueError(
        f"mask: expected {per_block * blocks} bits for layout {layout!r} ({per_block} per block, "
        f"{blocks} blocks), got {len(bits)}.{hint} Pass one bit for each name in "
        f"mask_bit_names({layout!r}, {blocks})."
    )


def _bits_of_text(text: str, layout: str, blocks: int) -> tuple[int, ...]:
    if is_bits(text):
        return tuple(map(int, _strip(text)))
    return preset_mask(text, layout, blocks)


def _bits_of_mapping(rows: Mapping[str, Any], layout: str, blocks: int) -> tuple[int, ...]:
    parts = LAYOUTS[layout]
    for name in rows:
        if name not in parts:
            raise ValueError(
                f"mask: part {name!r} is not in layout {layout!r}. {suggest_name(name, parts)}"
            )
    read = {part: _row_bits(rows.get(part, False), part, blocks) for part in parts}
    return tuple(read[part][block] for block in range(blocks) for part in parts)


def _row_bits(row: Any, part: str, blocks: int) -> tuple[int, ...]:
    if isinstance(row, bool):
        return (int(row),) * blocks
    bits = tuple(_as_bit(bit) for bit in (_strip(row) if isinstance(row, str) else row))
    if len(bits) != blocks:
        raise ValueError(
            f"mask: expected {blocks} bits for part {part!r} (one per block), got {len(bits)}. "
            "Pass one bit per block, or True or False for all of them."
        )
    return bits
