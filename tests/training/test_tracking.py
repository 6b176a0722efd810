"""Trackers: one run a trial and a refit, with readable names; absent packages are named."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fairtune_hf.data import load_dataset_table
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.training import FitArguments, RunFolder, finetune, load_backbone
from fairtune_hf.training.tracking import group_name, trial_name

FIT = {"epochs": 2, "batch_size": 16, "transforms": "none"}
COLUMNS = {
    "label_column": "diagnosis", "sensitive_column": "sex", "patient_column": "person",
    "split_column": "part",
}  # fmt: skip


def settings(report_to: object) -> FitArguments:
    return FitArguments(**FIT, training_arguments=json.dumps({"report_to": report_to}))


def scalars(folder: Path) -> dict[str, int]:
    """Count the points of each curve of the one run in a folder."""
    found = EventAccumulator(str(folder)).Reload()
    return {tag: len(found.Scalars(tag)) for tag in found.Tags()["scalars"]}


def search_and_refit(pictures: Path, model: Path, to: Path, report_to: str) -> RunFolder:
    """Search two trials and refit the choice and its controls twice, reporting to a tracker."""
    table = load_dataset_table("folder", pictures, image_size=32, **COLUMNS)
    known = load_dataset_table(
        "folder", pictures, image_size=32, splits=("train", "validation"), **COLUMNS
    )
    folder, backbone, fit = RunFolder(to), load_backbone(model), settings([report_to])
    arguments = SearchArguments(trials=2, pruner="none")
    search_masks(known, backbone, folder, arguments, fit, show_progress=False)
    finetune(folder, table, backbone, fit, seeds=[0, 1], show_progress=False)
    return folder


@pytest.mark.slow
def test_one_tensorboard_run_a_trial_and_a_refit(
    pictures_template: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    folder = search_and_refit(pictures_template, tiny_vit, tmp_path, "tensorboard")
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


def stored_records(file: Path) -> Iterator[bytes]:
    """Read the records of an offline run: LevelDB's log format behind a header of seven bytes."""
    data, at, parts = file.read_bytes(), 7, []
    block = 32 * 1024
    while at + 7 <= len(data):
        if block - at % block < 7:  # too short for a header: padding
            at += block - at % block
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def read_offline_run(file: Path) -> dict[str, Any]:
    """Return name, group and project of a run of Weights & Biases, and how often each key was logged."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, Any] = {"logged": {}}
    for stored in stored_records(file):
        record = Record()
        record.ParseFromString(stored)
        if record.HasField("run"):
            run = record.run
            found |= {"name": run.display_name, "group": run.run_group, "project": run.project}
        for item in record.history.item if record.HasField("history") else ():
            key = item.key or "/".join(item.nested_key)
            found["logged"][key] = found["logged"].get(key, 0) + 1
    return found


@pytest.mark.slow
def test_one_offline_run_of_wandb_a_trial_and_a_refit(
    pictures_template: Path, tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    for name, value in {"MODE": "offline", "ERROR_REPORTING": "false", "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    folder = search_and_refit(pictures_template, tiny_vit, tmp_path / "mine", "wandb")
    wandb.finish()
    runs = [read_offline_run(file) for file in folder.path.glob("wandb/offline-run-*/*.wandb")]
    study = optuna.load_study(study_name="fairtune", storage=f"sqlite:///{folder.study_file}")
    expected = sorted(trial_name(trial) for trial in study.trials if trial.state.is_finished())
    assert len(expected) == 2
    assert sorted(run["name"] for run in runs) == ["mine-seed-0", "mine-seed-1", *expected]
    assert {run["group"] for run in runs} == {"mine"}
    assert {run["project"] for run in runs} == {"fairtune"}
    for run in runs:
        is_trial = run["name"].startswith("trial")
        assert run["logged"]["train/loss"] == 2, run
        assert run["logged"].get("eval/min_auc", 0) == (2 if is_trial else 0), run
    control = folder.path.glob("controls/random_mask/wandb/offline-run-*/*.wandb")
    assert {run["group"] for run in map(read_offline_run, control)} == {"mine-random_mask"}
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("folder", "name"), [
    ("runs/mine", "mine"),
    ("runs/mine/confirm", "mine-confirm"),
    ("runs/mine/controls/full_blocks", "mine-full_blocks"),
    ("runs/mine/control_searches/mlp", "mine-mlp"),
])  # fmt: skip
def test_runs_are_grouped_by_the_search_they_belong_to(folder: str, name: str) -> None:
    assert group_name(Path(folder)) == name


@pytest.mark.parametrize(("report_to", "match"), [
    ("comet_ml", r"tracker comet_ml to be installed.*pip install comet-ml"),
    (["tensorbord"], r"expected trackers among .*tensorboard.*got 'tensorbord'"),
    (3, r"a name or a list of names, got 3"),
])  # fmt: skip
def test_trackers_that_cannot_be_used(report_to: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        settings(report_to)


def test_no_tracker_is_the_default_and_can_be_said() -> None:
    for fit in (FitArguments(**FIT), settings("none"), settings(["none"])):
        arguments = fit.to_training_arguments(
            Path(tempfile.gettempdir()), learning_rate=1e-3, seed=0
        )
        assert arguments.report_to == []
