"""The life cycle of an adapter on a small ViT, to the bit wherever no training comes between."""

import copy
import json
import re

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, ViTConfig, ViTForImageClassification

from fairtune_hf.tuner import FairMaskConfig, FairMaskLayer

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 16,
    "patch_size": 8,
}
MIXED = {"layernorm": "100", "attention": "011", "mlp": "101"}
CONFIGS = {
    "none": {"mask": "none"},
    "layernorm": {"mask": "layernorm"},
    "attention": {"mask": "attention"},
    "mlp": {"mask": "mlp"},
    "full_blocks": {"mask": "full_blocks"},
    "mixed": {"mask": MIXED},
    "full": {"mask": "full"},
    "bitfit": {"mask": "bitfit"},
    "attention_tuning": {"mask": "attention_tuning"},
    "params": {"mask": "100101101010", "layout": "attention_params"},
    "target_modules": {"target_modules": ["mlp.fc1", "classifier"]},
}


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(0)
    return ViTForImageClassification(ViTConfig(**TINY)).eval()


@pytest.fixture(scope="module")
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def adapt(base, **config):
    return peft.get_peft_model(copy.deepcopy(base), FairMaskConfig(**config)).eval()


def own(model):
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_a_step(model, images):
    own_parameters = list(own(model).values())
    model(images).logits.square().sum().backward()
    torch.optim.SGD(own_parameters, lr=0.5).step()
    model.zero_grad()


@pytest.fixture(params=CONFIGS)
def trained(request, base, images):
    """A model after one step, and its logits."""
    model = adapt(base, **CONFIGS[request.param])
    train_a_step(model, images)
    return model, model(images).logits.detach()


@pytest.mark.parametrize("name", CONFIGS)
def test_untrained_adapter_is_the_base_model(name, base, images):
    assert torch.equal(adapt(base, **CONFIGS[name])(images).logits, base(images).logits)


def test_only_what_is_trainable_gets_gradients(trained, base, images):
    model, logits = trained
    assert not torch.equal(logits, base(images).logits)
    model(images).logits.sum().backward()
    assert all(
        (p.grad is not None) == p.requires_grad for p in model.parameters() if p.grad is not None
    )
    assert own(model)
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(own(model))


def test_base_weights_stay(trained, base):
    model, _ = trained
    kept = model.unload().state_dict()
    assert list(kept) == list(base.state_dict())
    assert all(torch.equal(kept[name], value) for name, value in base.state_dict().items())


def test_disable(trained, base, images):
    model, logits = trained
    with model.disable_adapter():
        assert torch.equal(model(images).logits, base(images).logits)
        assert not own(model)
    assert torch.equal(model(images).logits, logits)
    assert own(model)


@pytest.mark.filterwarnings("error:Found missing adapter keys")
def test_save_and_load(trained, base, images, tmp_path):
    model, logits = trained
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(loaded(images).logits, logits)
    assert not own(loaded)
    assert loaded.get_nb_trainable_parameters()[1] == model.get_nb_trainable_parameters()[1]
    low = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(low(images).logits, logits)
    assert low.get_nb_trainable_parameters()[1] == model.get_nb_trainable_parameters()[1]
    again = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, is_trainable=True)
    assert set(own(again)) == set(own(model))


def test_transformers_loads_it(trained, base, images, tmp_path):
    model, logits = trained
    base.save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(loaded(images).logits, logits)
    direct = copy.deepcopy(base)
    info = direct.load_adapter(tmp_path / "adapter")
    assert not info.missing_keys
    assert not info.unexpected_keys
    assert torch.equal(direct(images).logits, logits)


def test_file_holds_tuned_parameters_and_head_only(trained, tmp_path):
    model, _ = trained
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(saved) == len(own(model))
    assert sum(v.numel() for v in saved.values()) == sum(p.numel() for p in own(model).values())


def test_merge_unmerge(trained, base, images):
    model, logits = trained
    model.merge_adapter(safe_merge=True)
    assert torch.equal(model(images).logits, logits)
    assert all(
        layer.current_module() is layer.base_layer
        for layer in model.modules()
        if isinstance(layer, FairMaskLayer)
    )
    model.unmerge_adapter()
    assert torch.equal(model(images).logits, logits)
    with model.disable_adapter():
        assert torch.equal(model(images).logits, base(images).logits)


def test_merge_and_unload_gives_the_bare_architecture(trained, base, images):
    model, logits = trained
    bare = model.merge_and_unload(safe_merge=True)
    assert type(bare) is type(base)
    assert list(bare.state_dict()) == list(base.state_dict())
    assert torch.equal(bare(images).logits, logits)


def test_save_while_merged(trained, base, images, tmp_path):
    model, logits = trained
    model.merge_adapter()
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(loaded(images).logits, logits)


def test_adapter_config_is_canonical_and_readable(base, tmp_path):
    adapt(base, mask="011000100").save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["mask"] == {"layernorm": "001", "attention": "100", "mlp": "100"}
    assert saved["layout"] == "block3"
    assert saved["peft_type"] == "FAIRMASK"


def test_keys_name_block_part_and_parameter(base, tmp_path):
    model = adapt(base, mask="100010001", train_also=["cls_token", "final_norm"])
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert sorted(key.removeprefix("base_model.model.") for key in saved) == [
        "blocks.0.norm1.bias",
        "blocks.0.norm1.weight",
        "blocks.0.norm2.bias",
        "blocks.0.norm2.weight",
        *(
            f"blocks.1.attention.{name}.{kind}"
            for name in ("key", "proj", "query", "value")
            for kind in ("bias", "weight")
        ),
        "blocks.2.mlp.fc1.bias",
        "blocks.2.mlp.fc1.weight",
        "blocks.2.mlp.fc2.bias",
        "blocks.2.mlp.fc2.weight",
        "cls_token",
        "final_norm.bias",
        "final_norm.weight",
        "head.bias",
        "head.weight",
    ]


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"mask": "0" * 12}, "expected 3 bits for part 'layernorm' (one per block), got 4"),
        ({"mask": [0] * 10}, "expected 9 bits for layout 'block3' (3 per block, 3 blocks), got 10"),
        ({}, "expected a mask"),
        ({"mask": "none", "modules_to_save": ["classifier"]}, "task_type"),
    ],
)
def test_masks_that_do_not_fit(base, config, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        adapt(base, **config)
