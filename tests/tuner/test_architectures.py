"""One row per architecture: how many parameters each part has, and that an adapter fits and comes back."""

import copy
import re

import peft
import pytest
import torch
from torch import nn

from fairtune_hf.tuner import (
    ARCHITECTURES,
    FairMaskConfig,
    check_layout_of,
    count_blocks,
    describe,
)

# Width 16 and MLP 32 (timm: 64), three blocks: written out, not asked of the code under test.
LN = 3 * 2 * (16 + 16)
ATTENTION = 3 * (4 * 16 * 16 + 4 * 16)
MLP = 3 * (2 * 16 * 32 + 32 + 16)
WIDE_MLP = 3 * (2 * 16 * 64 + 64 + 16)
HEAD = 16 * 2 + 2
SWIN_LN = 2 * (8 + 8) + 2 * 2 * (16 + 16)
SWIN_ATTENTION = (4 * 8 * 8 + 4 * 8 + 9 * 1) + 2 * (4 * 16 * 16 + 4 * 16 + 9 * 2)
SWIN_MLP = (2 * 8 * 32 + 32 + 8) + 2 * (2 * 16 * 64 + 64 + 16)

# name: (row of the table, layernorm, attention, mlp, head)
PARTS = {
    "vit": ("vit", LN, ATTENTION, MLP, HEAD),
    "deit": ("vit", LN, ATTENTION, MLP, HEAD),
    "deit_distilled": ("vit", LN, ATTENTION, MLP, 2 * HEAD),
    "dinov2": ("dinov2", LN, ATTENTION, MLP, 32 * 2 + 2),  # cls and mean of the patches
    "dinov2_registers": ("dinov2", LN, ATTENTION, MLP, 32 * 2 + 2),
    "beit": ("vit", LN, ATTENTION - 3 * 16, MLP, HEAD),  # keys have no bias
    "beit_relative": ("vit", LN, ATTENTION - 3 * 16 + 3 * 12 * 2, MLP, HEAD),  # a bias table
    "clip_vision": ("clip_vision", LN, ATTENTION, MLP, HEAD),
    "siglip_vision": ("clip_vision", LN, ATTENTION, MLP, HEAD),
    "vit_mae": ("vit", LN, ATTENTION, MLP, 0),
    "swin": ("swin", SWIN_LN, SWIN_ATTENTION, SWIN_MLP, HEAD),
    "timm_vit": ("timm", LN, ATTENTION, WIDE_MLP, HEAD),
    "timm_deit_distilled": ("timm", LN, ATTENTION, WIDE_MLP, 2 * HEAD),
    "timm_deit3": ("timm", LN, ATTENTION, WIDE_MLP, HEAD),
    "timm_eva": ("timm", LN, ATTENTION - 3 * 16, 3 * (16 * 84 + 84 + 42 * 16 + 16), HEAD),
    "timm_wrapper": ("timm", LN, ATTENTION, WIDE_MLP, HEAD),
}
WITHOUT_POSITIONS = {"beit", "beit_relative", "swin"}
BEFORE_5_9 = {"vit_encoder", "swin_before"}


def own(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def adapt(model, **config):
    return peft.get_peft_model(copy.deepcopy(model), FairMaskConfig(**config)).eval()


def test_every_family_of_the_zoo_and_every_row_of_the_table_is_tested(zoo):
    assert set(PARTS) == set(zoo.BUILDERS)
    assert {row[0] for row in PARTS.values()} | BEFORE_5_9 == {spec.name for spec in ARCHITECTURES}


@pytest.mark.parametrize("name", PARTS)
def test_parts_have_the_right_size(name, zoo):
    row, layernorm, attention, mlp, head = PARTS[name]
    base = zoo.build(name)
    assert describe(base).architecture == row
    assert count_blocks(base) == 3
    assert own(adapt(base, mask="layernorm")) == layernorm + head
    assert own(adapt(base, mask="attention")) == attention + head
    assert own(adapt(base, mask="mlp")) == mlp + head
    assert own(adapt(base, mask="full_blocks")) == layernorm + attention + mlp + head
    assert own(adapt(base, mask="full")) == sum(p.numel() for p in base.parameters())
    halves = [own(adapt(base, mask=half * 3, layout="block4")) for half in ("1000", "0010")]
    assert halves == [layernorm // 2 + head] * 2
    if head:
        assert own(adapt(base, mask="none")) == head


@pytest.mark.parametrize("name", PARTS)
def test_every_parameter_has_a_key_of_its_own(name, zoo):
    base = zoo.build(name)
    anatomy = describe(base)
    assert {leaf.name for leaf in anatomy.leaves} == {n for n, _ in base.named_parameters()}
    assert len({leaf.key for leaf in anatomy.leaves}) == len(anatomy.leaves)
    wrapped = peft.get_peft_model(copy.deepcopy(base), FairMaskConfig(mask="full"))
    assert set(describe(wrapped.base_model.model).leaves) == set(anatomy.leaves)


@pytest.mark.parametrize(
    "config",
    [
        {"mask": {"layernorm": "100", "attention": "011", "mlp": "101"}},
        {"mask": "full"},
        {"mask": "bitfit"},
        {"mask": "attention_tuning"},
    ],
    ids=["mixed", "full", "bitfit", "attention_tuning"],
)
@pytest.mark.parametrize("name", PARTS)
def test_an_adapter_fits_and_comes_back(name, config, zoo, perturb, tmp_path):
    if config["mask"] == "attention_tuning" and name in WITHOUT_POSITIONS:
        pytest.skip("has no positions to train")
    base, images = zoo.build(name), zoo.images(name)
    before = zoo.run(base, images)
    model = adapt(base, **config)
    assert torch.equal(zoo.run(model, images), before)
    after = zoo.run(perturb(model), images)
    assert not torch.equal(after, before)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    assert torch.equal(zoo.run(loaded, images), after)
    with model.disable_adapter():
        assert torch.equal(zoo.run(model, images), before)
    model.merge_adapter()
    assert torch.equal(zoo.run(model, images), after)
    model.unmerge_adapter()
    bare = copy.deepcopy(model).unload()
    assert list(bare.state_dict()) == list(base.state_dict())
    assert torch.equal(zoo.run(bare, images), before)
    assert torch.equal(zoo.run(model.merge_and_unload(), images), after)


WHERE = {
    "vit": ["vit.layers.0", "vit.layers.1", "vit.layers.2"],
    "dinov2": [f"dinov2.encoder.layer.{i}" for i in range(3)],
    "clip_vision": [f"vision_model.encoder.layers.{i}" for i in range(3)],
    "swin": [f"swin.encoder.layers.{stage}.blocks.{b}" for stage, b in ((0, 0), (1, 0), (1, 1))],
    "timm_vit": ["blocks.0", "blocks.1", "blocks.2"],
    "timm_wrapper": [f"timm_model.blocks.{i}" for i in range(3)],
}
PART = {"vit": ("layernorm", "attention", "mlp"), "dinov2": ("norm", "attention", "mlp")}
PART |= {"clip_vision": ("layer_norm", "self_attn", "mlp"), "swin": PART["vit"]}
PART |= {"timm_vit": ("norm", "attn", "mlp"), "timm_wrapper": ("norm", "attn", "mlp")}


@pytest.mark.parametrize("name", WHERE)
def test_each_bit_trains_the_module_it_names(name, zoo):
    base = zoo.build(name)
    for bit in range(9):
        model = adapt(base, mask=[int(bit == i) for i in range(9)])
        trained = {
            n.removeprefix("base_model.model.")
            for n, p in model.named_parameters()
            if p.requires_grad
        }
        trained = {n for n in trained if "head." not in n and "classifier." not in n}
        assert trained
        begin = f"{WHERE[name][bit // 3]}.{PART[name][bit % 3]}"
        assert all(n.startswith(begin) for n in trained), (bit, trained)


def test_biases_of_attention_params_in_fused_and_split_form(zoo):
    for name in ("vit", "timm_vit"):
        base = zoo.build(name)
        head = PARTS[name][4]
        counts = [
            own(adapt(base, mask=bits * 3, layout="attention_params")) - head
            for bits in ("1000", "0100", "0010", "0001")
        ]
        assert counts == [3 * 3 * 256, 3 * 3 * 16, 3 * 256, 3 * 16]


def test_depth_is_free(zoo):
    deep = zoo._timm("vit_tiny_patch16_224", depth=5)
    assert count_blocks(deep) == 5
    assert own(adapt(deep, mask="11111", layout="attention")) == ATTENTION // 3 * 5 + HEAD


def test_a_model_inside_a_users_own_module(zoo):
    class Study(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = zoo.build("vit")

        def forward(self, images):
            return self.net(images).logits

    assert own(adapt(Study(), mask="attention")) == ATTENTION + HEAD


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_a = nn.LayerNorm(8)
        self.self_attention = nn.Linear(8, 8)
        self.ln_b = nn.LayerNorm(8)
        self.ffn = nn.Linear(8, 8)

    def forward(self, x):
        return self.ffn(self.ln_b(self.self_attention(self.ln_a(x))))


class Stranger(nn.Module):
    """A transformer that no row of the table fits."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.ModuleDict({"cells": nn.ModuleList([Cell() for _ in range(2)])})
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        for cell in self.trunk["cells"]:
            x = cell(x)
        return self.out(x)


BY_HAND = {
    "block": "trunk.cells.*",
    "norm1": "ln_a",
    "norm2": ["ln_b"],
    "attention": "self_attention",
    "mlp": "ffn",
    "head": "out",
}


def test_unknown_architecture_says_what_was_found_and_what_to_do():
    with pytest.raises(ValueError, match="got Stranger") as caught:
        adapt(Stranger(), mask="attention")
    text = str(caught.value)
    assert "trunk.cells.*" in text
    assert "ln_a (layernorm), self_attention (linear)" in text
    assert "block_pattern={'block': 'trunk.cells.*'" in text
    assert "target_modules" in text


def test_blocks_named_by_hand(tmp_path, perturb):
    base = Stranger().eval()
    assert count_blocks(base, BY_HAND) == 2
    model = adapt(base, mask="100011", block_pattern=BY_HAND)
    assert own(model) == 2 * 16 + 2 * 72 + 18
    x = torch.randn(3, 8)
    said = perturb(model)(x)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert torch.equal(loaded(x), said)


def test_a_glob_is_enough_if_the_children_tell_what_they_are():
    model = adapt(Stranger(), mask="010001", block_pattern="trunk.cells.*")
    assert own(model) == 2 * 72


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("trunk.blocks.*", "matches no module. Numbered modules of this model: trunk.cells.*"),
        ({**BY_HAND, "mlp": "mlp"}, "trunk.cells.0 has the children ln_a (layernorm)"),
        ({"norm1": "ln_a"}, "expected a `block` glob among its keys, got ['norm1']"),
    ],
)
def test_wrong_block_patterns(pattern, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        adapt(Stranger(), mask="none", block_pattern=pattern)


def test_nothing_to_train_is_an_error(zoo):
    with pytest.raises(ValueError, match="all zeros and ViTMAEForPreTraining has no"):
        adapt(zoo.build("vit_mae"), mask="none")


@pytest.mark.parametrize("name", sorted(WITHOUT_POSITIONS))
@pytest.mark.parametrize(
    "config",
    [{"mask": "attention_tuning"}, {"mask": "none", "train_also": "position_embeddings"}],
    ids=["preset", "train_also"],
)
def test_a_part_that_the_model_has_not_is_an_error(name, config, zoo):
    with pytest.raises(ValueError, match="has no position_embeddings"):
        adapt(zoo.build(name), **config)


def test_a_last_norm_and_biases_that_are_not_there_are_an_error():
    plain = {"block_pattern": BY_HAND}
    with pytest.raises(ValueError, match=r"no final_norm.*layernorm_tuning"):
        adapt(Stranger(), mask="layernorm_tuning", **plain)
    bare = Stranger()
    for module in bare.trunk.modules():
        if getattr(module, "bias", None) is not None:
            module.bias = None
    with pytest.raises(ValueError, match=r"no biases.*bitfit"):
        adapt(bare, mask="bitfit", **plain)
    assert own(adapt(bare, mask="full", **plain)) == sum(p.numel() for p in bare.parameters())


class FusedCell(nn.Module):
    """Attention and MLP side by side, fed by one projection of both."""

    def __init__(self):
        super().__init__()
        self.in_norm = nn.LayerNorm(8)
        self.in_proj = nn.Linear(8, 24)
        self.q_norm = nn.Identity()
        self.attn_out_proj = nn.Linear(8, 8)
        self.mlp_out_proj = nn.Linear(8, 8)

    def forward(self, x):
        a, b, c = self.in_proj(self.in_norm(x)).chunk(3, -1)
        return x + self.attn_out_proj(a * b) + self.mlp_out_proj(c)


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList([FusedCell() for _ in range(2)])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        for cell in self.cells:
            x = cell(x)
        return self.head(x)


def test_a_glob_does_not_guess_where_a_fused_projection_belongs():
    with pytest.raises(ValueError, match="in_proj could belong to any"):
        adapt(Fused(), mask="attention", block_pattern="cells.*")
    named = {
        "block": "cells.*", "norm1": "in_norm", "attention": ["in_proj", "attn_out_proj"],
        "mlp": "mlp_out_proj",
    }  # fmt: skip
    model = adapt(Fused(), mask="attention", block_pattern=named)
    assert own(model) == 2 * (8 * 24 + 24 + 8 * 8 + 8) + HEAD_OF_8


HEAD_OF_8 = 8 * 2 + 2


def test_the_error_of_an_unknown_architecture_names_the_level_of_the_blocks():
    stages = nn.ModuleDict({"stages": nn.ModuleList([nn.ModuleDict({"layers": Stranger().trunk["cells"]})])})  # fmt: skip
    with pytest.raises(ValueError, match=re.escape("block_pattern={'block': 'stages.*.layers.*'")):
        adapt(stages, mask="attention")


def test_a_model_may_carry_where_its_blocks_are(tmp_path, perturb):
    base = Stranger().eval()
    base.fairmask_block_pattern = BY_HAND
    model = perturb(adapt(base, mask="100011"))
    assert own(model) == 2 * 16 + 2 * 72 + 18
    model.save_pretrained(tmp_path)
    x = torch.randn(3, 8)
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(base).eval(), tmp_path)
    assert loaded.peft_config["default"].block_pattern == BY_HAND
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    "config",
    [{"mask": "layernorm_tuning"}, {"mask": "none", "train_also": "final_norm"}],
    ids=["preset", "train_also"],
)
def test_a_norm_that_the_model_leaves_out_of_its_forward_is_an_error(config, zoo):
    """CLIP's classifier takes the mean of the patches before the last norm; SigLIP's after it."""
    images = torch.randn(2, 3, 16, 16)
    for name, trained in (("clip_vision", False), ("siglip_vision", True)):
        model = zoo.build(name)
        norm = model.vision_model.post_layernorm.weight
        model(pixel_values=images).logits.sum().backward()
        assert (norm.grad is not None) is trained
        if trained:
            adapt(zoo.build(name), **config)
            continue
        with pytest.raises(
            ValueError, match="CLIPForImageClassification leaves its final_norm out"
        ):
            adapt(zoo.build(name), **config)


def without_biases(model):
    for name, module in model.named_modules():
        if re.search(r"\.attn\.(?:qkv|proj)$", name):
            module.bias = None
    return model


def test_bits_that_select_no_parameter_are_an_error(zoo):
    config = {"mask": "0100" + "1000" * 2, "layout": "attention_params"}
    adapt(zoo.build("timm_vit"), **config)
    bare = without_biases(zoo.build("timm_vit"))
    with pytest.raises(ValueError, match=r"no parameter for blocks\.0\.attention\.qkv\.bias\. Set"):
        adapt(bare, **config)
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.qkv\.bias, .* and 2 more"):
        check_layout_of(bare, "attention_params")
    check_layout_of(bare, "block3")
    # A preset, also written in bits, is all there is of what it names.
    found = [
        own(adapt(without_biases(zoo.build("timm_vit")), mask=mask, layout="attention_params"))
        for mask in ("attention", "1" * 12)
    ]
    assert found == [3 * 4 * 16 * 16 + HEAD] * 2
