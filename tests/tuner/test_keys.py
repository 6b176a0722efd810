"""Canonical keys do not depend on how a version of transformers names its modules."""

import pytest
import torch
from torch import nn

from fairtune_hf.tuner import FairMaskConfig, count_blocks, describe

D, H = 16, 32


def tree(names):
    """A tree of modules from dotted names -> modules, without a forward."""
    root = nn.Module()
    for name, module in names.items():
        owner = root
        *path, last = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        if isinstance(module, nn.Parameter):
            owner.register_parameter(last, module)
        else:
            owner.add_module(last, module)
    return root


def old_vit(blocks=3):
    """The names of transformers' ViT before 5.9."""
    names = {
        "vit.embeddings.cls_token": nn.Parameter(torch.zeros(1, 1, D)),
        "vit.embeddings.position_embeddings": nn.Parameter(torch.zeros(1, 5, D)),
        "vit.embeddings.patch_embeddings.projection": nn.Conv2d(3, D, 8),
    }
    for i in range(blocks):
        block = f"vit.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            names[f"{block}.attention.attention.{part}"] = nn.Linear(D, D)
        names[f"{block}.attention.output.dense"] = nn.Linear(D, D)
        names[f"{block}.intermediate.dense"] = nn.Linear(D, H)
        names[f"{block}.output.dense"] = nn.Linear(H, D)
        names[f"{block}.layernorm_before"] = nn.LayerNorm(D)
        names[f"{block}.layernorm_after"] = nn.LayerNorm(D)
    return tree(names | {"vit.layernorm": nn.LayerNorm(D), "classifier": nn.Linear(D, 2)})


def old_swin():
    """The names of transformers' Swin before 5.9, one stage."""
    block = "swin.encoder.layers.0.blocks.0"
    names = {
        f"{block}.attention.self.{part}": nn.Linear(D, D) for part in ("query", "key", "value")
    }
    names |= {
        f"{block}.attention.self.relative_position_bias_table": nn.Parameter(torch.zeros(9, 2)),
        f"{block}.attention.output.dense": nn.Linear(D, D),
        f"{block}.intermediate.dense": nn.Linear(D, H),
        f"{block}.output.dense": nn.Linear(H, D),
        f"{block}.layernorm_before": nn.LayerNorm(D),
        f"{block}.layernorm_after": nn.LayerNorm(D),
    }
    return tree(names | {"classifier": nn.Linear(D, 2)})


def keys(model):
    parameters = dict(model.named_parameters())
    return {leaf.key: tuple(parameters[leaf.name].shape) for leaf in describe(model).leaves}


def test_vit_of_both_namings_has_the_same_keys(zoo):
    old, new = old_vit(), zoo.build("vit")
    assert describe(old).architecture == "vit_encoder"
    assert describe(new).architecture == "vit"
    assert keys(old) == keys(new)
    assert count_blocks(old) == 3


def test_timm_has_the_same_keys_but_for_the_fused_qkv(zoo):
    split, fused = keys(zoo.build("vit")), keys(zoo.build("timm_vit"))
    assert {k for k in split if "attention" not in k} == {k for k in fused if "attention" not in k}
    assert {k for k in fused if ".attention." in k and ".proj." not in k} == {
        f"blocks.{i}.attention.qkv.{kind}" for i in range(3) for kind in ("weight", "bias")
    }


def test_swin_of_both_namings_has_the_same_keys(zoo):
    old = {key for key in keys(old_swin()) if key.startswith("blocks.0.")}
    assert describe(old_swin()).architecture == "swin_before"
    assert old == {key for key in keys(zoo.build("swin")) if key.startswith("blocks.0.")}


@pytest.mark.parametrize("mask", ["attention", "mlp", "layernorm", "full_blocks", "full", "bitfit"])
def test_old_names_are_trained_alike(zoo, mask):
    import peft

    def own(model):
        wrapped = peft.inject_adapter_in_model(FairMaskConfig(mask=mask), model)
        return sum(p.numel() for p in wrapped.parameters() if p.requires_grad)

    assert own(old_vit()) == own(zoo.build("vit"))
