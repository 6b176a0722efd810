"""Which parameters an adapter trains, worked out from its config and the model.

The mask is the truth and is all that is saved; names of modules are worked out anew in each model,
so that an adapter fits any naming of the same architecture.
"""

from __future__ import annotations

from collections.abc import Iterable

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from fairtune_hf.mask import LAYOUTS, PRESETS, TRAIN_ALSO, UNITS, Mask
from fairtune_hf.naming import some

from .anatomy import Anatomy, Leaf, describe
from .architectures import own_pattern
from .config import FairMaskConfig
from .names import plain_modules, plain_parameters

# Classes that hold a part and never compute with it: the classifier takes the mean of the patches before this norm.
_OUTSIDE_FORWARD = {"CLIPForImageClassification": {"final_norm"}}


def build_plan(config: FairMaskConfig, model: nn.Module) -> tuple[Leaf, ...]:
    """The parameters that an adapter with this config trains in this model.

    Raises:
        ValueError: If the mask does not fit the model, nothing at all would be trained, or something
            that `train_also`, a preset or a bit names is not in the model, or not in its forward.
    """
    if config.target_modules is not None:
        return tuple(_leaves_of_targets(config, model))
    if config.block_pattern is None:
        config.block_pattern = own_pattern(model)  # saved, so that the adapter alone says it
    anatomy = describe(model, config.block_pattern)
    mask = config.resolve_mask(len(anatomy.blocks))
    units = mask.units()
    also = set(config.train_also)
    _check_all_found(also, anatomy, model)
    if not config.inference_mode:  # an adapter that is only used may have been trained before
        _check_in_forward(also, model)
        _check_bits(mask, anatomy, model)
    leaves = tuple(leaf for leaf in anatomy.leaves if _is_trained(leaf, units, also))
    if not leaves:
        raise ValueError(
            f"mask: expected something to train, but the mask is all zeros and {type(model).__name__} "
            "has no classification head. Set a bit, or load the model with a head."
        )
    return leaves


def count_trained(model: nn.Module, config: FairMaskConfig) -> tuple[int, int]:
    """Count the parameters that an adapter with this config trains in a model, and all of the model's."""
    sizes = {name: parameter.numel() for name, parameter in plain_parameters(model).items()}
    return sum(sizes[leaf.name] for leaf in build_plan(config, model)), sum(sizes.values())


def tuned_by_module(leaves: Iterable[Leaf]) -> dict[str, dict[str, str]]:
    """Modules to wrap -> names of the parameters trained in each -> canonical keys."""
    tuned: dict[str, dict[str, str]] = {}
    for leaf in leaves:
        tuned.setdefault(leaf.anchor, {})[leaf.relative_name] = leaf.key
    return tuned


def _check_all_found(also: set[str], anatomy: Anatomy, model: nn.Module) -> None:
    """Refuse names that mean no parameter of this model; `everything_else` may be nothing."""
    there = {leaf.region for leaf in anatomy.leaves} | {"everything_else"}
    if any(leaf.is_bias and leaf.region != "head" for leaf in anatomy.leaves):
        there.add("biases")
    absent = [name for name in TRAIN_ALSO if name in also - there]
    if absent:
        users = [name for name, preset in PRESETS.items() if set(preset.train_also) & set(absent)]
        raise ValueError(
            f"train_also: expected parts that this model has, and {type(model).__name__} (read as "
            f"{anatomy.architecture}) has no {' and no '.join(absent)}. Leave that out"
            + (f"; the preset {' or '.join(users)} asks for it too." if users else ".")
        )


def _check_in_forward(also: set[str], model: nn.Module) -> None:
    """Refuse names of parameters that the model holds and never computes with."""
    for module in plain_modules(model).values():
        idle = also & _OUTSIDE_FORWARD.get(type(module).__name__, set())
        if idle:
            raise ValueError(
                f"train_also: expected parts that the model computes with, and {type(module).__name__} leaves its "
                f"{' and '.join(sorted(idle))} out of its forward, so that it would never be trained. Leave that out; in "
                "place of the preset layernorm_tuning use layernorm."
            )


def check_layout_of(model: nn.Module, layout: str) -> None:
    """Refuse a layout with bits that select no parameter of a model: a search would switch nothing by them.

    Raises:
        ValueError: Naming the bits.
    """
    anatomy = describe(model)
    mask = Mask.parse([1] * len(LAYOUTS[layout]) * len(anatomy.blocks), layout, len(anatomy.blocks))
    _refuse_idle(_idle_bits(mask, anatomy), anatomy, model)


def _check_bits(mask: Mask, anatomy: Anatomy, model: nn.Module) -> None:
    """Refuse bits that are set and select nothing; all of a kind, as a preset sets them, need find only some."""
    idle = _idle_bits(mask, anatomy)
    rows = [set(mask.row(part)) for part in mask.parts]
    if all(len(row) == 1 for row in rows) and len(idle) < mask.count():
        return
    _refuse_idle(idle, anatomy, model)


def _idle_bits(mask: Mask, anatomy: Anatomy) -> list[str]:
    """Name the bits that are set and select no parameter."""
    blocks: dict[int | None, list[Leaf]] = {}
    for leaf in anatomy.leaves:
        blocks.setdefault(leaf.block, []).append(leaf)
    return [
        f"blocks.{block}.{part}"
        for part in mask.parts
        for block, bit in enumerate(mask.row(part))
        if bit
        and not any(
            leaf.in_unit(u) for leaf in blocks.get(block, []) for u in UNITS.get(part, (part,))
        )
    ]


def _refuse_idle(idle: list[str], anatomy: Anatomy, model: nn.Module) -> None:
    if idle:
        raise ValueError(
            f"mask: expected bits of parts that this model has, and {type(model).__name__} (read as "
            f"{anatomy.architecture}) has no parameter for {some(idle)}. Set these bits to 0, choose a "
            "layout without them, or name the part in block_pattern."
        )


def _is_trained(leaf: Leaf, units: frozenset[tuple[int, str]], also: set[str]) -> bool:
    if leaf.region == "head" or leaf.region in also:
        return True
    if leaf.is_bias and "biases" in also:
        return True
    if leaf.region == "block":
        return any(block == leaf.block and leaf.in_unit(unit) for block, unit in units)
    return "everything_else" in also


def _leaves_of_targets(config: FairMaskConfig, model: nn.Module) -> Iterable[Leaf]:
    """The parameters of the modules that `target_modules` names, outermost modules only."""
    anchors: list[str] = []
    for name in plain_modules(model):
        inside = any(name.startswith(anchor + ".") for anchor in anchors)
        if name and not inside and _is_target(config, name):
            anchors.append(name)
    for name in plain_parameters(model):
        anchor = next((a for a in anchors if name.startswith(a + ".")), None)
        if anchor is not None:
            yield Leaf(name, anchor, name, "other")


def _is_target(config: FairMaskConfig, name: str) -> bool:
    found = check_target_module_exists(config, name)
    # an excluded module comes back as a truthy marker object
    return found is True or (found is not None and hasattr(found, "group"))
