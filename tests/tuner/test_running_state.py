"""What a model changes beside parameters, and parameters that are read past a module's forward."""

from __future__ import annotations

import copy

import peft
import pytest
import timm
import torch
from torch import nn

from fairtune_hf.tuner import FairMaskConfig

SHAPE = {"num_classes": 2, "embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32}


@pytest.fixture
def xcit():
    """Batch norms in the patch embedding and beside attention and MLP."""
    torch.manual_seed(0)
    return timm.create_model("xcit_nano_12_p8_224", **SHAPE).eval()


def train(model, steps=4):
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    for _ in range(steps):
        model(torch.randn(6, 3, 32, 32, generator=generator) * 3 + 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def statistics(model):
    return {
        name.replace(".base_layer", ""): value.clone()
        for name, value in model.state_dict().items()
        if ("running_" in name or "num_batches" in name) and "fairmask_copies" not in name
    }


@pytest.mark.parametrize("mask", ["attention", "full_blocks", "bitfit", "full"])
def test_a_trained_adapter_comes_back_with_its_statistics(xcit, mask, tmp_path):
    pictures = torch.randn(3, 3, 32, 32)
    before = xcit(pictures)
    model = train(peft.get_peft_model(copy.deepcopy(xcit), FairMaskConfig(mask=mask)))
    after = model(pictures)
    assert not torch.equal(after, before)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(xcit), tmp_path).eval()
    torch.testing.assert_close(loaded(pictures), after)
    with model.disable_adapter():
        torch.testing.assert_close(model(pictures), before)
    model.merge_adapter()
    torch.testing.assert_close(model(pictures), after)
    model.unmerge_adapter()
    torch.testing.assert_close(copy.deepcopy(model).unload()(pictures), before)
    torch.testing.assert_close(model.merge_and_unload()(pictures), after)


def test_statistics_of_frozen_parts_stay_those_of_the_base(xcit):
    base = {f"base_model.model.{name}": value for name, value in statistics(xcit).items()}
    assert len(base) > 6
    model = train(peft.get_peft_model(xcit, FairMaskConfig(mask="attention")))
    found = statistics(model)
    assert found.keys() == base.keys()
    assert all(torch.equal(found[name], value) for name, value in base.items())


def test_without_adapters_statistics_move_again(xcit):
    model = peft.get_peft_model(xcit, FairMaskConfig(mask="attention")).unload()
    before = statistics(model)
    model.train()(torch.randn(6, 3, 32, 32))
    assert any(not torch.equal(before[name], value) for name, value in statistics(model).items())


def test_statistics_that_were_trained_and_frozen_differ_in_the_file(xcit, tmp_path):
    from safetensors.torch import load_file

    kept = {}
    for mask in ("attention", "full"):
        model = train(peft.get_peft_model(copy.deepcopy(xcit), FairMaskConfig(mask=mask)))
        model.save_pretrained(tmp_path / mask)
        file = load_file(tmp_path / mask / "adapter_model.safetensors")
        kept[mask] = [key for key in file if "running_mean" in key]
    total = sum(isinstance(module, nn.BatchNorm2d) for module in xcit.modules())
    assert (len(kept["attention"]), len(kept["full"])) == (0, total)


def test_rotary_frequencies_that_are_read_by_a_method_train():
    torch.manual_seed(0)
    shape = {**SHAPE, "embed_dim": 32, "img_size": 64}
    base = timm.create_model("vit_small_patch16_rope_mixed_224", **shape)
    model = peft.get_peft_model(base, FairMaskConfig(mask="full"))
    train_steps = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in train_steps.items() if "rope" in name}
    model.train()(torch.randn(2, 3, 64, 64)).square().sum().backward()
    reached = {name: p.grad is not None for name, p in train_steps.items() if name in before}
    assert {name for name, there in reached.items() if there} == {
        name for name in before if "fairmask_copies" in name
    }
    assert any(reached.values())


def test_what_a_layer_is_asked_is_answered_by_what_runs():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def twice(self):
            return 2 * self.weight

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate = Gate()

        def forward(self, x):
            return x * self.gate.twice()

    model = peft.get_peft_model(Net(), FairMaskConfig(target_modules=["gate"]))
    layer = model.base_model.model.gate
    with torch.no_grad():
        layer.fairmask_copies["default"].weight.fill_(5.0)
    assert model(torch.ones(3)).tolist() == [10.0] * 3
    with model.disable_adapter():
        assert model(torch.ones(3)).tolist() == [2.0] * 3
    model.merge_adapter()
    assert model(torch.ones(3)).tolist() == [10.0] * 3
