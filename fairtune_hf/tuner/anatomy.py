"""What every parameter of a model is: its block and unit, the module to wrap, and its canonical key.

Canonical keys are the same in every version of transformers, and in timm's models apart from the
fused qkv. Nothing here knows of masks or of PEFT's configs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from .architectures import ArchitectureSpec, BlockPattern, find_blocks
from .loose import holder_name
from .names import join, plain_modules, plain_parameters

# Canonical names of the parameters inside a unit; the first match is replaced, others stay.
_RENAME: dict[str, tuple[tuple[str, str], ...]] = {
    "attention": (
        (r"^(?:attention\.|self\.)?(?:query|q_proj)\.", "query."),
        (r"^(?:attention\.|self\.)?(?:key|k_proj)\.", "key."),
        (r"^(?:attention\.|self\.)?(?:value|v_proj)\.", "value."),
        (r"^(?:output\.dense|o_proj|out_proj|proj)\.", "proj."),
        (r"^(?:(?:attention|self)\.)?relative_position_bias\.", ""),
        (r"^(?:attention|self)\.", ""),
    ),
    "mlp": ((r"^intermediate\.dense\.", "fc1."), (r"^output\.dense\.", "fc2.")),
    "patch_embeddings": ((r"^(?:projection|proj)\.", ""),),
    # blocks that are not the encoder's, such as those of ViTMAE's decoder
    "other": (
        (r"\.attention\.(?:attention\.)?(?:query|q_proj)\.", ".attention.query."),
        (r"\.attention\.(?:attention\.)?(?:key|k_proj)\.", ".attention.key."),
        (r"\.attention\.(?:attention\.)?(?:value|v_proj)\.", ".attention.value."),
        (r"\.attention\.(?:output\.dense|o_proj)\.", ".attention.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.output\.dense\.", ".mlp.fc2."),
    ),
}

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


def describe(model: nn.Module, block_pattern: BlockPattern | None = None) -> Anatomy:
    """Sort every parameter of a model into blocks, units, head and the rest.

    Args:
        model: The bare model or one that already carries FairMask layers.
        block_pattern: How to find the blocks of an architecture that is not in the table.

    Raises:
        ValueError: If the architecture is not known, or `block_pattern` matches nothing.
    """
    reader = _Reader(*find_blocks(model, block_pattern), plain_modules(model))
    leaves = tuple(reader.read(name) for name in plain_parameters(model))
    repeated = [key for key, n in Counter(leaf.key for leaf in leaves).items() if n > 1]
    if repeated:
        raise ValueError(
            f"model: expected one parameter for each canonical key, got several for {repeated[:3]} in "
            f"{type(model).__name__} (read as {reader.spec.name}). Pass block_pattern= with the names of "
            "this model's blocks and parts."
        )
    return Anatomy(reader.spec.name, tuple(reader.blocks), leaves)


@dataclass(frozen=True)
class _Place:
    """What is in a module that is wrapped whole."""

    region: str
    block: int | None = None
    unit: str | None = None
    child: str = ""
    """Its name in the block, or the head's name."""


@dataclass(frozen=True)
class _Reader:
    """Reads the place of each parameter off its name."""

    spec: ArchitectureSpec
    blocks: list[str]
    trunk: str
    modules: Mapping[str, nn.Module]

    @cached_property
    def anchors(self) -> dict[str, _Place]:
        """The modules to wrap whole, by name."""
        found: dict[str, _Place] = {}
        for index, block in enumerate(self.blocks):
            for unit, children in self.spec.units().items():
                for child in children:
                    found[f"{block}.{child}"] = _Place("block", index, unit, child)
            for child in self.spec.attention_extra:
                found[f"{block}.{child}"] = _Place("block", index, "attention", child)
        for head in self.spec.head:
            # HF heads lie beside the trunk, timm's in it; a user's own module may be around either
            places = (join(around, head) for around in (*_prefixes(self.trunk), ""))
            found |= {p: _Place("head", child=head) for p in places if p in self.modules}
        found |= {join(self.trunk, name): _Place("other") for name in self.spec.embeddings}
        found |= {join(self.trunk, name): _Place("final_norm") for name in self.spec.final_norm}
        return {name: place for name, place in found.items() if name in self.modules}

    def read(self, name: str) -> Leaf:
        """Find the place of one parameter."""
        owner = name.rpartition(".")[0]
        anchor = next((a for a in _prefixes(owner) if a in self.anchors), None)
        place = self.anchors[anchor] if anchor is not None else _Place("other")
        region, key = self._key(name, place, anchor)
        if anchor is not None:
            return Leaf(name, anchor, key, region, place.block, place.unit)
        if owner and next(self.modules[owner].children(), None) is None:
            return Leaf(name, owner, key, region)
        return Leaf(name, holder_name(name), key, region, loose=True)

    def _key(self, name: str, place: _Place, anchor: str | None) -> tuple[str, str]:
        """The region and the canonical key of a parameter."""
        if place.region == "block":
            within = self._within_unit(name, place, str(anchor))
            return "block", f"blocks.{place.block}.{place.unit}.{within}"
        if place.region == "head":
            first = "head_distillation" if "dist" in place.child else "head"
            return "head", first + name[len(str(anchor)) :]
        for region in ("position_embeddings", "cls_token", "patch_embeddings", "final_norm"):
            for part in getattr(self.spec, region):
                rest = _below(name, join(self.trunk, part))
                if rest is not None:
                    return region, join(_distinct(region, part), _rename(region, rest))
        for index, block in enumerate(self.blocks):
            if (rest := _below(name, block)) is not None:
                return "other", f"blocks.{index}.other.{rest}"
        return "other", f"other.{_rename('other', _below(name, self.trunk) or name)}"

    def _within_unit(self, name: str, place: _Place, anchor: str) -> str:
        """A parameter's name within its unit, whether or not the unit lies in several children."""
        rest = name[len(anchor) + 1 :]
        main = self.spec.units()[str(place.unit)]
        if main == (place.child,):
            return _rename(str(place.unit), rest)
        return _rename(str(place.unit), f"{place.child}.{rest}")


def _prefixes(name: str) -> Iterable[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _below(name: str, place: str) -> str | None:
    """The part of a name that follows a place's name; None if it does not lie there."""
    if name == place:
        return ""
    return name[len(place) + 1 :] if place and name.startswith(place + ".") else None


def _distinct(region: str, part: str) -> str:
    """What a key begins with: the region, but for DeiT's second token."""
    return "distillation_token" if "dist" in part else region


def _rename(region: str, name: str) -> str:
    for pattern, replacement in _RENAME.get(region, ()):
        renamed = re.sub(pattern, replacement, name, count=1)
        if renamed != name:
            return renamed
    return name
