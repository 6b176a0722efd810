"""Loose parameters: those that lie in a module beside its children, such as timm's `pos_embed`.

A tuner layer wraps modules. To train a loose parameter without copying its whole owner, it is moved
into a small module of its own, and the owner gets a property under the parameter's name that reads
it there. `release` undoes this.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

_PREFIX = "loose_"


class Holder(nn.Module):
    """Holds one parameter and returns it when called."""

    def __init__(self, value: nn.Parameter) -> None:
        super().__init__()
        self.value = value

    def forward(self) -> nn.Parameter:
        """Return the parameter."""
        return self.value


def holder_name(parameter: str) -> str:
    """The name of the module that holds a loose parameter.

    Examples:
        >>> holder_name("timm_model.pos_embed")
        'timm_model.loose_pos_embed'
    """
    owner, dot, last = parameter.rpartition(".")
    return f"{owner}{dot}{_PREFIX}{last}"


def held_name(holder: str) -> str:
    """The inverse of `holder_name`."""
    owner, dot, last = holder.rpartition(".")
    return f"{owner}{dot}{last.removeprefix(_PREFIX)}"


def hold(model: nn.Module, parameter: str) -> None:
    """Move a loose parameter into a holder; nothing happens if it is there already."""
    owner_name, _, name = parameter.rpartition(".")
    owner = model.get_submodule(owner_name)
    value = owner._parameters.get(name)
    if value is None:
        return
    owner._parameters[name] = None  # keeps its place in the order
    owner.add_module(_PREFIX + name, Holder(value))
    _set_properties(owner, (*_held_by(owner), name))


def release(owner: nn.Module, child_name: str) -> None:
    """Put the parameter of a holder back into its owner."""
    name = child_name.removeprefix(_PREFIX)
    holder = owner._modules.pop(child_name)
    assert isinstance(holder, Holder)
    _set_properties(owner, tuple(held for held in _held_by(owner) if held != name))
    owner._parameters[name] = holder.value


def _held_by(owner: nn.Module) -> tuple[str, ...]:
    return getattr(type(owner), "_held_parameters", ())


def _set_properties(owner: nn.Module, names: tuple[str, ...]) -> None:
    bare: Any = getattr(type(owner), "_class_without_holders", type(owner))
    owner.__class__ = _class_with_holders(bare, names) if names else bare


@functools.cache
def _class_with_holders(bare: Any, names: tuple[str, ...]) -> Any:
    """The owner's class with a property for each held parameter; instances can be pickled."""

    def reduce(self: nn.Module, protocol: Any) -> Any:
        return _empty_instance, (bare, names), self.__dict__

    namespace: dict[str, Any] = {
        name: property(functools.partial(_read, child=_PREFIX + name)) for name in names
    }
    namespace |= {
        "__module__": bare.__module__,
        "__doc__": bare.__doc__,
        "__reduce_ex__": reduce,
        "_class_without_holders": bare,
        "_held_parameters": names,
    }
    return type(bare.__name__, (bare,), namespace)


def _read(owner: nn.Module, *, child: str) -> Any:
    return owner._modules[child]()  # type: ignore[misc]


def _empty_instance(bare: Any, names: tuple[str, ...]) -> nn.Module:
    cls = _class_with_holders(bare, names)
    return cls.__new__(cls)
