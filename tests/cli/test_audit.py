"""`evaluate --predictions` on tables as people have them: words, ages, few patients, logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.cli.main import main

N = 240
FLAGS = ["--label-column=dx", "--score-column=p", "--patient-column=patient", "--resamples=40"]


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ill = (rng.random(N) < 0.4).astype(int)
    return pd.DataFrame({
        "dx": np.where(ill == 1, "malignant", "benign"), "p": 0.6 * rng.random(N) + 0.4 * ill,
        "sex": rng.choice(["F", "M"], N), "age": rng.integers(20, 90, N), "patient": np.arange(N),
    })  # fmt: skip


def audit(tmp_path: Path, frame: pd.DataFrame, *words: str) -> dict[str, Any]:
    frame.to_csv(tmp_path / "p.csv", index=False)
    out = tmp_path / "a.json"
    assert (
        main(["evaluate", f"--predictions={tmp_path / 'p.csv'}", *FLAGS, *words, f"--out={out}"])
        == 0
    )
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def test_words_ages_and_several_attributes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = audit(tmp_path, table(), "--sensitive-column=sex,age", "--age-threshold=50")
    assert got["label_names"] == ["benign", "malignant"]
    assert set(got["attributes"]["sex"]["evaluation"]["groups"]) == {"F", "M"}
    assert set(got["attributes"]["age"]["evaluation"]["groups"]) == {"<=50", ">50"}
    shown = capsys.readouterr().out
    assert "groups by sex" in shown
    assert "groups by age" in shown
    assert "label 1 is malignant" in shown
    turned = audit(tmp_path, table(), "--sensitive-column=sex+age", "--positive-label=benign")
    assert set(turned["evaluation"]["groups"]) == {"F+<=60", "F+>60", "M+<=60", "M+>60"}
    assert turned["evaluation"]["overall_auc"] == pytest.approx(
        1 - got["evaluation"]["overall_auc"]
    )
    assert any("rank upside down" in text for text in turned["warnings"])


def test_why_there_is_no_interval_is_in_the_terminal_and_the_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = table()
    frame["sex"] = np.where(np.arange(N) < N - 8, "F", "M")
    frame.loc[N - 8 :, "dx"] = ["malignant", "benign"] * 4
    frame.assign(p=np.random.default_rng(1).random(N)).to_csv(tmp_path / "r.csv", index=False)
    got = audit(tmp_path, frame, "--sensitive-column=sex", f"--reference={tmp_path / 'r.csv'}")
    assert [item["ci"] is None for item in got["comparisons"]] == [False, True, True]
    assert got["evaluation"]["groups"]["M"]["auc_ci"] is None
    shown = capsys.readouterr().out
    for place in (shown, *[text for text in got["warnings"] if "fewer than five" in text]):
        assert "Group 'M' has fewer than five patients with or without the label" in place
    assert "[no interval, see the warnings]" in shown


def test_logits_need_a_threshold_by_name(tmp_path: Path) -> None:
    frame = table()
    frame["p"] = np.log(frame.p / (1 - frame.p))
    got = audit(tmp_path, frame, "--sensitive-column=sex")
    assert got["evaluation"]["equalized_odds_difference"] is None
    assert any("There is no threshold" in text for text in got["warnings"])
    named = audit(tmp_path, frame, "--sensitive-column=sex", "--threshold=0")
    want = audit(tmp_path, table(), "--sensitive-column=sex")["evaluation"]
    assert named["evaluation"]["demographic_parity_difference"] == pytest.approx(
        want["demographic_parity_difference"]
    )


@pytest.mark.parametrize(("words", "message"), [
    (["--out=x.html"], "--out: expected a file that ends in .json"),
    (["--out=x"], "--out: expected a file that ends in .json"),
    (["--folds=5"], "--folds: expected with a data set"),
    (["--positive-label=ill"], "positive_label must be one of the values of 'dx'"),
    (["--age-threshold=old"], "age_threshold must be a number"),
    (["--unknown=drops"], "Did you mean 'drop'"),
])  # fmt: skip
def test_what_an_audit_cannot_follow_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    table().to_csv("p.csv", index=False)
    assert main(["evaluate", "--predictions=p.csv", *FLAGS, "--sensitive-column=sex", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]
