"""Trackers: one run a trial and a refit, with readable names; absent packages are named."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fairtune_hf.data import load_dataset_table
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.training import FitArguments, RunFolder, finetune, load_backbone
from fairtune_hf.training.tracking import trial_name

FIT = {"epochs": 2, "batch_size": 16, "transforms": "none"}


def settings(report_to: object) -> FitArguments:
    return FitArguments(**FIT, training_arguments=json.dumps({"report_to": report_to}))


def scalars(folder: Path) -> dict[str, int]:
    """Count the points of each curve of the one run in a folder."""
    found = EventAccumulator(str(folder)).Reload()
    return {tag: len(found.Scalars(tag)) for tag in found.Tags()["scalars"]}


def test_one_tensorboard_run_a_trial_and_a_refit(
    pictures_template: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    columns = {
        "label_column": "diagnosis", "sensitive_column": "sex", "patient_column": "person",
        "split_column": "part",
    }  # fmt: skip
    table = load_dataset_table("folder", pictures_template, image_size=32, **columns)
    known = load_dataset_table(
        "folder", pictures_template, image_size=32, splits=("train", "validation"), **columns
    )
    folder, backbone, fit = RunFolder(tmp_path), load_backbone(tiny_vit), settings(["tensorboard"])
    arguments = SearchArguments(trials=2, pruner="none")
    search_masks(known, backbone, folder, arguments, fit, show_progress=False)
    finetune(folder, table, backbone, fit, seeds=[0, 1], show_progress=False)
    trials = sorted(p.name for p in (tmp_path / "tensorboard").glob("trial-*"))
    assert [name[:9] for name in trials] == ["trial-000", "trial-001"]
    study = optuna.load_study(study_name="fairtune", storage=f"sqlite:///{folder.study_file}")
    assert trials == [trial_name(trial) for trial in study.trials if trial.state.is_finished()]
    for name in trials:
        curves = scalars(tmp_path / "tensorboard" / name)
        assert curves["eval/min_auc"] == curves["train/loss"] == 2
    refits = sorted(p.name for p in (tmp_path / "tensorboard").glob(f"{tmp_path.name}-seed-*"))
    assert refits == [f"{tmp_path.name}-seed-0", f"{tmp_path.name}-seed-1"]
    assert scalars(tmp_path / "tensorboard" / refits[1])["train/loss"] == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("report_to", "match"), [
    ("wandb", r"tracker wandb to be installed.*pip install wandb"),
    (["tensorbord"], r"expected trackers among .*tensorboard.*got 'tensorbord'"),
    (3, r"a name or a list of names, got 3"),
])  # fmt: skip
def test_trackers_that_cannot_be_used(report_to: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        settings(report_to)


def test_no_tracker_is_the_default_and_can_be_said() -> None:
    for fit in (FitArguments(**FIT), settings("none"), settings(["none"])):
        arguments = fit.to_training_arguments(
            Path("unused"), learning_rate=1e-3, seed=0, evaluate_each_epoch=False
        )
        assert arguments.report_to == []
