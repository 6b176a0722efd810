"""Names of a model's modules and parameters, as they were before FairMask layers were put in."""

from __future__ import annotations

from torch import nn

from .loose import Holder, held_name


def plain_name(name: str) -> str:
    """A module's or parameter's name as it was before FairMask layers were put in."""
    return name.replace(".base_layer", "")


def plain_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules of the model as it was before FairMask layers were put in, by name."""
    found: dict[str, nn.Module] = {}
    wrapper = ""  # the layer whose inside comes next: modules are listed depth first
    for name, module in model.named_modules():
        inside = bool(wrapper) and name.startswith(wrapper + ".")
        if inside and not (name + ".").startswith(f"{wrapper}.base_layer."):
            continue
        if hasattr(module, "fairmask_copies"):
            wrapper = name
            continue
        found[plain_name(name)] = module
    return found


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the model as it was before FairMask layers were put in, by name."""
    seen: set[int] = set()
    found: dict[str, nn.Parameter] = {}
    for module_name, module in plain_modules(model).items():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                full = join(module_name, name)
                found[held_name(module_name) if isinstance(module, Holder) else full] = parameter
    return found


def join(prefix: str, name: str) -> str:
    """Put two parts of a dotted name together, either of which may be empty."""
    return ".".join(filter(None, (prefix, name)))
