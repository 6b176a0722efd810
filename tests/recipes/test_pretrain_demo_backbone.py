"""The script that made the embedded backbone: what it draws, how it grows a model, what it writes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file
from transformers import ViTForImageClassification, ViTImageProcessor

from fairtune_hf.training import load_backbone

SCRIPT = Path(__file__).parents[2] / "recipes" / "pretrain_demo_backbone.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_demo_backbone", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_pictures_and_targets_follow_from_the_seed_and_keep_to_their_ranges(
    script: ModuleType,
) -> None:
    one, again, other = (
        script.draw_batch(64, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    pictures, targets, dense = one
    assert torch.equal(pictures, again[0])
    assert not torch.equal(pictures, other[0])
    assert pictures.shape == (64, 3, script.IMAGE_SIZE, script.IMAGE_SIZE)
    assert pictures.min() >= -1
    assert pictures.max() <= 1
    assert pictures.std(dim=(1, 2, 3)).min() > 0.01  # nothing blank
    assert set(targets) == set(script.ATTRIBUTES)
    for name, classes in script.ATTRIBUTES.items():
        seen = targets[name][targets[name] != script.IGNORED]
        assert 0 <= seen.min() <= seen.max() < classes, name
        assert seen.unique().numel() > 1, name
    assert dense.shape == (64, 4, 16, 16)
    assert 0 <= dense.min() <= dense.max() <= 1


def test_a_grown_model_is_the_same_function_until_it_is_trained(script: ModuleType) -> None:
    torch.manual_seed(0)
    small = script.Pretrainer(script.build_model(24, 3, 4)).eval()
    grown = script.grow(small, 12).eval()
    assert grown.model.config.num_hidden_layers == 12
    pictures = script.draw_batch(4, torch.Generator().manual_seed(0))[0]
    with torch.no_grad():
        for before, after in zip(small(pictures), grown(pictures), strict=True):
            torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    loss, _ = script.compute_loss(
        grown(pictures), *script.draw_batch(4, torch.Generator().manual_seed(0))[1:]
    )
    loss.backward()
    weights = [p for p in grown.model.parameters() if p.ndim == 2 and not p.any()]
    assert len(weights) == 2 * 8  # the output projections of the new blocks
    assert all(p.grad.any() for p in weights)  # and they learn


@pytest.mark.slow
def test_what_it_writes_loads_as_a_backbone_and_follows_from_the_seed(tmp_path: Path) -> None:
    tiny = ["--shallow-steps=2", "--steps=2", "--hidden=24", "--heads=3", "--batch-size=4"]
    for name in ("one", "two"):
        words = [sys.executable, str(SCRIPT), *tiny, f"--out={tmp_path / name}", "--device=cpu"]
        ended = subprocess.run(words, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr[-2000:]
    record = json.loads(ended.stdout.splitlines()[-1])
    assert (record["shallow_steps_done"], record["steps_done"]) == (2, 2)
    assert 0.5 < record["losses"]["attributes"] < 2  # next to nothing learnt yet: about chance
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert {value.dtype for value in one.values()} == {torch.float16}
    model = ViTForImageClassification.from_pretrained(tmp_path / "one")
    assert model.dtype == torch.float32
    assert ViTImageProcessor.from_pretrained(tmp_path / "one").size == {"height": 64, "width": 64}
    backbone = load_backbone(tmp_path / "one")
    assert backbone.blocks == 12
