"""Between a model's state dict and an adapter's file, whose keys name block, part and parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from fairtune_hf.naming import some

from .config import FairMaskConfig
from .layer import FairMaskLayer

FILE_PREFIX = "base_model.model."
"""What the keys in every PEFT adapter's file begin with, as do a `PeftModel`'s own. A model that
transformers has put an adapter in goes without it until the file is written."""


def file_keys(model: nn.Module, adapter_name: str) -> dict[str, str]:
    """Keys of an adapter's values in the model's state dict -> keys in the file."""
    keys: dict[str, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, FairMaskLayer):
            place = name.removeprefix("_fsdp_wrapped_module.")
            prefix = FILE_PREFIX if place.startswith(FILE_PREFIX) else ""
            for own, key in module.canonical_keys(adapter_name).items():
                keys[f"{place}.{own}"] = prefix + key
    return keys


def shared_parameters(model: nn.Module, adapter_name: str) -> dict[str, nn.Parameter]:
    """The frozen parameters that an adapter's copies share with the base model, by their names there."""
    own = file_keys(model, adapter_name)
    part = f".fairmask_copies.{adapter_name}."
    every = model.named_parameters(remove_duplicate=False)
    return {name: p for name, p in every if part in name and name not in own}


def adapter_values(
    model: nn.Module, adapter_name: str, state_dict: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Take an adapter's values out of the model's state dict.

    Raises:
        ValueError: If the state dict lacks some of them.
    """
    keys = file_keys(model, adapter_name)
    missing = [key for key in keys if key not in state_dict]
    if missing:
        raise ValueError(
            f"state_dict: expected all {len(keys)} parameters of adapter {adapter_name!r}, but "
            f"{some(missing)} are not in it. Pass the state dict of the whole model, and don't name "
            "an adapter like one of the model's modules."
        )
    return {file_key: state_dict[key] for key, file_key in keys.items()}


def values_for_model(
    model: nn.Module, adapter_name: str, state_dict: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Rename the entries of an adapter's file to the model's keys.

    Raises:
        ValueError: If a key is missing, unexpected or has another shape than the model's parameter.
    """
    keys = file_keys(model, adapter_name)
    own = {file_key.removeprefix(FILE_PREFIX): key for key, file_key in keys.items()}
    in_model = model.state_dict()
    found: dict[str, torch.Tensor] = {}
    unexpected = []
    for key, value in state_dict.items():
        bare = key.removeprefix(FILE_PREFIX)
        target = own.get(bare)
        # what `modules_to_save` holds has been given the model's names before
        if target is None and key not in in_model and bare not in in_model:
            unexpected.append(bare)
        found[target or key] = value
    missing = [key for key, target in own.items() if target not in found]
    faults = [f"missing keys: {some(missing)}"] if missing else []
    faults += [f"unexpected keys: {some(unexpected)}"] if unexpected else []
    faults += _wrong_shapes(own, found, in_model)
    if faults:
        raise ValueError(
            f"adapter {adapter_name!r} does not fit this model: {'; '.join(faults)}. Load it into the "
            "architecture it was trained on, with the same number of blocks and labels."
        )
    return found


def _wrong_shapes(
    own: Mapping[str, str],
    found: Mapping[str, torch.Tensor],
    in_model: Mapping[str, torch.Tensor],
) -> list[str]:
    return [
        f"{key} has shape {tuple(found[target].shape)} in the file and "
        f"{tuple(in_model[target].shape)} in the model"
        for key, target in own.items()
        if target in found and found[target].shape != in_model[target].shape
    ]


def load_pretrained_model(
    model: Any,
    state_dict: dict[str, torch.Tensor] | None = None,
    checkpoint_files: list[str] | None = None,
    load_config: Any = None,
    **kwargs: Any,
) -> Any:
    """Stand in for a transformers model's `_load_pretrained_model` while it carries FairMask layers.

    `load_adapter` of transformers does not ask the tuner to translate an adapter's keys, as PEFT
    does; this does it and hands on to the model's own method.
    """
    load = type(model)._load_pretrained_model
    adapter_name, config = next(reversed(getattr(model, "peft_config", {"": None}).items()))
    if not isinstance(config, FairMaskConfig):
        return load(model, state_dict, checkpoint_files, load_config, **kwargs)
    if state_dict is None:
        state_dict = {k: v for file in checkpoint_files or [] for k, v in load_file(file).items()}
    values = {
        key.removeprefix(FILE_PREFIX): value
        for key, value in values_for_model(model, adapter_name, state_dict).items()
    }
    load_config = replace(load_config, weight_mapping=[])
    info, offload = load(model, values, None, load_config, **kwargs)
    info.missing_keys.intersection_update(file_keys(model, adapter_name))
    return info, offload
