"""The tuner layer: a module of the model, and for each adapter a copy with parameters of its own.

A copy shares everything it does not train with the wrapped module: frozen parameters and the model's
config. Its running statistics (BatchNorm) are its own. A layer that an adapter does not train runs the
wrapped module.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import nn

from .running import let_go, running_buffers


class FairMaskLayer(nn.Module, BaseTunerLayer):
    """Wraps a module so that each adapter trains its own values of some of the module's parameters.

    Args:
        base_layer: The module of the base model.
        adapter_name: The first adapter.
        tuned: The parameters that the adapter trains: name within the module -> canonical key.
        registered: All adapters of the model, also those that do not train this module.
    """

    adapter_layer_names: tuple[str, ...] = ("fairmask_copies",)
    other_param_names: tuple[str, ...] = ()

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        tuned: Mapping[str, str],
        registered: Sequence[str] = (),
        *,
        inference_mode: bool = False,
        on_meta: bool = False,
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.fairmask_copies = nn.ModuleDict()
        self.tuned: dict[str, dict[str, str]] = {}
        self.registered_adapters = list(registered)
        self.merged_adapters: list[str] = []
        self._base_values: dict[str, torch.Tensor] = {}
        self._active_adapter: str | list[str] = adapter_name
        # PEFT reads these on every tuner layer
        self.in_features: int | None = getattr(base_layer, "in_features", None)
        self.out_features: int | None = getattr(base_layer, "out_features", None)
        self.update_layer(adapter_name, tuned, inference_mode=inference_mode, on_meta=on_meta)

    def update_layer(
        self,
        adapter_name: str,
        tuned: Mapping[str, str],
        *,
        inference_mode: bool = False,
        on_meta: bool = False,
    ) -> None:
        """Add an adapter's copy, with the base model's values even if another adapter is merged."""
        own = {name: self.base_layer.get_parameter(name) for name in tuned}
        self.fairmask_copies[adapter_name] = _copy_sharing_frozen(self.base_layer, own, on_meta)
        self.tuned[adapter_name] = dict(tuned)
        self.register_adapter(adapter_name)
        if self.merged and not on_meta:
            with torch.no_grad():
                for name, value in self._own_values(adapter_name):
                    if name in self._base_values:
                        value.copy_(self._base_values[name])
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def canonical_keys(self, adapter_name: str) -> dict[str, str]:
        """Names of the adapter's own parameters and statistics, within this layer -> canonical keys."""
        tuned = self.tuned.get(adapter_name, {})
        if not tuned:
            return {}
        buffers = running_buffers(self.fairmask_copies[adapter_name])
        keys = tuned | {name: _buffer_key(name, tuned) for name in buffers}
        return {f"fairmask_copies.{adapter_name}.{name}": key for name, key in keys.items()}

    def register_adapter(self, adapter_name: str) -> None:
        """Note that the model has this adapter, whether or not it trains this module."""
        if adapter_name not in self.registered_adapters:
            self.registered_adapters.append(adapter_name)

    def _own_parameters(self, adapter_name: str) -> list[tuple[str, nn.Parameter]]:
        copied = self.fairmask_copies[adapter_name]
        return [(name, copied.get_parameter(name)) for name in self.tuned[adapter_name]]

    def _own_values(self, adapter_name: str) -> list[tuple[str, torch.Tensor]]:
        """The adapter's own parameters and running statistics."""
        copied = self.fairmask_copies[adapter_name]
        buffers = [(name, copied.get_buffer(name)) for name in running_buffers(copied)]
        return [*self._own_parameters(adapter_name), *buffers]

    # Adapters that train different modules live side by side, so a layer goes by all adapters of the
    # model where it must choose the same one as every other layer.

    def _all_available_adapter_names(self) -> list[str]:
        return sorted(self.registered_adapters)

    def _get_available_adapters(self) -> set[str]:
        return set(self.registered_adapters)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make adapters active, and their own parameters trainable unless `inference_mode`."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        for name in self.fairmask_copies:
            self._require_grad(name, name in names and not inference_mode)
        self._active_adapter = names

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        """Switch the gradients of the adapters' own parameters."""
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        for name in names:
            if name in self.fairmask_copies:
                self._require_grad(name, requires_grad)

    def _require_grad(self, adapter_name: str, requires_grad: bool) -> None:
        for _, parameter in self._own_parameters(adapter_name):
            if parameter.is_leaf:  # sharded parameters may not be
                parameter.requires_grad_(requires_grad)

    def enable_adapters(self, enabled: bool) -> None:
        """Run the active adapter, or the base model with all adapters unmerged and frozen."""
        if enabled:
            self._disable_adapters = False
            self.set_adapter(self.active_adapters)
            return
        if self.merged:
            self.unmerge()
        for name in self.fairmask_copies:
            self._require_grad(name, False)
        self._disable_adapters = True

    def delete_adapter(self, adapter_name: str) -> None:
        """Remove an adapter; if it was the active one, the first of the others takes its place."""
        if adapter_name in self.registered_adapters:
            self.registered_adapters.remove(adapter_name)
        self.tuned.pop(adapter_name, None)
        super().delete_adapter(adapter_name)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Write an adapter's values into the wrapped module in place, keeping the base values.

        Raises:
            ValueError: If several adapters are named, since their values cannot be added up, or if
                `safe_merge` finds a value that is not finite.
        """
        names = check_adapters_to_merge(self, adapter_names)
        if not names:
            return
        if len(names) > 1:
            raise ValueError(
                f"adapter_names: expected one adapter to merge, got {names}. A FairMask adapter "
                "replaces parameters, so only one can be merged at a time."
            )
        if self.merged:
            warnings.warn(
                f"Already merged with {self.merged_adapters}. Unmerging first.", stacklevel=2
            )
            self.unmerge()
        self.merged_adapters.append(names[0])
        if names[0] not in self.fairmask_copies:
            return
        own = self._own_values(names[0])
        if safe_merge and not all(value.isfinite().all() for _, value in own):
            self.merged_adapters.remove(names[0])
            raise ValueError(
                f"NaNs detected in the merged weights. The adapter {names[0]} seems to be broken: a "
                "value is not finite. Train it again, or merge without safe_merge."
            )
        with torch.no_grad():
            for name, value in own:
                base = self._base_value(name)
                self._base_values[name] = base.detach().clone()
                base.copy_(value)

    def unmerge(self) -> None:
        """Write the base values back, bit for bit."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self.merged_adapters.clear()
        with torch.no_grad():
            for name, values in self._base_values.items():
                self._base_value(name).copy_(values)
        self._base_values.clear()

    def _base_value(self, name: str) -> torch.Tensor:
        """A parameter or buffer of the base module."""
        owner, _, last = name.rpartition(".")
        value: torch.Tensor = getattr(self.base_layer.get_submodule(owner), last)
        return value

    def current_module(self) -> nn.Module:
        """The module that runs: the active adapter's copy, or the base module."""
        if self._disable_adapters or self.merged_adapters:
            return self.base_layer
        active = [name for name in self.active_adapters if name in self.fairmask_copies]
        if not active:
            return self.base_layer
        if len(active) > 1:
            raise ValueError(
                f"Expected one active FairMask adapter, got {active}. Call set_adapter with one name."
            )
        return self.fairmask_copies[active[0]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the active adapter's copy of the module."""
        if self._disable_adapters and self.merged_adapters:
            self.unmerge()
        return self.current_module()(*args, **kwargs)

    def _get_base_layer_device_and_dtype(
        self, base_layer: nn.Module
    ) -> tuple[torch.device | None, torch.dtype | None]:
        first = next(base_layer.parameters(), None)
        return (None, None) if first is None else (first.device, first.dtype)

    def __getattr__(self, name: str) -> Any:
        """Fall back to the module that runs, for code that reads a module's attributes or calls its methods.

        Never to the base module while an adapter runs: what is read there would not be trained.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            # a layer that is being built or unpickled has neither of these yet
            if name in ("base_layer", "fairmask_copies") or name.startswith("__"):
                raise
            return getattr(self._answering_module(), name)

    def _answering_module(self) -> nn.Module:
        """The module that runs; the base module where several adapters are active, so that none can."""
        if "merged_adapters" not in self.__dict__ or "fairmask_copies" not in self._modules:
            return self.base_layer
        active = [name for name in self.active_adapters if name in self.fairmask_copies]
        return self.base_layer if len(active) > 1 else self.current_module()

    def __repr__(self) -> str:
        return "fairmask." + super().__repr__()


def _copy_sharing_frozen(
    module: nn.Module, own: dict[str, nn.Parameter], on_meta: bool = False
) -> nn.Module:
    """Copy a module but for its config and the parameters that are not in `own`."""
    memo: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
    for child in module.modules():
        if "config" in child.__dict__:
            memo[id(child.config)] = child.config
    for parameter in own.values():
        memo[id(parameter)] = _clone(parameter, on_meta)
    copied = copy.deepcopy(module, memo)
    let_go(copied)  # its running statistics are its own
    return copied


def _buffer_key(name: str, tuned: Mapping[str, str]) -> str:
    """The canonical key of a running statistic: beside a trained parameter of its module, else below the first."""
    owner, _, last = name.rpartition(".")
    beside = (key for own, key in tuned.items() if own.rpartition(".")[0] == owner)
    key = next(beside, None)
    if key is None:
        return f"{next(iter(tuned.values()))}.buffers.{name}"
    return f"{key.rpartition('.')[0]}.{last}"


def _clone(parameter: nn.Parameter, on_meta: bool) -> nn.Parameter:
    data = parameter.detach()
    return nn.Parameter(torch.empty_like(data, device="meta") if on_meta else data.clone())
