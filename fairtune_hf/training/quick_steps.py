"""Spares a training what the Trainer and Accelerate do anew in every step, though once would do.

For a small model that is a tenth of a step on a CPU, and more on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from torch.nn import Parameter

_is_training = attrgetter("training")


class KnownModules:
    """Lets a model answer `train`, `eval` and `parameters` from memory until `forget`.

    The Trainer sets the mode and asks for the parameters several times a step, each time by a walk through all
    modules. What is remembered is read again whenever a mode changes, so after every evaluation; in
    between, no module or parameter may be put in another's place, as FSDP does.

    Args:
        model: The model in training, an `nn.Module`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._read()
        self._model.train, self._model.parameters = self._train, self._list_parameters

    def forget(self) -> None:
        """Leave the model as it was."""
        for name in ("train", "parameters"):
            vars(self._model).pop(name, None)

    def _read(self) -> None:
        self._modules = list(self._model.modules())
        self._parameters = list(type(self._model).parameters(self._model))

    def _train(self, mode: bool = True) -> nn.Module:
        modes = map(_is_training, self._modules)  # a walk takes eighty times as long
        unchanged = all(modes) if mode else not any(modes)
        if not unchanged:
            type(self._model).train(self._model, mode)
            self._read()
        model: nn.Module = self._model
        return model

    def _list_parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        if recurse:
            return iter(self._parameters)
        found: Iterator[Parameter] = type(self._model).parameters(self._model, recurse=False)
        return found


class PlainOptimizer(AcceleratedOptimizer):
    """Accelerate's wrapper of an optimizer of PyTorch's own, for one process without a gradient scaler.

    The parent searches the installed packages twice a step for an optimizer that it treats differently.
    """

    _is_accelerate_prepared = True  # so `Accelerator.prepare` takes it as it is

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer, device_placement=False)  # there is no state yet to be placed

    def step(self, closure: Any = None) -> None:
        """Change the parameters, unless their gradients are still being added up."""
        if self.gradient_state.sync_gradients:
            self.optimizer.step(closure)
