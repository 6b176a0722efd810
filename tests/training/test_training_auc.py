"""The AUC of the training rows by group, from the logits of the training steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from transformers import TrainerCallback

from fairtune_hf.data import ImageTable
from fairtune_hf.search import SearchArguments, SearchSpace, run_study
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FairTrainer, FitArguments, RunFolder, Training, load_backbone
from fairtune_hf.training.training_auc import FittedScores


def draw(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (rows,), generator=generator)
    groups = torch.randint(0, 2, (rows,), generator=generator)
    logits = torch.randn(rows, 2, generator=generator)
    logits[:, 1] += labels * (0.5 + groups)
    return logits, labels, groups


def test_batches_make_up_the_epoch() -> None:
    logits, labels, groups = draw(300)
    scores = FittedScores(["light", "dark"])
    for first in range(0, 300, 64):
        part = slice(first, first + 64)
        scores.note(logits[part].requires_grad_(), labels[part], groups[part])
    found = scores.collect()
    probability = torch.softmax(logits, dim=1)[:, 1].detach().numpy()
    for code, name in enumerate(("light", "dark")):
        held = groups.numpy() == code
        expected = roc_auc_score(labels.numpy()[held], probability[held])
        assert found[f"train_auc_{name}"] == pytest.approx(expected, abs=1e-6)
    assert found["train_auc_light"] != found["train_auc_dark"]


def test_an_epoch_begins_empty() -> None:
    scores = FittedScores(["light", "dark"])
    scores.note(*draw(100, seed=1))
    first = scores.collect()
    scores.note(*draw(100, seed=2))
    assert scores.collect() != first
    assert scores.collect() == {}


def test_what_has_no_auc_is_left_out() -> None:
    logits, labels, groups = draw(100)
    scores = FittedScores(["light", "dark", "absent"])
    scores.note(logits, torch.where(groups == 0, 1, labels), groups)  # light has one class
    assert set(scores.collect()) == {"train_auc_dark"}
    scores.note(torch.full_like(logits, np.nan), labels, groups)
    assert scores.collect() == {}
    scores.note(logits.repeat(2, 1), labels, groups)  # two views of each row
    assert scores.collect() == {}


def test_a_failed_trial_leaves_no_rows_to_the_next(
    search_table: ImageTable, tiny_vit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, collect = [], FittedScores.collect

    def count(scores: FittedScores, processes: int = 1) -> dict[str, float]:
        scored.append(sum(rows.shape[1] for rows in scores._rows))
        return collect(scores, processes)

    class FailOnce(TrainerCallback):
        failed = False

        def on_epoch_end(self, args, state, control, **kwargs):
            if not self.failed:
                self.failed = True
                raise torch.OutOfMemoryError("made up")

    def make_trainer(**arguments):
        trainer = FairTrainer(**arguments)
        trainer.add_callback(FailOnce())
        return trainer

    monkeypatch.setattr(FittedScores, "collect", count)
    search = SearchArguments(trials=1, presets=False)
    fit, folder = FitArguments(epochs=1, batch_size=16), RunFolder(tmp_path)
    run_study(StudyPlan(folder, SearchSpace(blocks=2), search, fit), Training(table=search_table, backbone=load_backbone(tiny_vit), arguments=fit, make_trainer=make_trainer), keep_best=False, show_progress=False)  # fmt: skip
    assert scored == [108]
