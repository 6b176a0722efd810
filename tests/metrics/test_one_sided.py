"""A threshold that tells nobody apart gives no parity: null and a warning, not 0."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, selection_rate
from sklearn.exceptions import UndefinedMetricWarning

from fairtune_hf.metrics import (
    audit_predictions,
    compare_metrics,
    compute_metrics,
    evaluate_predictions,
    group_metrics,
)
from fairtune_hf.metrics.checks import group_codes
from fairtune_hf.metrics.groups import measure

DIFFERENCES = (
    "equalized_odds_difference", "demographic_parity_difference", "equal_opportunity_difference",
)  # fmt: skip
COLUMNS = {"label_column": "label", "score_column": "score", "sensitive_column": "sex"}


def table(scale=1.0, shift=0.0, n=240):
    rng = np.random.default_rng(0)
    label = (rng.random(n) < 0.3).astype(int)
    score = shift + scale * (0.6 * rng.random(n) + 0.4 * label)
    sex = rng.choice(["f", "m"], n)
    return pd.DataFrame({"label": label, "score": score, "sex": sex, "patient": np.arange(n) // 2})


@pytest.mark.parametrize(("frame", "word"), [
    (table(scale=0.4), "No score reaches the threshold 0.5"),
    (table(scale=0.4, shift=0.55), "Every score reaches the threshold 0.5"),
])  # fmt: skip
def test_all_on_one_side_is_undefined(frame, word):
    with pytest.warns(UndefinedMetricWarning, match=word):
        found = group_metrics(frame.label, frame.score, sensitive_features=frame.sex)
    block = evaluate_predictions(frame, sensitive="sex", n_resamples=40, errors="raise")
    for name in DIFFERENCES:
        assert math.isnan(getattr(found, name))
    for name in DIFFERENCES[:2]:
        assert block[name] is None
        assert block[f"{name}_ci"] is None
    assert any(word in text for text in block["warnings"])
    assert block["overall_auc_ci"] is not None
    # What it would have been, by fairlearn: perfect parity of a model that tells nobody apart.
    predicted = frame.score >= 0.5
    assert demographic_parity_difference(
        frame.label, predicted, sensitive_features=frame.sex
    ) == 0.0  # fmt: skip
    assert selection_rate(frame.label, predicted) in (0.0, 1.0)


def test_every_epoch_of_a_training_says_the_same():
    frame = table(scale=0.4)
    groups = group_codes(frame.sex, len(frame))
    quick = measure(frame.label.to_numpy(), frame.score.to_numpy(), groups, 0.5)
    assert all(math.isnan(getattr(quick, name)) for name in DIFFERENCES)
    logits = np.column_stack([np.ones(len(frame)), np.zeros(len(frame))])
    logits[:, 1] = frame.score

    class Evaluated:
        predictions = logits
        label_ids = (frame.label.to_numpy(), groups.codes)

    found = compute_metrics(Evaluated())
    assert math.isnan(found["equalized_odds_difference"])
    assert found["overall_auc"] == pytest.approx(quick.overall_auc)


def test_one_group_on_one_side_keeps_its_rates_and_is_named():
    frame = table()
    frame.loc[frame.sex == "f", "score"] *= 0.4
    block = evaluate_predictions(frame, sensitive="sex", n_resamples=40)
    want = demographic_parity_difference(
        frame.label, frame.score >= 0.5, sensitive_features=frame.sex
    )
    assert block["demographic_parity_difference"] == pytest.approx(want)
    assert want > 0.2
    told = [text for text in block["warnings"] if "reaches the threshold" in text]
    assert len(told) == 1
    assert told[0].startswith("No score of group 'f'")


def test_a_comparison_with_a_one_sided_table_is_undefined():
    ours, theirs = table(), table(scale=0.4)
    found = compare_metrics(ours, theirs, sensitive="sex", metrics=DIFFERENCES, n_resamples=40)
    for result in found.values():
        assert math.isnan(result.difference)
        assert all(map(math.isnan, (*result.ci, result.p_value)))
        assert any("The reference: No score reaches" in text for text in result.warnings)


def audit(frame, **changes):
    return audit_predictions(frame, **(COLUMNS | {"n_resamples": 40} | changes))


def test_scores_outside_0_and_1_have_no_threshold_unless_one_is_named():
    frame = table(scale=4, shift=-2)
    got = audit(frame)
    assert got["evaluation"]["threshold"] is None
    assert got["evaluation"]["equalized_odds_difference"] is None
    assert got["metrics"]["by_group"]["f"]["sensitivity"] is None
    assert got["metrics"]["by_group"]["f"]["ppv"] is None
    assert any("There is no threshold" in text for text in got["warnings"])
    assert got["evaluation"]["overall_auc_ci"] is not None
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    named = audit(frame, threshold=0.0)
    want = demographic_parity_difference(
        frame.label, frame.score >= 0, sensitive_features=frame.sex
    )
    assert named["evaluation"]["threshold"] == 0.0
    assert named["evaluation"]["demographic_parity_difference"] == pytest.approx(want)
    assert not any("threshold" in text for text in named["warnings"])
    assert audit(table())["evaluation"]["threshold"] == 0.5
