"""A run's own test pictures get the run's own scores, whatever their size and kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fairtune_hf import load_predictor
from fairtune_hf.inference import Predictor
from fairtune_hf.run_folder import RunFolder
from tests.inference.mixed import draw_mixed, score_of, train_by_hand


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_mixed(tmp_path_factory.mktemp("mixed") / "set")


@pytest.fixture(scope="module")
def run(mixed: Path, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_by_hand(mixed, tiny_vit, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return load_predictor(run, device="cpu", batch_size=7)


def own_scores(run: Path, root: Path) -> tuple[list[Path], np.ndarray]:
    """The test pictures of a run, and what its training wrote of them."""
    predictions = RunFolder(run).read_predictions()
    assert predictions is not None
    names = predictions.loc[predictions["split"] == "test", "row_id"]
    told = score_of(predictions)
    return [root / name for name in names], np.array([told(name) for name in names])


def test_the_runs_own_test_pictures_get_the_runs_own_scores(
    predictor: Predictor, run: Path, mixed: Path
) -> None:
    files, right = own_scores(run, mixed)
    assert {file.suffix for file in files} == {".png", ".jpg", ".dcm"}
    found = predictor(files)
    np.testing.assert_allclose([p.score for p in found], right, rtol=0, atol=1e-6)
    assert [p.label for p in found] == ["ill" if score >= 0.5 else "well" for score in right]


def test_a_picture_is_the_same_as_path_bytes_image_and_array(
    predictor: Predictor, mixed: Path
) -> None:
    for name in ("p01.jpg", "p00.png", "p04.png", "p03.png"):
        file = mixed / name
        with Image.open(file) as image:
            given = [file, str(file), file.read_bytes(), image, np.asarray(image)]
            first, *others = [predictor.prepare(each) for each in given]
        assert first.shape == (3, 32, 32)
        assert first.dtype == torch.float32
        for other in others:
            assert torch.equal(first, other), name


def test_the_merged_model_is_a_plain_one_with_the_same_logits(
    predictor: Predictor, mixed: Path
) -> None:
    pixels = predictor.prepare(mixed / "p02.jpg")[None]
    merged = predictor.merged_model()
    assert not [name for name, _ in merged.named_modules() if "fairmask" in name.lower()]
    with torch.no_grad():
        right = predictor.model(pixel_values=pixels).logits
        assert torch.allclose(merged(pixel_values=pixels).logits, right, atol=1e-6)
    assert merged.config.id2label == {0: "well", 1: "ill"} == predictor.id2label
