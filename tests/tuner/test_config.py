"""The configuration: fields, canonical form, what it refuses, and how it is saved."""

import dataclasses
import doctest
import json
import re

import numpy as np
import peft
import pytest

from fairtune_hf.tuner import FairMaskConfig, Mask, config, loose


@pytest.mark.parametrize("module", [config, loose])
def test_doctests(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_every_field_has_its_help_in_one_place():
    inherited = {f.name for f in dataclasses.fields(peft.PeftConfig)}
    for field in dataclasses.fields(FairMaskConfig):
        if field.name not in inherited:
            assert len(field.metadata["help"]) > 20, field.name


@pytest.mark.parametrize(
    "mask",
    [
        "010 010",
        [0, 1, 0, 0, 1, 0],
        np.array([0, 1, 0, 0, 1, 0], dtype=np.int8),
        {"attention": "11"},
        {"attention": [True, True], "mlp": False},
        Mask.parse("attention", blocks=2),
    ],
)
def test_masks_are_kept_in_canonical_form(mask):
    config = FairMaskConfig(mask=mask)
    assert config.mask == {"layernorm": "00", "attention": "11", "mlp": "00"}
    json.dumps(config.to_dict())


def test_a_mask_brings_its_layout():
    config = FairMaskConfig(mask=Mask.parse("11", "block", 2))
    assert (config.layout, config.mask) == ("block", {"block": "11"})


def test_presets_wait_for_the_model_and_methods_bring_what_lies_outside_the_blocks():
    config = FairMaskConfig(mask="attention_tuning", train_also=["cls_token"])
    assert config.mask == "attention_tuning"
    assert config.train_also == ["position_embeddings", "cls_token"]
    assert config.resolve_mask(2) == Mask.parse("attention", blocks=2)
    assert config.mask == {"layernorm": "00", "attention": "11", "mlp": "00"}


def test_saved_and_read_back(tmp_path):
    config = FairMaskConfig(mask="0110" * 2, layout="block4", train_also="final_norm")
    config.save_pretrained(tmp_path)
    assert peft.PeftConfig.from_pretrained(tmp_path) == config
    assert isinstance(peft.PeftConfig.from_pretrained(tmp_path), FairMaskConfig)


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"mask": "atention"}, "mask='atention' is not a preset"),
        ({"mask": "none", "layout": "blok"}, "layout='blok' is not a mask layout"),
        ({"mask": "none", "train_also": ["cls"]}, "train_also: 'cls' is not a part of the model"),
        ({"mask": "none", "train_also": ["final_nrm"]}, "Did you mean 'final_norm'?"),
        ({"mask": "none", "target_modules": ["fc"]}, "expected either mask or target_modules"),
        ({"mask": "mlp", "layout": "attention"}, "Use layout='block3'"),
        ({"mask": {"mlp": "01", "attention": "011"}}, "expected 3 bits for part 'mlp'"),
    ],
)
def test_refused_at_once(kwargs, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        FairMaskConfig(**kwargs)
