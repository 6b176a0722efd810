"""The best trial's folder: unreadable, half-made by a kill, and beside files of the user's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from peft import get_peft_model
from transformers import ViTForImageClassification

from fairtune_hf.checksums import digest_of, write_noted
from fairtune_hf.search.best import KeepBest, finish_interrupted, read_best, read_best_scores
from fairtune_hf.search.objectives import parse_objectives
from fairtune_hf.tuner import FairMaskConfig


class Search:
    """Trials that end with given values, in a real study, with a real adapter."""

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        backbone = ViTForImageClassification.from_pretrained(checkpoint)
        self.model = get_peft_model(backbone, FairMaskConfig(mask="attention"))
        self.study = optuna.create_study(direction="maximize")

    def end(self, value: float, **attributes: Any) -> None:
        trial = self.study.ask()
        trial.suggest_float("learning_rate", 1e-5, 1e-3)
        for name, attribute in attributes.items():
            trial.set_user_attr(name, attribute)
        trainer: Any = SimpleNamespace(
            _trial=trial, objective=value, model=self.model, is_world_process_zero=lambda: True
        )
        metrics: Any = SimpleNamespace(last=SimpleNamespace(scores=np.full(3, value)))
        callback = KeepBest(self.folder, trainer, metrics, parse_objectives("min_auc")[0])
        callback.on_train_end(SimpleNamespace(num_train_epochs=2), SimpleNamespace(epoch=2.0), None)
        self.study.tell(trial, value)

    def kept(self) -> float | None:
        record, scores = read_best(self.folder), read_best_scores(self.folder)
        assert (record is None) == (scores is None)
        if record is not None and scores is not None:
            assert scores.tolist() == [record["value"]] * 3
        return None if record is None else record["value"]


@pytest.fixture
def search(tmp_path: Path, tiny_vit: Path) -> Search:
    return Search(tmp_path, tiny_vit)


FILES = ["trial.json", "scores.npy", "adapter_model.safetensors", "adapter_config.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_what_a_power_cut_left_counts_as_absent(
    share: float, name: str, search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search.end(0.7)
    file = search.folder / "best_trial" / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert search.kept() is None
    search.end(0.6)  # less than the best: it may not stand for it
    assert search.kept() is None
    assert "cannot be read" in capsys.readouterr().err
    search.end(0.8)
    assert search.kept() == 0.8
    assert [path.name for path in search.folder.glob("*best_trial*") if path.is_dir()] == [
        "best_trial"
    ]


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"number": 1}', '{"number": 0, "value": NaN, "params": {}}']
)
def test_a_record_that_is_none_counts_as_absent(text: str, search: Search) -> None:
    search.end(0.7)
    (search.folder / "best_trial" / "trial.json").write_text(text)
    search.end(0.75)
    assert search.kept() == 0.75


def test_copies_that_a_user_made_are_let_alone(search: Search) -> None:
    names = [
        f"best_trial.{end}" for end in ("2026.backup", "2026.old", "my.copy", "999999.partial")
    ]
    for name in names:
        (search.folder / name).mkdir()
        (search.folder / name / "mine.txt").write_text("mine")
    (search.folder / "best_trial.notes.md").write_text("mine")
    search.end(0.7)
    search.end(0.8)
    assert search.kept() == 0.8
    assert [(search.folder / name / "mine.txt").read_text() for name in names] == ["mine"] * 4
    assert (search.folder / "best_trial.notes.md").read_text() == "mine"


@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("partial", ["whole", "half", None])
def test_a_kill_between_any_two_steps_of_the_exchange_leaves_the_one_or_the_other(
    partial: str | None, target: bool, search: Search
) -> None:
    search.end(0.7)
    kept, old, new = (
        search.folder / n for n in ("best_trial", ".best_trial.old", ".best_trial.partial")
    )
    if partial is not None:
        import shutil

        shutil.copytree(kept, new)
        record = json.loads((new / "trial.json").read_text()) | {"value": 0.8}
        np.save(new / "scores.npy", np.full(3, 0.8))
        noted = {"scores.npy": [digest_of((new / "scores.npy").read_bytes())]}
        write_noted(new, {"trial.json": json.dumps(record)}, **noted)
        if partial == "half":
            (new / "trial.json").unlink()
    if not target:
        kept.rename(old)
    finish_interrupted(search.folder)
    assert search.kept() == (0.8 if partial == "whole" and not target else 0.7)
    assert not old.exists()
    assert not new.exists()


def test_a_file_or_a_link_in_its_place_is_replaced_and_what_the_link_leads_to_stays(
    search: Search, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "mine.txt").write_text("mine")
    (search.folder / "best_trial").symlink_to(elsewhere)
    search.end(0.7)
    assert search.kept() == 0.7
    assert (elsewhere / "mine.txt").read_text() == "mine"


def test_the_repetition_of_a_lost_trial_takes_its_place(search: Search) -> None:
    search.end(0.7)
    record = json.loads((search.folder / "best_trial" / "trial.json").read_text())
    trial = search.study.ask()
    search.study.tell(trial, state=optuna.trial.TrialState.FAIL)
    search.study.enqueue_trial(record["params"])
    search.end(0.6, retry_of=0)
    assert search.kept() == 0.6
