"""The run's own scores again, for every kind of model, mask and way to the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fairtune_hf import load_predictor
from fairtune_hf.data import ImageTable, load_dataset_table
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import FAIRTUNE, ChoiceRecord
from fairtune_hf.training import FitArguments, describe_dataset, finetune, load_backbone
from fairtune_hf.training.train import Training
from fairtune_hf.tuner import FairMaskConfig
from tests.inference.mixed import draw_mixed, own_scores, train_by_hand
from tests.training.checkpoints import FAMILIES

ARGUMENTS = FitArguments(epochs=1, batch_size=12)
CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "vit": ("110100110101", "block4", ("position_embeddings", "cls_token")),
    "dinov2": ("010", "block", ("everything_else",)),
    "swin": ("full_blocks", "block3", ("final_norm",)),
    "clip": ("layernorm", "block3", ("patch_embeddings",)),
    "timm_vit": ("100100000011", "attention_params", ("biases",)),
}


@pytest.fixture(scope="module")
def table(mixed: Path) -> ImageTable:
    return load_dataset_table(
        "folder", mixed, image_size=64, label_column="finding", positive_label="ill",
        sensitive_column="sex", patient_column="person", split_column="part", progress=False,
    )  # fmt: skip


def refit(table: ImageTable, checkpoint: Path, out: Path, **choice: Any) -> RunFolder:
    folder, backbone = RunFolder(out), load_backbone(checkpoint)
    config = FairMaskConfig(
        mask=choice["mask"], layout=choice["layout"], train_also=choice["train_also"]
    )
    bits = str(config.resolve_mask(backbone.blocks))
    choice |= {"mask": bits, "train_also": list(config.train_also)}
    with folder.editing() as record:
        record.dataset, record.model = describe_dataset(table), backbone.describe()
        record.put(FAIRTUNE, choice=ChoiceRecord(learning_rate=0.01, epochs=1, seed=0, **choice))
    finetune(folder, table, backbone, ARGUMENTS, seeds=[0], show_progress=False)
    return folder


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_of_model_gives_the_runs_own_scores(
    kind: str, table: ImageTable, mixed: Path, tmp_path: Path
) -> None:
    mask, layout, also = CASES[kind]
    checkpoint = tmp_path / kind
    FAMILIES[kind][0](checkpoint)
    out = tmp_path / "run"
    refit(table, checkpoint, out, mask=mask, layout=layout, train_also=also)
    predictor = load_predictor(out, device="cpu", batch_size=9)
    files, right = own_scores(out, mixed)
    found = predictor(files)
    np.testing.assert_allclose([p.score for p in found], right, rtol=0, atol=1e-6)
    assert np.std(right) > 0
    pixels = predictor.prepare(files[0])[None]
    merged = predictor.merged_model()(pixel_values=pixels).logits
    assert np.allclose(
        merged.detach(), predictor.model(pixel_values=pixels).logits.detach(), atol=1e-5
    )
    assert predictor.model.get_base_model().config.id2label == {0: "well", 1: "ill"}


def test_prepared_pictures_that_are_cropped_go_the_same_way(
    mixed: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    """Resized to 48 px by `prepare`, to 37 px by the loader, and the centre of 32 px cut by the model's input."""
    from fairtune_hf.cli.main import main

    columns = [
        "--dataset=folder", "--label-column=finding", "--positive-label=ill",
        "--sensitive-column=sex", "--patient-column=person", "--split-column=part",
    ]  # fmt: skip
    prepared = tmp_path / "prepared"
    flags = [f"--data-root={mixed}", f"--out={prepared}", "--image-size=48"]
    assert main(["prepare", *columns, *flags, "--depth16=full"]) == 0
    out = train_by_hand(prepared, tiny_vit, tmp_path / "run", "--transforms=paper")
    predictor = load_predictor(out, device="cpu")
    assert predictor.described.input.stored_sides == [48, 37]
    assert predictor.described.input.depth16 == "full"
    assert (predictor.described.pictures or {})["short_side"] == [96, 480]
    files, right = own_scores(out, mixed)
    np.testing.assert_allclose([p.score for p in predictor(files)], right, rtol=0, atol=1e-6)
    (out / "adapter" / "fairtune.json").unlink()  # as a run of an earlier release
    again = load_predictor(out, device="cpu")
    np.testing.assert_allclose([p.score for p in again(files)], right, rtol=0, atol=1e-6)


def test_a_mask_of_lora_predicts_too(table: ImageTable, mixed: Path, tmp_path: Path) -> None:
    from fairtune_hf.baselines.lora import LoRA
    from fairtune_hf.training.candidate import Candidate
    from fairtune_hf.training.refit import refit as refit_choice

    checkpoint = tmp_path / "vit"
    FAMILIES["vit"][0](checkpoint)
    backbone = load_backbone(checkpoint)
    choice = ChoiceRecord(
        mask="010010010", layout="block3", learning_rate=0.01, epochs=1, seed=0,
        hyperparameters={"rank": 2},
    )  # fmt: skip
    assert Candidate.from_record(choice).config()
    folder = RunFolder(tmp_path / "run")
    with folder.editing() as record:
        record.dataset, record.model = describe_dataset(table), backbone.describe()
        record.chosen = "lora"
        record.put("lora", choice=choice)
    training = Training(table=table, backbone=backbone, arguments=ARGUMENTS, method=LoRA)
    refit_choice(training, folder, choice, seeds=[0])
    predictor = load_predictor(folder.path, device="cpu")
    files, right = own_scores(folder.path, mixed)
    np.testing.assert_allclose([p.score for p in predictor(files)], right, rtol=0, atol=1e-6)
    assert predictor.merged_model().config.id2label == {0: "well", 1: "ill"}


def test_grey_pictures_of_a_colour_set_are_said_to_be(tiny_vit: Path, tmp_path: Path) -> None:
    colour = draw_mixed(tmp_path / "set", kinds={"square": "png"})
    out = train_by_hand(colour, tiny_vit, tmp_path / "run")
    grey = np.random.default_rng(0).integers(60, 140, (96, 96), dtype=np.uint8)
    (found,) = load_predictor(out, device="cpu")(grey)
    assert "grey, in training in colour" in found.warnings
