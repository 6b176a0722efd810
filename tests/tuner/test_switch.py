"""One model under any mask: the same numbers as a model that carries that mask alone, and nothing else moves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

from fairtune_hf.mask import LAYOUTS
from fairtune_hf.tuner import FairMaskConfig
from fairtune_hf.tuner.switch import MaskSwitch

FAMILIES = ["vit", "dinov2", "swin", "clip_vision", "timm_vit", "timm_wrapper"]


def all_bits(zoo, name, layout):
    base = zoo.build(name)
    for blocks in range(1, 13):
        ones = "1" * (len(LAYOUTS[layout]) * blocks)
        try:
            return base, get_peft_model(
                copy.deepcopy(base), FairMaskConfig(mask=ones, layout=layout)
            )
        except ValueError:
            continue
    raise AssertionError(name)


def with_the_mask_alone(base, model, mask, layout):
    """A model of its own under the mask, given the values that the other one has for it."""
    text = "".join(map(str, mask))
    alone = get_peft_model(copy.deepcopy(base), FairMaskConfig(mask=text, layout=layout))
    wanted = get_peft_model_state_dict(alone)
    values = {k: v for k, v in get_peft_model_state_dict(model).items() if k in wanted}
    assert values.keys() == wanted.keys()
    set_peft_model_state_dict(alone, values)
    return alone.eval()


@pytest.mark.parametrize("layout", ["block3", "block4", "attention", "layernorm"])
@pytest.mark.parametrize("name", FAMILIES)
def test_gives_what_the_mask_alone_gives(name, layout, zoo, perturb):
    base, model = all_bits(zoo, name, layout)
    perturb(model).eval()
    switch, images = MaskSwitch(model, layout), zoo.images(name)
    rng = np.random.default_rng(0)
    whole = zoo.run(model, images)
    masks = [np.zeros(switch.n_bits, int), *rng.integers(0, 2, (3, switch.n_bits))]
    for mask in masks:
        with switch.under(mask.tolist()):
            found = zoo.run(model, images)
        expected = zoo.run(with_the_mask_alone(base, model, mask, layout), images)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(zoo.run(model, images), whole)


def test_what_is_left_out_gets_neither_gradient_nor_decay_nor_moment(zoo, perturb):
    base, model = all_bits(zoo, "vit", "block3")
    perturb(model).train()
    switch = MaskSwitch(model)
    mask = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    trained = {
        name
        for name, _ in with_the_mask_alone(base, model, mask, "block3").named_parameters()
        if "fairmask" in name
    }
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with switch.under(mask):
        model(pixel_values=zoo.images("vit")).logits.square().sum().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert {n for n, p in model.named_parameters() if p in optimizer.state} == moved
    assert {n for n in moved if "fairmask" in n} <= trained | {
        n for n in moved if "classifier" in n
    }
    left = {n for n in before if ".layers.0.mlp" in n or ".layers.1.layernorm" in n}
    assert left
    assert not left & moved


def test_counts_what_a_mask_trains(zoo):
    base, model = all_bits(zoo, "vit", "block3")
    mask = [1, 0, 1, 0, 1, 0, 0, 0, 0]
    alone = with_the_mask_alone(base, model, mask, "block3")
    trained = sum(p.numel() for p in alone.parameters() if p.requires_grad)
    head = sum(p.numel() for p in base.classifier.parameters())
    assert MaskSwitch(model).count(mask) == trained - head


def test_refuses_a_mask_of_another_length_and_a_model_that_trains_less(zoo):
    base, model = all_bits(zoo, "vit", "block3")
    with pytest.raises(ValueError, match="expected 9 bits"), MaskSwitch(model).under([1, 0]):
        pass
    less = get_peft_model(copy.deepcopy(base), FairMaskConfig(mask="attention"))
    with pytest.raises(ValueError, match="trains every bit"):
        MaskSwitch(less)
