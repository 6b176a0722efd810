"""Which parameters an adapter trains, worked out from its config and the model.

The mask is the truth and is all that is saved; names of modules are worked out anew in each model,
so that an adapter fits any naming of the same architecture.
"""

from __future__ import annotations

from collections.abc import Iterable

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from .anatomy import Anatomy, Leaf, describe
from .architectures import own_pattern
from .config import FairMaskConfig
from .mask import PRESETS, TRAIN_ALSO
from .names import plain_modules, plain_parameters


def build_plan(config: FairMaskConfig, model: nn.Module) -> tuple[Leaf, ...]:
    """The parameters that an adapter with this config trains in this model.

    Raises:
        ValueError: If the mask does not fit the model, nothing at all would be trained, or something
            that `train_also` or a preset names is not in the model.
    """
    if config.target_modules is not None:
        return tuple(_leaves_of_targets(config, model))
    if config.block_pattern is None:
        config.block_pattern = own_pattern(model)  # saved, so that the adapter alone says it
    anatomy = describe(model, config.block_pattern)
    units = config.resolve_mask(len(anatomy.blocks)).units()
    also = set(config.train_also)
    _check_all_found(also, anatomy, model)
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
