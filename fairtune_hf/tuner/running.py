"""Running statistics: floating-point buffers that a module writes while it trains, such as BatchNorm's.

They are state of the module like its parameters, and go with them: where an adapter trains a module,
its copy keeps statistics of its own and they are saved with it; everywhere else they stay those of
the base model.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from .names import join


def running_buffers(module: nn.Module) -> list[str]:
    """The names of a module's persistent buffers, its children's too, where some of them are floating point.

    What holds whole numbers only, such as a table of positions, is not changed by training.
    """
    return [
        join(prefix, name)
        for prefix, child in module.named_modules()
        if _has_running(child)
        for name in _persistent(child)
    ]


def hold_still(model: nn.Module) -> None:
    """Keep the running statistics of the base model as they are while adapters train."""
    for name, module in model.named_modules():
        if "fairmask_copies" in name.split(".") or not _has_running(module):
            continue
        if not _holds(module):
            module.register_forward_pre_hook(_evaluate)


def let_go(model: nn.Module) -> None:
    """Undo `hold_still`."""
    for module in model.modules():
        for key in _holds(module):
            del module._forward_pre_hooks[key]


def _evaluate(module: nn.Module, _: Any) -> None:
    """Run the module as in evaluation, however the model around it was switched."""
    module.training = False


def _holds(module: nn.Module) -> list[int]:
    return [key for key, hook in module._forward_pre_hooks.items() if hook is _evaluate]


def _has_running(module: nn.Module) -> bool:
    # a tuner layer answers for its base module's attributes; it has no buffers of its own
    return any(module._buffers[name].is_floating_point() for name in _persistent(module))  # type: ignore[union-attr]


def _persistent(module: nn.Module) -> list[str]:
    kept_out = module._non_persistent_buffers_set
    return [
        name
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in kept_out
    ]
