"""What every parameter of a model is: its block and unit, the module to wrap, and its canonical key.

Canonical keys are the same in every version of transformers, and in timm's models apart from the
fused qkv. Nothing here knows of masks or of PEFT's configs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import nn

from .architectures import ArchitectureSpec, BlockPattern, find_blocks
from .loose import holder_name
from .names import join, plain_modules, plain_parameters

# Canonical names of the parameters inside a unit; first match wins, unmatched names stay as they are.
_RENAME: tuple[tuple[str, str, str], ...] = (
    ("attention", r"(?:attention\.|self\.)?(?:query|q_proj)\.", "query."),
    ("attention", r"(?:attention\.|self\.)?(?:key|k_proj)\.", "key."),
    ("attention", r"(?:attention\.|self\.)?(?:value|v_proj)\.", "value."),
    ("attention", r"(?:output\.dense|o_proj|out_proj|proj)\.", "proj."),
    ("attention", r"(?:attention|self)\.", ""),
    ("attention", r"relative_position_bias\.", ""),
    ("mlp", r"intermediate\.dense\.", "fc1."),
    ("mlp", r"output\.dense\.", "fc2."),
    ("patch_embeddings", r"(?:projection|proj)\.", ""),
)

_QKV = re.compile(r"(?:query|key|value|qkv|q_bias|k_bias|v_bias)")


@dataclass(frozen=True)
class Leaf:
    """One parameter of a model and its place in the anatomy."""

    name: str
    """Its name in the model without tuner layers."""
    anchor: str
    """The module that is wrapped to train it."""
    key: str
    """Canonical key: block, part, parameter."""
    region: str
    """`block`, `head`, or what `train_also` calls it; `other` for the rest."""
    block: int | None = None
    unit: str | None = None
    loose: bool = False
    """Whether it lies beside other modules, so that its anchor is a holder that is yet to be made."""

    @property
    def relative_name(self) -> str:
        """Its name within the anchor."""
        return "value" if self.loose else self.name[len(self.anchor) + 1 :]

    @property
    def is_bias(self) -> bool:
        """Whether it is an additive bias of some layer."""
        last = self.name.rpartition(".")[2]
        return last == "bias" or last in {"q_bias", "k_bias", "v_bias", "in_proj_bias"}

    def in_unit(self, unit: str) -> bool:
        """Whether it is in a unit: a module (`mlp`) or attention's parameter (`attention.qkv.bias`)."""
        part, _, parameter = unit.partition(".")
        if self.unit != part or not parameter:
            return self.unit == part
        rest = self.key.split(".", 3)[3]
        kind, _, which = parameter.partition(".")
        if (kind == "qkv") != bool(_QKV.match(rest)):
            return False
        return self.is_bias == (which == "bias") and (kind == "qkv" or rest.startswith("proj."))


@dataclass(frozen=True)
class Anatomy:
    """Every parameter of a model, sorted into blocks, units, head and the rest."""

    architecture: str
    blocks: tuple[str, ...]
    leaves: tuple[Leaf, ...] = field(repr=False)

    @property
    def has_head(self) -> bool:
        """Whether the model has a classification head with parameters."""
        return any(leaf.region == "head" for leaf in self.leaves)


def describe(model: nn.Module, block_pattern: BlockPattern | None = None) -> Anatomy:
    """Sort every parameter of a model into blocks, units, head and the rest.

    Args:
        model: The bare model or one that already carries FairMask layers.
        block_pattern: How to find the blocks of an architecture that is not in the table.

    Raises:
        ValueError: If the architecture is not known, or `block_pattern` matches nothing.
    """
    spec, blocks, trunk = find_blocks(model, block_pattern)
    modules = plain_modules(model)
    anchors = _anchors(spec, blocks, trunk, modules)
    leaves = tuple(
        _place(name, modules, anchors, trunk, spec, len(blocks)) for name in plain_parameters(model)
    )
    repeated = [key for key, n in Counter(leaf.key for leaf in leaves).items() if n > 1]
    if repeated:
        raise ValueError(
            f"model: expected one parameter for each canonical key, got several for {repeated[:3]} in "
            f"{type(model).__name__} (read as {spec.name}). Pass block_pattern= with the names of "
            "this model's blocks and parts."
        )
    return Anatomy(spec.name, tuple(blocks), leaves)


def _anchors(
    spec: ArchitectureSpec, blocks: list[str], trunk: str, names: Mapping[str, nn.Module]
) -> dict[str, tuple[str, int | None, str | None]]:
    """Modules to wrap -> (region, block, unit)."""
    anchors: dict[str, tuple[str, int | None, str | None]] = {}
    for index, block in enumerate(blocks):
        for unit, children in spec.units().items():
            for child in children:
                anchors[f"{block}.{child}"] = ("block", index, unit)
    for head in spec.head:
        # HF heads sit beside the trunk, timm's in it
        place = next((p for p in (head, join(trunk, head)) if p in names), None)
        if place is not None:
            anchors[place] = ("head", None, head)
    for name in spec.embeddings:
        anchors[join(trunk, name)] = ("other", None, None)
    for norm in spec.final_norm:
        anchors[join(trunk, norm)] = ("final_norm", None, None)
    return {name: place for name, place in anchors.items() if name in names}


def _place(
    name: str,
    modules: Mapping[str, nn.Module],
    anchors: Mapping[str, tuple[str, int | None, str | None]],
    trunk: str,
    spec: ArchitectureSpec,
    n_blocks: int,
) -> Leaf:
    owner = name.rpartition(".")[0]
    anchor = next((a for a in _prefixes(owner) if a in anchors), None)
    region, block, unit = anchors[anchor] if anchor is not None else ("other", None, None)
    for also in ("position_embeddings", "cls_token", "patch_embeddings"):
        if any(_is_under(name, join(trunk, place)) for place in getattr(spec, also)):
            region = also
    key = _canonical_key(name, region, block, unit, anchor, trunk, spec)
    if anchor is not None:
        return Leaf(name, anchor, key, region, block, unit)
    if owner and next(modules[owner].children(), None) is None:
        return Leaf(name, owner, key, region)
    return Leaf(name, holder_name(name), key, region, loose=True)


def _prefixes(name: str) -> Iterable[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _is_under(name: str, place: str) -> bool:
    return name == place or name.startswith(place + ".")


def _canonical_key(
    name: str,
    region: str,
    block: int | None,
    unit: str | None,
    anchor: str | None,
    trunk: str,
    spec: ArchitectureSpec,
) -> str:
    if region == "block":
        assert anchor is not None
        assert unit is not None
        children = spec.units()[unit]
        # a unit in several children keeps the child's name, so that `intermediate` and `output` differ
        within = name[len(anchor) - len(anchor.rpartition(".")[2]) :]
        within = within if len(children) > 1 else within.partition(".")[2]
        return f"blocks.{block}.{unit}.{_rename(unit, within)}"
    if region == "head":
        assert anchor is not None
        assert unit is not None
        first = "head_distillation" if "dist" in unit else "head"
        return f"{first}{name[len(anchor) :]}"
    places = getattr(spec, region, ())
    for place in places:
        full = join(trunk, place)
        if _is_under(name, full):
            rest = name[len(full) + 1 :]
            token = place.rpartition(".")[2]
            first = (
                "distillation_token" if token in ("distillation_token", "dist_token") else region
            )
            return ".".join(filter(None, [first, _rename(region, rest)]))
    return f"other.{name[len(trunk) + 1 :] if trunk and _is_under(name, trunk) else name}"


def _rename(unit: str, name: str) -> str:
    for where, pattern, replacement in _RENAME:
        if where == unit and (match := re.match(pattern, name)):
            return replacement + name[match.end() :]
    return name
