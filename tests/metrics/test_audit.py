"""Audit of a stranger's table: the numbers are ours, the errors speak her language."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.metrics import (
    audit_predictions,
    delong_difference,
    evaluate_predictions,
    group_metrics,
)

COLUMNS = {"label_column": "ill", "score_column": "p", "sensitive_column": "skin"}


def table(n=300, seed=0):
    rng = np.random.default_rng(seed)
    ill = (rng.random(n) < 0.4).astype(int)
    return pd.DataFrame({
        "ill": ill, "p": rng.random(n) * 0.7 + 0.3 * ill, "skin": rng.choice(["I", "VI"], n),
        "sex": rng.choice(["f", "m"], n), "person": rng.integers(0, 150, n),
        "row_id": [f"r{i}" for i in range(n)],
    })  # fmt: skip


def audit(frame, **changes):
    return audit_predictions(frame, **(COLUMNS | {"n_resamples": 100} | changes))


def test_report_has_the_numbers_of_the_library():
    got = audit(table(), patient_column="person")
    ours = table().rename(columns={"ill": "label", "p": "score", "person": "patient"})
    assert got["evaluation"] == evaluate_predictions(ours, sensitive="skin", n_resamples=100)
    found = group_metrics(ours.label, ours.score, sensitive_features=ours.skin)
    assert got["metrics"]["by_group"]["VI"]["brier"] == found.by_group["VI"].brier
    assert got["metrics"]["equity_scaled_auc"] == found.equity_scaled_auc
    assert set(got["reliability"]) == {"I", "VI"}
    assert got["rows"] == 300
    assert got["collapse"] is None
    assert json.loads(json.dumps(got, allow_nan=False)) == got


def test_intersection_of_columns():
    got = audit(table(), sensitive_column=["skin", "sex"])
    assert set(got["evaluation"]["groups"]) == {"I+f", "I+m", "VI+f", "VI+m"}
    assert got["sensitive"] == "skin+sex"


def test_missing_groups_are_left_out_and_counted():
    frame = table()
    frame.loc[:11, "skin"] = None
    got = audit(frame)
    assert "12 of 300 rows have no skin and are left out." in got["warnings"]
    assert any("no patient column" in text for text in got["warnings"])


def test_reference_is_compared_by_id():
    frame = table()
    worse = frame.assign(p=np.random.default_rng(9).random(300)).sample(frac=1, random_state=0)
    got = audit(frame, reference=worse, patient_column="person", n_resamples=400)
    names = [entry["metric"] for entry in got["comparisons"]]
    assert names == ["overall_auc", "min_auc", "auc_gap"]
    first = got["comparisons"][0]
    assert first["difference"] > 0
    assert first["p_value"] < 0.05
    assert first["p_value_holm"] >= first["p_value"]
    assert audit(worse)["collapse"]["collapsed"]


def test_what_cannot_be_told_from_chance_is_judged_over_patients():
    """Sixteen patients with twenty pictures each: over pictures the AUC of 0.64 would be beyond chance."""
    rng = np.random.default_rng(3)
    person = np.repeat(np.arange(16), 20)
    ill = person % 2
    p = 1 / (1 + np.exp(-(0.5 * ill + rng.normal(size=16)[person] + 0.1 * rng.normal(size=320))))
    frame = pd.DataFrame({"ill": ill, "p": p, "skin": np.where(person < 8, "I", "VI")})
    flag = audit(frame.assign(person=person), patient_column="person")["collapse"]
    assert flag is not None
    assert not flag["collapsed"]
    assert audit(frame)["collapse"] is None


def test_one_class_group_is_null_with_a_warning():
    frame = table()
    frame.loc[frame.skin == "VI", "ill"] = 0
    got = audit(frame)
    assert got["evaluation"]["groups"]["VI"]["auc"] is None
    assert any("Group 'VI' has 0 positive" in text for text in got["warnings"])


def duplicated(frame):
    return pd.concat([frame, frame.iloc[:2]])


@pytest.mark.parametrize(("change", "arguments", "error", "match"), [
    (lambda f: f.drop(columns="p"), {}, ValueError, r"'p' is missing among"),
    (lambda f: f.rename(columns={"skin": "skins"}), {}, ValueError, r"Did you mean 'skins'"),
    (lambda f: f, {"patient_column": "who"}, ValueError, "'who' is missing"),
    (lambda f: f.assign(p=f.p.astype(str)), {}, TypeError, r"p: expected numbers, got '0\."),
    (lambda f: f.assign(ill="yes"), {}, ValueError, r"ill: expected both classes, got 'yes' in all"),
    (lambda f: f.assign(ill=0), {}, ValueError, r"ill: expected both classes 0 and 1, got 0 in all"),
    (lambda f: f.assign(ill=f.ill + 1), {}, ValueError, "ill: expected labels 0 and 1, got 2"),
    (lambda f: f.assign(ill=f.ill.where(f.index > 3)), {}, ValueError, "got nan in 4 of 300"),
    (lambda f: f.assign(p=f.p.where(f.index > 3)), {}, ValueError, r"p: expected finite.* 4 NaN"),
    (duplicated, {}, ValueError, "each row_id once, got 2 repeated, for example 'r0'"),
    (lambda f: f.iloc[:0], {}, ValueError, "empty table"),
    (lambda f: f, {"reference": table().iloc[:9]}, ValueError, "same rows"),
    (lambda f: f, {"reference": table()[["ill", "p"]]}, ValueError, r"reference:.*'skin' is miss"),
])  # fmt: skip
def test_clear_errors(change, arguments, error, match):
    with pytest.raises(error, match=match):
        audit(change(table()), **arguments)


@pytest.mark.slow
def test_a_hundred_thousand_rows_in_twenty_seconds():
    frame = table(100_000).assign(person=np.random.default_rng(0).integers(0, 40_000, 100_000))
    start = time.process_time()  # of one core, whatever else the machine does
    audit(frame, patient_column="person", n_resamples=2000)
    assert time.process_time() - start < 20


def test_delong_is_beside_the_bootstrap_where_each_patient_has_one_row():
    rng = np.random.default_rng(3)
    label = rng.integers(0, 2, 200)
    frame = pd.DataFrame({
        "y": label, "p": np.clip(0.3 * label + 0.7 * rng.random(200), 0, 1), "sex": rng.choice(["f", "m"], 200),
        "row_id": rng.permutation(200), "who": range(200),
    })  # fmt: skip
    other = frame.assign(p=np.clip(frame.p + 0.2 * rng.random(200), 0, 1)).sample(
        frac=1, random_state=0
    )
    options = {
        "label_column": "y",
        "score_column": "p",
        "sensitive_column": "sex",
        "n_resamples": 50,
    }
    found = audit_predictions(frame, reference=other, patient_column="who", **options)
    rows = {row["metric"]: row for row in found["comparisons"]}
    want = delong_difference(label, frame.p, other.sort_index().p).p_value
    assert rows["overall_auc"]["p_value_delong"] == pytest.approx(want)
    assert "p_value_delong" not in rows["min_auc"]
    twice = frame.assign(who=frame.who // 2)
    found = audit_predictions(
        twice, reference=other.assign(who=other.who // 2), patient_column="who", **options
    )
    assert not any("p_value_delong" in row for row in found["comparisons"])


def test_a_keyword_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="colour"):
        audit_predictions(
            pd.DataFrame(), label_column="y", score_column="p", sensitive_column="s", colour=1
        )
