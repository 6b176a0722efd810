"""A run's own test pictures get the run's own scores, whatever their size and kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from fairtune_hf import load_predictor
from fairtune_hf.cli.main import main
from fairtune_hf.inference import Predictor
from tests.inference.mixed import own_scores


@pytest.fixture(scope="module")
def predictor(run: Path) -> Predictor:
    return load_predictor(run, device="cpu", batch_size=7)


def test_the_runs_own_test_pictures_get_the_runs_own_scores(
    predictor: Predictor, run: Path, mixed: Path
) -> None:
    found = {}
    for seed in (0, 1):
        files, found[seed] = own_scores(run, mixed, seed=seed)
    assert {file.suffix for file in files} == {".png", ".jpg", ".dcm"}
    told = predictor(files)
    np.testing.assert_allclose([p.score for p in told], found[0], rtol=0, atol=1e-6)
    for seed, right in found.items():
        scores = [(p.scores_by_seed or {})[seed] for p in told]
        np.testing.assert_allclose(scores, right, rtol=0, atol=1e-6)
    assert [p.label for p in told] == ["ill" if score >= 0.5 else "well" for score in found[0]]


def test_a_picture_is_the_same_as_path_bytes_image_and_array(
    predictor: Predictor, mixed: Path
) -> None:
    for name in ("p01.jpg", "p00.png", "p04.png", "p03.png"):  # p04 is of 16 bits
        file = mixed / name
        with Image.open(file) as image:
            given = [file, str(file), file.read_bytes(), image, np.asarray(image)]
            first, *others = [predictor.prepare(each) for each in given]
        assert first.shape == (3, 32, 32)
        assert first.dtype == torch.float32
        for other in others:
            assert torch.equal(first, other), name


def test_what_is_no_picture_is_refused_with_its_place(predictor: Predictor, mixed: Path) -> None:
    for bad, words in (
        (mixed / "absent.png", "cannot be opened"),
        (b"", "is empty"),
        (b"text", "is not a picture"),
        (np.zeros((4, 4, 7)), "of shape"),
        (np.array([["a"]]), "numbers were expected"),
        (3, "where a path, bytes, a PIL image or a numpy array was expected"),
    ):
        with pytest.raises(ValueError, match=rf"pictures\[1\].*{words}"):
            predictor([mixed / "p00.png", bad])  # type: ignore[list-item]


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


def test_the_folder_of_the_adapter_is_enough_and_may_be_moved(
    predictor: Predictor, run: Path, mixed: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(run / "adapter", tmp_path / "mine"))
    other = load_predictor(moved, device="cpu", batch_size=7)
    files, right = own_scores(run, mixed)
    np.testing.assert_allclose([p.score for p in other(files)], right, rtol=0, atol=1e-6)
    assert other.groups == predictor.groups
    assert other.operating_point == predictor.operating_point


def test_a_run_of_an_earlier_release_predicts_from_its_record(
    run: Path, mixed: Path, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(run, tmp_path / "old"))
    for name in ("fairtune.json", "preprocessor_config.json"):
        (old / "adapter" / name).unlink()
    found = load_predictor(old, device="cpu")
    files, right = own_scores(run, mixed)
    np.testing.assert_allclose([p.score for p in found(files)], right, rtol=0, atol=1e-6)
    assert found.id2label == {0: "well", 1: "ill"}
    assert found.groups.keys() == {"F", "M"}
    alone = Path(shutil.copytree(old / "adapter", tmp_path / "alone"))
    with pytest.raises(FileNotFoundError, match="Give the folder of the whole run"):
        load_predictor(alone)


def test_another_base_model_is_refused(run: Path, tiny_vit: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(tiny_vit, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if "patch_embeddings" in name)
    save_file({**weights, name: weights[name] + 1}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="base_model: expected the weights"):
        load_predictor(run, base_model=other)
    gone = Path(shutil.copytree(run / "adapter", tmp_path / "gone"))
    config = json.loads((gone / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "nowhere" / "base" / "model")
    (gone / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match="--base-model"):
        load_predictor(gone)
    assert load_predictor(gone, base_model=tiny_vit).image_size == 32


def test_a_picture_unlike_the_training_pictures_is_said_to_be(
    predictor: Predictor, mixed: Path
) -> None:
    usual, tiny, long, bright = predictor(
        [
            mixed / "p01.jpg",
            np.full((20, 20, 3), 120, dtype=np.uint8),
            np.random.default_rng(0).integers(40, 160, (100, 4000, 3), dtype=np.uint8),
            np.full((300, 300), 255, dtype=np.uint8),
        ]
    )
    assert usual.warnings == ()
    assert any("shorter side in pixels is 20, in training 96 to 480" in w for w in tiny.warnings)
    assert any("longer by shorter side is 40, in training 1 to 3.333" in w for w in long.warnings)
    assert any(w.startswith("mean brightness (0 to 255) is 255") for w in bright.warnings)


def test_a_damaged_or_edited_description_is_refused_and_written_anew(
    run: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    file = mine / "adapter" / "fairtune.json"
    whole, weights = file.read_text(), mine / "adapter" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    for damage, words in (
        (whole[:200], "it is no JSON"),
        (whole.replace('"0": "well"', '"no": "well"'), "not 0 and 1"),
        (whole.replace('"image_size": 32', '"image_size": 32000'), "are not those of pictures"),
        (whole.replace('"0": "well"', '"0": "sick"'), r"run\.json says, and its id2label"),
        (whole.replace('"image_size": 32', '"image_size": 31'), "input.image_size is 31, not 32"),
        (whole.replace('"schema_version": 1', '"schema_version": 9'), "Install a newer"),
    ):
        assert damage != whole
        file.write_text(damage)
        with pytest.raises(ValueError, match=words):
            load_predictor(mine)
    file.write_text(whole[:200])
    assert main(["evaluate", f"--run={mine}"]) == 2
    assert "fairtune.json" in capsys.readouterr().err
    assert main(["finetune", f"--run={mine}", "--seeds=2"]) == 0
    assert main(["evaluate", f"--run={mine}", "--resamples=100"]) == 0
    assert file.read_text() == whole
    assert weights.stat().st_mtime_ns == before  # nothing was trained again


def test_scores_that_are_not_numbers_are_no_answer(run: Path, mixed: Path) -> None:
    found = load_predictor(run, device="cpu")
    with torch.no_grad():
        next(iter(found.model.get_base_model().parameters())).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not numbers"):
        found([mixed / "p00.png"])


def test_adapters_of_further_seeds_can_be_asked_for_later_and_scores_stay(
    run: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(mine / "seeds")
    assert not load_predictor(mine, device="cpu").others
    before = pd.read_parquet(mine / "predictions.parquet")
    first = (mine / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert main(["finetune", f"--run={mine}", "--seeds=2", "--keep-seeds"]) == 0
    assert load_predictor(mine, device="cpu").others.keys() == {1}
    assert (mine / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == first
    pd.testing.assert_frame_equal(pd.read_parquet(mine / "predictions.parquet"), before)
