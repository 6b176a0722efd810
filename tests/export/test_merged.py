"""Whatever a mask trains, in the blocks and outside of them, is in the weights that are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import get_peft_model

from fairtune_hf import FairMaskConfig
from fairtune_hf.export.readers import open_program, open_transformers
from fairtune_hf.export.request import Request
from fairtune_hf.export.run import _write
from fairtune_hf.inference import Predictor
from fairtune_hf.model_description import InputRecord, ModelDescription
from fairtune_hf.training import load_backbone

ALSO = ["position_embeddings", "cls_token", "patch_embeddings", "final_norm"]
LAYOUTS = {
    "block3": "011010",
    "block4": "01101001",
    "block": "01",
    "attention": "10",
    "layernorm": "11",
    "mlp": "01",
}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


CASES = [
    *((layout, []) for layout in LAYOUTS),
    *(("block3", [part]) for part in ALSO),
    ("block3", ALSO),
]


@pytest.mark.parametrize(("layout", "also"), CASES, ids=str)
def test_every_layout_and_what_is_trained_beside_it(
    layout: str, also: list[str], tiny_vit: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    told = InputRecord(image_size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3, stored_sides=[32])
    described = ModelDescription(id2label={"0": "well", "1": "ill"}, input=told)
    backbone = load_backbone(tiny_vit)
    config = FairMaskConfig(
        mask=LAYOUTS[layout],
        layout=layout,
        train_also=also,
    )
    model = get_peft_model(backbone.copy_with_new_head(), config)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value))
    own = Predictor(model, described, device=torch.device("cpu"))
    before = own.score_pixels(pixels)[0]
    score, _ = _write(own, tmp_path, Request())
    values = own.normalise(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(score(values), before, rtol=0, atol=1e-6)
    np.testing.assert_allclose(open_transformers(tmp_path)(values), before, rtol=0, atol=1e-6)
    untouched = Predictor(
        get_peft_model(backbone.copy_with_new_head(), config), described, device=own.device
    )
    assert np.abs(untouched.score_pixels(pixels)[0] - before).max() > 1e-3


@pytest.mark.slow
def test_a_traced_program_takes_any_batch(
    tiny_vit: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    told = InputRecord(image_size=32, image_mean=[0.5] * 3, image_std=[0.5] * 3, stored_sides=[32])
    described = ModelDescription(id2label={"0": "well", "1": "ill"}, input=told)
    base = load_backbone(tiny_vit).copy_with_new_head()
    own = Predictor(
        get_peft_model(base, FairMaskConfig(mask="attention")),
        described,
        device=torch.device("cpu"),
    )
    _write(own, tmp_path, Request(format="torch"))
    assert torch.export.load(tmp_path / "model.pt2").example_inputs is None
    score = open_program(tmp_path)
    values = own.normalise(torch.from_numpy(pixels)).numpy()
    for n in (1, 2, 5):
        np.testing.assert_allclose(
            score(values[:n]), own.score_pixels(pixels[:n])[0], rtol=0, atol=1e-6
        )
