"""Names and order, what each method trains, how rows are drawn, and combination with a mask."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare
from torch.utils.data import WeightedRandomSampler
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.baselines import (
    METHODS,
    GroupDRO,
    Hyperparameter,
    LoRA,
    Method,
    Resampling,
    Scratch,
    method_spec,
)
from fairtune_hf.baselines.method import row_losses, trainable_parameters
from fairtune_hf.tuner import FairMaskConfig

NAMES = (  # noqa: SIM905
    "scratch full linear_readout attention_tuning layernorm_tuning bitfit lora random_mask fairprune fscl "
    "fscl_plus resampling groupdro fairtune fairtune_overall fairtune_attention fairtune_layernorm"
).split()
HEAD = 1_538
COUNTS = {  # ViT-B/16 at 224 px with two classes
    "scratch": 85_800_194,
    "full": 85_800_194,
    "linear_readout": HEAD,
    "attention_tuning": 28_501_250,
    "layernorm_tuning": 39_938,
    "bitfit": 104_450,
    "lora": 294_912 + HEAD,
    "fairprune": 85_800_194,
    "resampling": 85_800_194,
    "groupdro": 85_800_194,
}


@pytest.fixture(scope="module")
def base_vit():
    with torch.device("meta"):
        return lambda: ViTForImageClassification(ViTConfig(num_labels=2))


def test_names_and_order():
    assert list(METHODS) == NAMES


@pytest.mark.parametrize(("name", "expected"), COUNTS.items())
def test_trainable_parameters(base_vit, name, expected):
    spec = METHODS[name]
    with torch.device("meta"):
        model = spec.method().prepare_model(base_vit(), FairMaskConfig(mask=spec.mask))
    assert trainable_parameters(model) == expected


@pytest.mark.parametrize(("layout", "expected"), [("attention", 28_349_954), ("layernorm", 38_402)])
def test_the_two_small_spaces_all_ones(base_vit, layout, expected):
    with torch.device("meta"):
        config = FairMaskConfig(mask="1" * 12, layout=layout)
        assert trainable_parameters(Method().prepare_model(base_vit(), config)) == expected
    assert METHODS[f"fairtune_{layout}"].layout == layout


def test_lora_adapts_query_and_value_and_trains_the_head(vit):
    model = LoRA().prepare_model(vit, FairMaskConfig(mask="full"))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert all("lora_" in n or "classifier" in n for n in trained)
    assert {n.split(".")[-4] for n in trained if "lora_" in n} == {"q_proj", "v_proj"}
    assert any("classifier" in n for n in trained)
    adapted = [m for m in model.modules() if hasattr(m, "lora_A")]
    assert len(adapted) == 4
    assert {m.scaling["default"] for m in adapted} == {1.0}


def test_lora_goes_where_the_mask_selects_attention(vit):
    model = LoRA().prepare_model(vit, FairMaskConfig(mask={"attention": "01"}))
    blocks = {n.split("layers.")[1][0] for n, _ in model.named_parameters() if "lora_" in n}
    assert blocks == {"1"}
    with pytest.raises(ValueError, match="attention bits"):
        LoRA().prepare_model(vit, FairMaskConfig(mask="layernorm"))


def fc1_weight(model):
    return model.get_base_model().vit.layers[0].mlp.current_module().fc1.weight


def test_scratch_forgets_the_weights_and_keeps_the_architecture(vit):
    torch.manual_seed(5)
    model = Scratch().prepare_model(vit, FairMaskConfig(mask="full"))
    weight = fc1_weight(model)
    assert weight.shape == vit.vit.layers[0].mlp.fc1.weight.shape
    assert not torch.equal(weight, vit.vit.layers[0].mlp.fc1.weight)
    torch.manual_seed(5)
    again = Scratch().prepare_model(vit, FairMaskConfig(mask="full"))
    assert torch.equal(fc1_weight(again), weight)


@pytest.mark.parametrize("by", ["balanced", "group", "class"])
def test_draws_match_the_cell_weights(by):
    labels = torch.tensor([0] * 70 + [1] * 30 + [0] * 8 + [1] * 2)
    group = torch.tensor([0] * 100 + [1] * 10)
    weights = Resampling(by=by).row_weights(labels, group)
    torch.manual_seed(0)
    drawn = torch.tensor(list(WeightedRandomSampler(weights, 20_000)))
    cells = {"balanced": 2 * group + labels, "group": group, "class": labels}[by]
    seen = torch.bincount(cells[drawn])
    assert chisquare(seen).pvalue > 0.01  # every cell equally often
    within = torch.bincount(drawn[cells[drawn] == 0])
    assert chisquare(within[within > 0]).pvalue > 0.01  # rows of a cell too
    plain = torch.bincount(cells[torch.randint(0, 110, (20_000,))])
    assert chisquare(plain).pvalue < 1e-6  # the test can fail


def test_plain_fine_tuning_draws_each_row_once():
    assert Method().row_weights(torch.zeros(3), torch.zeros(3)) is None


def test_class_weights_multiply_and_are_not_normalised():
    logits, labels = torch.zeros(2, 2), torch.tensor([0, 1])
    found = row_losses(logits, labels, torch.tensor([1.0, 3.0]))
    assert found.tolist() == pytest.approx([0.6931472, 3 * 0.6931472])


def test_a_method_on_another_one_s_mask():
    spec = method_spec("groupdro+fairtune_attention")
    assert (spec.method, spec.mask, spec.layout) == (GroupDRO, "free", "attention")
    assert spec.name == "groupdro+fairtune_attention"


@pytest.mark.parametrize("name", ["groupdr", "groupdro+fairtun"])
def test_unknown_names_offer_the_closest(name):
    with pytest.raises(ValueError, match=r"Did you mean (groupdro|fairtune)"):
        method_spec(name)


def test_groupdro_trains_what_a_mask_selects(vit, vit_rows):
    method = GroupDRO()
    model = method.prepare_model(vit, FairMaskConfig(mask={"attention": "01"}))
    method.start_training(vit_rows)
    loss, _ = method.compute_loss(model.train(), vit_rows.__getitems__(range(12)))
    loss.backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None}
    assert moved
    assert all("layers.1.attention" in n or "classifier" in n for n in moved)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "expected low and high, or choices"),
        ({"low": 0.1, "high": 1.0, "choices": (1,)}, "not both"),
        ({"low": 2.0, "high": 1.0}, "low < high"),
        ({"low": 0.0, "high": 1.0, "log": True}, "above 0"),
    ],
)
def test_a_hyperparameter_is_a_range_or_choices(settings, words):
    with pytest.raises(ValueError, match=words):
        Hyperparameter(name="x", **settings)


def test_declared_hyperparameters_are_arguments_of_the_constructor():
    for spec in METHODS.values():
        low = {
            h.name: h.low if h.choices == () else h.choices[0] for h in spec.method.hyperparameters
        }
        assert isinstance(spec.method.from_values(low), spec.method)
