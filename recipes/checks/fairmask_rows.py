"""Pytest plugin: put FairMask's rows in the tables of PEFT's shared tests (see peft_shared_tests.py)."""

import importlib.util
import json
import sys
import types
from collections import Counter
from dataclasses import dataclass, field

import pytest
import timm
import torch
import transformers
from torch import nn

from fairtune_hf.tuner import FairMaskConfig, FairMaskLayer, FairMaskModel, _register

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
    "initializer_range": 0.5,
    "qkv_bias": False,  # a key's bias has a zero gradient, but PEFT asks that all parameters move
}


def _timm(name, **kwargs):
    torch.manual_seed(0)
    size = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model = timm.create_model(name, num_classes=2, **size, **kwargs)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.5)
    return model


ARCHITECTURES = {
    "ViT": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**TINY)),
    "DeiT": lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(**TINY)),
    "DINOv2": lambda: transformers.Dinov2ForImageClassification(
        transformers.Dinov2Config(**TINY, mlp_ratio=2)
    ),
    "BEiT": lambda: transformers.BeitForImageClassification(
        transformers.BeitConfig(**TINY, layer_scale_init_value=1.0)
    ),
    "Swin": lambda: transformers.SwinForImageClassification(
        transformers.SwinConfig(
            image_size=16,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[1, 2],
            window_size=2,
            initializer_range=0.5,
            qkv_bias=False,
        )
    ),
    "timm ViT": lambda: _timm("vit_tiny_patch16_224"),
    "timm EVA": lambda: _timm("eva02_tiny_patch14_224"),
}

MASKS = {
    "none": {"mask": "none"},
    "layernorm": {"mask": "layernorm"},
    "attention": {"mask": "attention"},
    "mlp": {"mask": "mlp"},
    "all": {"mask": "full_blocks"},
    "mixed": {"mask": "100011"},
}


class Net(nn.Module):
    """Makes images of PEFT's test input, and log-probabilities of the logits."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.dtype = torch.float

    def forward(self, X):
        rows = nn.functional.pad(X.to(self.dtype) / 90, (0, 6))
        images = rows[:, None, :, None] - rows[:, None, None, :] ** 2
        out = self.net(images.repeat(1, 3, 1, 1))
        return nn.functional.log_softmax(getattr(out, "logits", out), dim=-1)


@dataclass
class PerturbedFairMaskConfig(FairMaskConfig):
    """PEFT's tests ask for adapters that differ from the base model from the start."""

    init_weights: bool = field(default=True)


class PerturbedFairMaskModel(FairMaskModel):
    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, *args, **kw
    ):
        super()._create_and_replace(
            peft_config, adapter_name, target, target_name, parent, *args, **kw
        )
        layer = getattr(parent, target_name)
        assert isinstance(layer, FairMaskLayer)
        if not peft_config.init_weights:
            with torch.no_grad():
                for _, parameter in layer._own_parameters(adapter_name):
                    parameter += 0.1 * torch.randn_like(parameter)


ROWS = [
    (f"{model} {mask}", model, PerturbedFairMaskConfig, kwargs)
    for model in ARCHITECTURES
    for mask, kwargs in MASKS.items()
]
LEFT_OUT = Counter()
HUB_BOUND = {
    "test_from_pretrained",
    "test_from_pretrained_cache_dir",
    "test_save_pretrained_with_runtime_config",
}


def _from_pretrained(cls, model_id, dtype=None):
    torch.manual_seed(0)
    return Net(ARCHITECTURES[model_id]()).to(dtype or torch.float32)


def pytest_configure(config):
    if importlib.util.find_spec("diffusers") is None:  # imported, but not used by these tests
        sys.modules["diffusers"] = types.SimpleNamespace(StableDiffusionPipeline=object)
    _register.register(PerturbedFairMaskConfig, PerturbedFairMaskModel)


def _new_rows(mark):
    """FairMask's rows in the form of a `parametrize` mark of PEFT's tests, or None."""
    names = mark.args[0] if isinstance(mark.args[0], str) else ",".join(mark.args[0])
    names = names.replace(" ", "")
    if names == "test_name,model_id,config_cls,config_kwargs":
        return ROWS
    # not the table of methods that choose layers by their index, which LNTuning is not in either
    methods = {getattr(row[0], "__name__", "") for row in mark.args[1] if isinstance(row, tuple)}
    if names == "config_class,mandatory_kwargs" and "LNTuningConfig" in methods:
        return [(PerturbedFairMaskConfig, {}), (PerturbedFairMaskConfig, {"mask": "attention"})]
    if names == "config_cls" and len(mark.args[1]) > 10:  # all methods, not a choice of some
        return [PerturbedFairMaskConfig]
    return None


def pytest_pycollect_makeitem(collector, name, obj):
    module = getattr(collector, "module", None)
    mock = getattr(module, "MockTransformerWrapper", None)
    if mock is not None:
        mock.from_pretrained = classmethod(_from_pretrained)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    marks = metafunc.definition.own_markers
    for i, mark in enumerate(marks):
        if mark.name == "parametrize" and (rows := _new_rows(mark)) is not None:
            marks[i] = type(mark)("parametrize", (mark.args[0], rows), {}, _ispytest=True)


def pytest_collection_modifyitems(config, items):
    """Keep the tests that run on a row of the tables."""
    kept = []
    for item in items:
        if "test_adapter_dtype_autocast" in item.nodeid and item.callspec.params.get(
            "autocast_adapter_dtype"
        ):
            # as for LNTuning, whose copies keep the base model's dtype too
            LEFT_OUT["casting of adapters to float32"] += 1
        elif getattr(item, "originalname", "") in HUB_BOUND:
            LEFT_OUT["needs the Hub"] += 1
        elif any(_is_fairmask(value) for value in _parameters(item)):
            kept.append(item)
        else:
            LEFT_OUT["other methods' tests"] += 1
    items[:] = kept


def _parameters(item):
    return item.callspec.params.values() if hasattr(item, "callspec") else ()


def _is_fairmask(value):
    return isinstance(value, type) and issubclass(value, FairMaskConfig)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"left out: {json.dumps(LEFT_OUT)}")
