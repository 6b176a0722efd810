"""What belongs to a model lies beside its weights, and whoever loads it finds it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import AutoPeftModel, PeftModel
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

import fairtune_hf  # noqa: F401  registers the adapter
from fairtune_hf import load_predictor
from fairtune_hf.version import __version__

WORDS = {0: "well", 1: "ill"}


def read(run: Path, name: str) -> dict:
    return json.loads((run / "adapter" / name).read_text())


def test_the_folder_says_labels_input_operating_point_and_groups(run: Path) -> None:
    told = read(run, "fairtune.json")
    assert told["fairtune_hf"] == __version__
    assert told["id2label"] == {"0": "well", "1": "ill"}
    assert told["label2id"] == {"well": 0, "ill": 1}
    assert told["input"]["stored_sides"] == [32]
    assert told["seed"] == 0
    record = json.loads((run / "run.json").read_text())
    point = told["operating_point"]
    assert (point["threshold"], point["rule"]) == (record["test"]["threshold"], "fixed")
    frame = pd.read_parquet(run / "predictions.parquet")
    own = frame[(frame["split"] == "test") & (frame["seed"] == 0)]
    for name, group in told["groups"].items():
        rows = own[own["sex"] == name]
        assert group["auc"] == record["test"]["groups"][name]["auc"]
        assert group["n"] == len(rows) == 10
        hit = rows.loc[rows["label"] == 1, "score"] >= point["threshold"]
        assert group["sensitivity"] == pytest.approx(hit.mean())
    pictures = told["pictures"]
    assert pictures["short_side"] == [96, 480]
    assert pictures["aspect"] == [1, 3.333]
    assert 0 < pictures["grey_share"] < 1


def test_no_page_of_blanks_and_no_patient_lies_beside_the_weights(run: Path, mixed: Path) -> None:
    card = (run / "adapter" / "README.md").read_text()
    assert "More Information Needed" not in card
    assert str(mixed) not in card
    assert "`well` (0) or `ill` (1)" in card
    names = {file.stem for file in mixed.iterdir()}
    for file in (run / "adapter").glob("*.json"):
        assert not {name for name in names if name in file.read_text()}, file.name


def test_peft_and_transformers_find_the_labels(run: Path, tiny_vit: Path) -> None:
    new_head = {"num_labels": 2, "ignore_mismatched_sizes": True}
    base = AutoModelForImageClassification.from_pretrained(tiny_vit, **new_head)
    loaded = PeftModel.from_pretrained(base, run / "adapter")
    assert loaded.get_base_model().config.id2label == WORDS
    auto = AutoPeftModel.from_pretrained(run / "adapter", **new_head)
    assert auto.get_base_model().config.id2label == WORDS
    plain = AutoModelForImageClassification.from_pretrained(run / "adapter", **new_head)
    assert plain.config.id2label == WORDS
    assert plain.config.label2id == {"well": 0, "ill": 1}
    assert loaded.unload().config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert auto.merge_and_unload().config.id2label == WORDS


def test_the_processor_comes_near_and_does_not_stretch(run: Path, mixed: Path) -> None:
    processor = AutoImageProcessor.from_pretrained(run / "adapter")
    predictor = load_predictor(run, device="cpu")
    for name in ("p00.png", "p01.jpg", "p02.jpg", "p03.png"):
        with Image.open(mixed / name) as image:
            found = processor(image, return_tensors="pt")["pixel_values"][0]
        right = predictor.prepare(mixed / name)
        assert found.shape == right.shape
        assert float((found - right).abs().mean()) < 0.05, name
    # A picture whose ends differ from its middle tells a centre cut from a stretch.
    ends = np.zeros((100, 300, 3), dtype=np.uint8)
    ends[:, 105:195] = 200
    found = processor(Image.fromarray(ends), return_tensors="pt")["pixel_values"][0]
    assert torch.allclose(
        found[:, :, 4:-4], torch.full_like(found[:, :, 4:-4], 200 / 127.5 - 1), atol=0.02
    )
