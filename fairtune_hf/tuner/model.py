"""The tuner: puts FairMask layers where a mask says, and takes them out again."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from .config import FairMaskConfig
from .labels import name_labels, rename_labels
from .layer import FairMaskLayer
from .loose import Holder, hold, release
from .plan import build_plan, tuned_by_module
from .running import hold_still, let_go
from .state import adapter_values, load_pretrained_model, shared_parameters, values_for_model


class FairMaskModel(BaseTuner):
    """Trains the parts of a vision transformer that a mask selects, and the classification head.

    Each selected module is wrapped with a copy whose parameters are trained; the base model stays as
    it is. The method is described in [FairTune](https://huggingface.co/papers/2310.05055), where the
    mask is searched for.

    Args:
        model: The model to be adapted.
        config: The adapter's configuration.
        adapter_name: The adapter's name.
        low_cpu_mem_usage: Create the copies on the meta device, to be filled by loading an adapter.

    Examples:
        >>> from peft import get_peft_model
        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> from fairtune_hf import FairMaskConfig
        >>> vit = ViTForImageClassification(ViTConfig(num_hidden_layers=12))
        >>> model = get_peft_model(vit, FairMaskConfig(mask="attention"))
        >>> model.print_trainable_parameters()
        trainable params: 28,349,954 || all params: 114,150,148 || trainable%: 24.8357
    """

    prefix: str = "fairmask_"
    tuner_layer_cls = FairMaskLayer
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Put an adapter into the model. The config says where; `state_dict` is not needed for it."""
        self._copies_on_meta = low_cpu_mem_usage
        super().inject_adapter(model, adapter_name, autocast_adapter_dtype, low_cpu_mem_usage)

    def _prepare_adapter_config(
        self, peft_config: FairMaskConfig, model_config: dict[str, Any]
    ) -> FairMaskConfig:
        return peft_config

    def _prepare_model(self, peft_config: FairMaskConfig, model: nn.Module) -> None:
        leaves = build_plan(peft_config, model)
        self._tuned = tuned_by_module(leaves)
        _check_modules_to_save(peft_config, self._tuned)
        for leaf in leaves:
            if leaf.loose:
                hold(model, leaf.name)

    def _check_target_module_exists(self, peft_config: FairMaskConfig, key: str) -> bool:
        return key in self._tuned

    def _create_and_replace(
        self,
        peft_config: FairMaskConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        tuned = self._tuned[current_key]
        modes = {"inference_mode": peft_config.inference_mode, "on_meta": self._copies_on_meta}
        if isinstance(target, FairMaskLayer):
            target.update_layer(adapter_name, tuned, **modes)
            return
        layer = FairMaskLayer(target, adapter_name, tuned, list(self.peft_config), **modes)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        setattr(parent, child_name, new_module)
        if isinstance(new_module, Holder):  # the layer around it has been taken away
            release(parent, child_name)

    def _post_injection_hook(
        self, model: nn.Module, config: FairMaskConfig, adapter_name: str
    ) -> None:
        hold_still(model)
        name_labels(model, config.id2label)
        if hasattr(type(model), "_load_pretrained_model"):
            model.__dict__["_load_pretrained_model"] = load_pretrained_model

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        super()._mark_only_adapters_as_trainable(model)
        for module in model.modules():
            if isinstance(module, FairMaskLayer):
                for adapter_name in self.peft_config:
                    module.register_adapter(adapter_name)

    def _unload_and_optionally_merge(
        self, merge: bool = True, *args: Any, **kwargs: Any
    ) -> nn.Module:
        model = super()._unload_and_optionally_merge(merge, *args, **kwargs)
        rename_labels(model, merged=merge)
        model.__dict__.pop("_load_pretrained_model", None)
        let_go(model)
        return model

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        """Do nothing: the copies keep the dtype of the modules whose place they take."""

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: FairMaskConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        return adapter_values(model, adapter_name, state_dict)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return key  # canonical keys never hold it

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: FairMaskConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        values = values_for_model(model, adapter_name, state_dict)
        # as the same objects, so that they stay shared and are not reported missing
        return values | shared_parameters(model, adapter_name)


def _check_modules_to_save(config: FairMaskConfig, tuned: dict[str, dict[str, str]]) -> None:
    clashing = sorted(
        name
        for name in tuned
        if any(name == m or name.endswith(f".{m}") for m in config.modules_to_save or [])
    )
    if clashing and config.target_modules is None:
        raise ValueError(
            f"modules_to_save: expected modules that FairMask does not train already, got {clashing}. "
            "Leave them out; and leave task_type unset, since task_type='SEQ_CLS' adds the classifier "
            "by itself."
        )
