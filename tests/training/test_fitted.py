"""The AUC of the training rows by group, from the logits of the training steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fairtune_hf.training.fitted import FittedScores


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
