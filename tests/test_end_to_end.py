"""One run through the four commands: its files, its numbers by another route, its resumption."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from peft import PeftModel
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageClassification

import fairtune_hf
from fairtune_hf.cli.main import main

METRICS = (
    "overall_auc min_auc min_auc_ci max_auc auc_gap auc_gap_ci equalized_odds_difference "
    "demographic_parity_difference groups"
)
FIELDS = {
    "dataset": "name rows split_hash groups",
    "model": "id revision sha256",
    "choice": "mask layout learning_rate epochs schedule batch_size precision seed selected_by",
    "search": "trials completed pruned failed trained_epochs seconds sampler pruner objective optimism "
    "confirmation mask_frequency importance best_trial",
    "validation": METRICS,
    "test": METRICS,
    "controls": "full_blocks linear_readout random_mask",
    "versions": "torch transformers peft optuna fairtune_hf",
    "hardware": "machine cpus gpus",
}


@pytest.fixture
def record(finished_run: Path) -> dict:
    return json.loads((finished_run / "run.json").read_text())


def test_run_json_holds_every_field(record: dict) -> None:
    assert record["schema_version"] == 2
    for part, names in FIELDS.items():
        assert set(names.split()) <= set(record[part]), part
    assert record["choice"]["mask"].strip("01") == ""
    for block in record["test"]["groups"].values():
        assert set(block) >= {"n", "positives", "auc", "auc_ci"}
    assert [s["seed"] for s in record["seeds"]] == [0, 1]
    assert record["comparisons"]
    assert record["verdict"].endswith(".")
    assert isinstance(record["warnings"], list)


@pytest.mark.parametrize("where", ["", "controls/full_blocks", "controls/linear_readout"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_aucs_equal_scikit_learn_on_the_predictions(
    finished_run: Path, record: dict, where: str, split: str
) -> None:
    predictions = pd.read_parquet(finished_run / where / "predictions.parquet")
    block = record if not where else record["controls"][Path(where).name]
    rows = predictions[
        (predictions["seed"] == record["choice"]["seed"]) & (predictions["split"] == split)
    ]
    found = block[split]
    by_group = {
        name: roc_auc_score(group["label"], group["score"]) for name, group in rows.groupby("sex")
    }
    assert abs(found["overall_auc"] - roc_auc_score(rows["label"], rows["score"])) < 1e-12
    assert {n: g["auc"] for n, g in found["groups"].items()} == pytest.approx(by_group, abs=1e-12)
    assert abs(found["min_auc"] - min(by_group.values())) < 1e-12
    assert abs(found["auc_gap"] - (max(by_group.values()) - min(by_group.values()))) < 1e-12
    positive = rows["score"] >= 0.5
    if positive.nunique() == 1:  # nobody, or everybody, is called positive: that is no parity
        assert found["equalized_odds_difference"] is None
        assert found["demographic_parity_difference"] is None
        return
    fixed = (rows["label"], positive)
    assert found["equalized_odds_difference"] == pytest.approx(
        equalized_odds_difference(*fixed, sensitive_features=rows["sex"]), abs=1e-12
    )
    assert found["demographic_parity_difference"] == pytest.approx(
        demographic_parity_difference(*fixed, sensitive_features=rows["sex"]), abs=1e-12
    )


def test_trials_are_presets_first_and_the_best_is_chosen(finished_run: Path, record: dict) -> None:
    trials = pd.read_csv(finished_run / "trials.csv", dtype={"mask": str})
    assert len(trials) == 8
    assert list(trials["preset"][:7]) == [
        "none", "full_blocks", "none", "full_blocks", "attention", "layernorm", "mlp",
    ]  # fmt: skip
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    complete = trials[trials["state"] == "COMPLETE"]
    ranked = complete.sort_values(["value", "number"], ascending=[False, True])
    candidates = record["search"]["confirmation"]["candidates"]
    first = ranked.drop_duplicates(["mask", "learning_rate"])["number"][:3]
    assert {c["trial"] for c in candidates} == set(first)
    # Chosen by what new seeds gave: mean minus one standard error of two.
    bounds = {
        c["trial"]: sum(c["values"]) / 2 - abs(c["values"][0] - c["values"][1]) / 2
        for c in candidates
    }
    assert record["choice"]["trial"] in {
        t for t, bound in bounds.items() if bound == pytest.approx(max(bounds.values()))
    }
    best = trials.set_index("number").loc[record["choice"]["trial"]]
    assert record["choice"]["mask"] == best["mask"]
    assert record["choice"]["learning_rate"] == best["learning_rate"]
    assert record["search"]["best_trial"]["number"] == ranked["number"].iloc[0]
    readouts = trials[trials["mask"] == "000000"]
    assert (
        record["controls"]["linear_readout"]["learning_rate"]
        == readouts.loc[readouts["value"].idxmax(), "learning_rate"]
    )
    assert readouts["learning_rate"].nunique() >= 2


def test_search_keeps_test_rows_out(finished_run: Path, tiny_vit: Path) -> None:
    from fairtune_hf.search import SearchArguments, search_masks
    from fairtune_hf.training import FitArguments, RunFolder, load_backbone

    table = fairtune_hf.load_dataset_table("demo", sensitive="skin_type")
    with pytest.raises(ValueError, match="got test rows too"):
        search_masks(
            table,
            load_backbone(tiny_vit),
            RunFolder(finished_run),
            SearchArguments(),
            FitArguments(),
        )


def test_the_same_commands_again_do_nothing(
    finished_run: Path, folder_flags: list[str], tiny_vit: Path
) -> None:
    trained = ["trials.csv", "predictions.parquet", "adapter/adapter_model.safetensors"]
    before = [(finished_run / name).stat().st_mtime_ns for name in trained]
    flags = [*folder_flags, f"--model={tiny_vit}", f"--out={finished_run}"]
    fit = ["--trials=8", "--epochs=2", "--batch-size=16", "--learning-rate-max=0.01"]
    assert main(["search", *flags, *fit]) == 0
    assert main(["finetune", f"--run={finished_run}", "--seeds=2"]) == 0
    assert [(finished_run / name).stat().st_mtime_ns for name in trained] == before


@pytest.mark.slow
def test_a_search_cut_short_equals_one_in_one_go(
    finished_run: Path, folder_flags: list[str], tiny_vit: Path, tmp_path: Path
) -> None:
    """Eight trials, and three then eight: the same trials and values, by the same seed."""
    out = tmp_path / "run"
    flags = [*folder_flags, f"--model={tiny_vit}", f"--out={out}"]
    fit = ["--epochs=2", "--batch-size=16", "--learning-rate-max=0.01"]
    assert main(["search", *flags, *fit, "--trials=3"]) == 0
    assert main(["search", *flags, *fit, "--trials=8"]) == 0
    columns = ["number", "state", "value", "learning_rate", "mask", "preset", "epochs"]
    one, two = (
        pd.read_csv(f / "trials.csv", dtype={"mask": str})[columns] for f in (finished_run, out)
    )
    pd.testing.assert_frame_equal(one, two)


def test_an_interrupted_refit_goes_on(finished_run: Path, record: dict, tmp_path: Path) -> None:
    """Without the last seed's rows only that seed is trained again, with the same scores."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    file = run / "controls" / "full_blocks" / "predictions.parquet"
    whole = pd.read_parquet(file)
    whole[whole["seed"] == 0].to_parquet(file, index=False)
    assert main(["finetune", f"--run={run}", "--seeds=2"]) == 0
    again = pd.read_parquet(file)
    pd.testing.assert_frame_equal(again, whole)


def test_the_adapter_loads_and_gives_the_predictions(
    finished_run: Path, tiny_vit: Path, pictures_template: Path
) -> None:
    base = AutoModelForImageClassification.from_pretrained(
        tiny_vit, num_labels=2, ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(base, finished_run / "adapter").eval()
    table = fairtune_hf.load_dataset_table(
        "folder", pictures_template, image_size=32, label_column="diagnosis", sensitive_column="sex",
        patient_column="person", split_column="part",
    ).subset("test")  # fmt: skip
    pixels = torch.tensor(table.images).permute(0, 3, 1, 2) / 255.0 * 2 - 1
    with torch.no_grad():
        scores = model(pixels).logits.double().softmax(-1)[:, 1].numpy()
    predictions = pd.read_parquet(finished_run / "predictions.parquet")
    stored = predictions[(predictions["seed"] == 0) & (predictions["split"] == "test")]
    assert list(stored["row_id"]) == list(table.frame["row_id"])
    np.testing.assert_allclose(stored["score"], scores, atol=1e-5)
    assert load_file(finished_run / "adapter" / "adapter_model.safetensors")


def test_patients_stay_out_of_what_is_shown(finished_run: Path) -> None:
    predictions = pd.read_parquet(finished_run / "predictions.parquet")
    assert "patient_id" not in predictions
    assert "person" not in predictions
    assert predictions["patient"].dtype == np.int64
