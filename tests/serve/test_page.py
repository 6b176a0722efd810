"""What the page says: the run's own scores, what was measured, and nothing that a name could smuggle in."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from fairtune_hf.serve import words
from fairtune_hf.serve.page import answer
from fairtune_hf.serve.uploads import Upload

HOSTILE = '<img src=x onerror=alert(1)> ${alert(2)} {{value}} "q"'


def score_in(text: str) -> float:
    return float(re.search(r'data-score="([^"]+)"', text)[1])


def test_every_kind_of_picture_gets_the_score_that_was_measured(predictor, mixed, own_scores):
    assert {name.rpartition(".")[2] for name in own_scores} == {"png", "jpg", "dcm"}
    for name, right in own_scores.items():
        text = answer(Upload(name, (mixed / name).read_bytes()), predictor)
        assert score_in(text) == pytest.approx(right, abs=1e-6)
        assert f"{right:.4f}" in text
        assert f"<strong>{'ill' if right >= predictor.threshold else 'well'}</strong>" in text


@pytest.mark.parametrize(
    ("content", "why"), [(b"hello\n", "is not a picture"), (b"", "is empty"), (b"\x89PNG\r\n", "")]
)
def test_what_is_no_picture_is_refused_in_words(predictor, content, why):
    text = answer(Upload("notes.txt", content), predictor)
    assert "No score" in text
    assert "notes.txt" in text
    assert why in text
    assert "data-score" not in text


def test_the_groups_are_those_of_the_record(predictor, run):
    text = words.measured(predictor)
    groups = json.loads((run / "run.json").read_text())["test"]["groups"]
    assert set(groups) == {"F", "M"}
    for name, row in groups.items():
        low, high = row["auc_ci"]
        assert f"<td>{name}</td>" in text
        assert f"{row['auc']:.3f} [{low:.3f} to {high:.3f}]" in text
    assert "Not a medical device" in text
    assert "ill" in words.heading(predictor)


def test_counts_of_few_are_not_shown():
    row = {"n": 7, "positives": 3, "auc": 0.5, "auc_ci": None}
    assert words._group_row("few", row).count("&lt;10") == 2
    row = {"n": "<10", "positives": "<10", "auc": None}
    assert words._group_row("few", row).count("&lt;10") == 2


def test_names_are_inert(predictor):
    described = dataclasses.replace(
        predictor.described, dataset=HOSTILE, sensitive=HOSTILE, measured_on=HOSTILE
    )
    twin = type(predictor)(predictor.model, described, device=predictor.device)
    twin.groups = {HOSTILE: {"n": 50, "positives": 20, "auc": 0.7, "auc_ci": [0.6, 0.8]}}
    twin.id2label = {0: "well", 1: HOSTILE}
    found = twin(np.zeros((32, 32, 3), dtype=np.uint8))[0]
    found = dataclasses.replace(found, warnings=(HOSTILE,))
    texts = [
        words.heading(twin),
        words.measured(twin),
        words.answer(Upload(HOSTILE), found, twin),
        words.refusal(HOSTILE),
    ]
    for text in texts:
        assert "&lt;img src=x" in text
        assert "<img" not in text
