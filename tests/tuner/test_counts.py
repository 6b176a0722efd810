"""Exact numbers of trainable parameters of ViT-B/16, from spec BASELINES (HF and timm, meta device)."""

import peft
import pytest
import timm
import torch
from transformers import ViTConfig, ViTForImageClassification

from fairtune_hf.tuner import FairMaskConfig

METHODS = {
    "linear_readout": 1_538,
    "layernorm_tuning": 39_938,
    "bitfit": 104_450,
    "attention_tuning": 28_501_250,
    "attention": 28_349_954,
    "layernorm": 38_402,
    "full_blocks": 85_056_002,
    "full": 85_800_194,
}


def hf_vit():
    with torch.device("meta"):
        return ViTForImageClassification(ViTConfig(num_labels=2))


def timm_vit():
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=2)


def trainable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("build", [hf_vit, timm_vit])
@pytest.mark.parametrize(("preset", "expected"), METHODS.items())
def test_methods_of_the_literature(build, preset, expected):
    model = peft.get_peft_model(build(), FairMaskConfig(mask=preset))
    assert trainable(model) == expected
    assert model.get_nb_trainable_parameters()[0] == expected


NORM, ATTENTION, MLP, HEAD = 1_536, 2_362_368, 4_722_432, 1_538


@pytest.mark.parametrize("build", [hf_vit, timm_vit])
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"mask": "1" + "0" * 35}, 2 * NORM),
        ({"mask": "01" + "0" * 34}, ATTENTION),
        ({"mask": "0" * 35 + "1"}, MLP),
        ({"mask": "1" + "0" * 47, "layout": "block4"}, NORM),
        ({"mask": "0110" + "0" * 44, "layout": "block4"}, NORM + ATTENTION),
        ({"mask": "1" + "0" * 11, "layout": "block"}, 2 * NORM + ATTENTION + MLP),
        ({"mask": "1" * 12, "layout": "attention"}, 12 * ATTENTION),
        ({"mask": "1" * 12, "layout": "layernorm"}, 24 * NORM),
        ({"mask": "1" * 12, "layout": "mlp"}, 12 * MLP),
        ({"mask": "1" + "0" * 47, "layout": "attention_params"}, 3 * 768 * 768),
        ({"mask": "01" + "0" * 46, "layout": "attention_params"}, 3 * 768),
        ({"mask": "001" + "0" * 45, "layout": "attention_params"}, 768 * 768),
        ({"mask": "0001" + "0" * 44, "layout": "attention_params"}, 768),
        ({"mask": "none", "train_also": "position_embeddings"}, 151_296),
        ({"mask": "none", "train_also": ["cls_token"]}, 768),
        ({"mask": "none", "train_also": ["patch_embeddings"]}, 590_592),
        ({"mask": "none", "train_also": ["final_norm"]}, 1_536),
        ({"mask": "none", "train_also": ["everything_else"]}, 744_192),
        ({"mask": "full_blocks", "train_also": ["biases", "everything_else"]}, 85_798_656),
    ],
)
def test_every_layout_and_part(build, config, expected):
    assert trainable(peft.get_peft_model(build(), FairMaskConfig(**config))) == expected + HEAD
