"""Which parameters an adapter trains, worked out from its config and the model.

The mask is the truth and is all that is saved; names of modules are worked out anew in each model,
so that an adapter fits any naming of the same architecture.
"""

from __future__ import annotations

from collections.abc import Iterable

from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from .anatomy import Leaf, describe
from .config import FairMaskConfig
from .names import plain_modules, plain_parameters


def build_plan(config: FairMaskConfig, model: nn.Module) -> tuple[Leaf, ...]:
    """The parameters that an adapter with this config trains in this model.

    Raises:
        ValueError: If the mask does not fit the model, or nothing at all would be trained.
    """
    if config.target_modules is not None:
        return tuple(_leaves_of_targets(config, model))
    anatomy = describe(model, config.block_pattern)
    units = config.resolve_mask(len(anatomy.blocks)).units()
    also = set(config.train_also)
    leaves = tuple(leaf for leaf in anatomy.leaves if _is_trained(leaf, units, also))
    if not leaves:
        raise ValueError(
            f"mask: expected something to train, but the mask is all zeros and {type(model).__name__} "
            "has no classification head. Set a bit, or load the model with a head."
        )
    return leaves


def tuned_by_module(leaves: Iterable[Leaf]) -> dict[str, dict[str, str]]:
    """Modules to wrap -> names of the parameters trained in each -> canonical keys."""
    tuned: dict[str, dict[str, str]] = {}
    for leaf in leaves:
        tuned.setdefault(leaf.anchor, {})[leaf.relative_name] = leaf.key
    return tuned


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
