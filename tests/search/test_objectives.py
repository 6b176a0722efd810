"""Objectives against numbers computed another way."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from fairtune_hf.metrics.checks import GroupCodes
from fairtune_hf.search.objectives import ObjectiveMetrics, Rows, parse_objectives, read_objectives


@pytest.fixture
def rows() -> Rows:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 300)
    codes = generator.integers(0, 2, 300)
    scores = 1 / (1 + np.exp(-generator.normal(labels * (1 + codes), 1.5)))
    groups = GroupCodes(codes.astype(np.int64), ("f", "m"))
    return Rows(labels=labels, scores=scores, groups=groups, patients=np.arange(300) // 2)


def value(rows: Rows, name: str) -> float:
    (objective,) = parse_objectives(name)
    return rows.value(objective)


def test_values_equal_those_of_plain_numpy(rows: Rows) -> None:
    parts = [rows.groups.codes == code for code in (0, 1)]
    aucs = [roc_auc_score(rows.labels[part], rows.scores[part]) for part in parts]
    losses = [log_loss(rows.labels[part], rows.scores[part]) for part in parts]
    assert value(rows, "min_auc") == pytest.approx(min(aucs))
    assert value(rows, "auc_gap") == pytest.approx(abs(aucs[0] - aucs[1]))
    assert value(rows, "max_group_loss") == pytest.approx(max(losses))
    assert value(rows, "auc_m") == pytest.approx(aucs[1])


def test_sensitivity_at_a_specificity_by_hand(rows: Rows) -> None:
    negatives = np.sort(rows.scores[rows.labels == 0])
    # The lowest threshold with at least 90 % of the negatives below it.
    candidates = [s for s in np.unique(rows.scores) if np.mean(negatives < s) >= 0.9]
    hit = rows.scores >= candidates[0]
    by_group = [hit[(rows.labels == 1) & (rows.groups.codes == code)].mean() for code in (0, 1)]
    assert value(rows, "min_sensitivity_at_specificity") == pytest.approx(min(by_group))
    assert value(rows, "min_sensitivity_at_specificity_0.5") > value(
        rows, "min_sensitivity_at_specificity"
    )


def test_a_bound_lies_on_the_bad_side_by_about_its_standard_errors(rows: Rows) -> None:
    for name, worse in (("overall_auc", -1), ("max_group_loss", 1)):
        (plain,) = parse_objectives(name)
        distance = value(rows, f"{name}_lcb") - value(rows, name)
        assert distance * worse > 0
        # One in ten beyond: 1.28 standard errors of a normal distribution.
        assert abs(distance) == pytest.approx(1.28 * rows.standard_error(plain), rel=0.5)


def smallest_score(y_true: np.ndarray, y_score: np.ndarray, *, sensitive_features: object) -> float:
    assert set(np.unique(np.asarray(sensitive_features))) == {"f", "m"}
    return float(y_score.min())


def test_a_function_of_ones_own_by_its_dotted_name(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(smallest=smallest_score)
    monkeypatch.setitem(__import__("sys").modules, "my_metrics", module)
    (objective,) = parse_objectives("minimize:my_metrics.smallest")
    assert (objective.direction, objective.name) == ("minimize", "my_metrics.smallest")
    assert rows.value(objective) == rows.scores.min()
    assert rows.standard_error(objective) >= 0


def test_several_objectives_keep_their_order_and_directions() -> None:
    objectives = parse_objectives("min_auc, trainable_parameters,auc_gap")
    assert [o.direction for o in objectives] == ["maximize", "minimize", "minimize"]
    metrics = {"eval_min_auc": 0.7, "eval_auc_gap": 0.1}
    assert read_objectives(objectives, metrics, 12) == [0.7, 12.0, 0.1]
    assert read_objectives(objectives[:1], metrics, 12) == 0.7


def test_an_objective_that_is_not_a_number_fails_the_trial() -> None:
    with pytest.raises(FloatingPointError, match="min_auc"):
        read_objectives(parse_objectives("min_auc"), {"eval_min_auc": float("nan")}, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("min_acu", "Did you mean min_auc"),
        ("minimize:min_auc", "is to be maximized"),
        ("up:min_auc", "maximize: or minimize:"),
        ("min_auc,min_auc", "different objectives"),
        ("no.such.function", "can be imported"),
        ("math.pi", "a float"),
        ("trainable_parameters_lcb", "expected a metric"),
        ("selection_rate", "expected a metric"),
    ],
)
def test_what_cannot_be_an_objective_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_objectives(text)


def test_an_epoch_that_calls_nobody_positive_has_the_worst_parity_not_the_best(rows: Rows) -> None:
    names = ("equalized_odds_difference", "demographic_parity_difference_lcb", "auc_gap")
    table = SimpleNamespace(
        labels=rows.labels, groups=rows.groups.names, group_codes=rows.groups.codes,
        patients=rows.patients,
    )  # fmt: skip
    metrics = ObjectiveMetrics(parse_objectives(",".join(names)), table)  # type: ignore[arg-type]
    for below, told in ((3.0, True), (0.0, False)):
        logits = np.log(rows.scores / (1 - rows.scores)) * (1 - told * 0.99) - below
        evaluated = SimpleNamespace(
            predictions=np.column_stack([np.zeros(len(logits)), logits]),
            label_ids=(rows.labels, rows.groups.codes),
        )
        found = metrics(evaluated)
        assert [found[name] == 1.0 for name in names] == [told, told, False]


def few_rows(labels: str, codes: str) -> SimpleNamespace:
    """A validation table of one row a patient, from digits."""
    both = [np.array([int(digit) for digit in text]) for text in (labels, codes)]
    return SimpleNamespace(
        labels=both[0], groups=("f", "m"), group_codes=both[1], patients=np.arange(len(labels))
    )


FEW = few_rows(labels="1111" + "0" * 9 + "1" * 9 + "0" * 9, codes="0" * 13 + "1" * 18)


@pytest.mark.parametrize("name", ["min_auc", "auc_gap", "auc_f", "demographic_parity_difference"])
def test_a_bound_that_too_few_patients_stand_behind_is_refused_before_any_trial(name: str) -> None:
    words = (
        rf"at least 5 validation patients .* {name}_lcb, and group 'f' has 4 with the label and 9 "
        rf"without\. Choose {name} itself"
    )
    with pytest.raises(ValueError, match=words):
        ObjectiveMetrics(parse_objectives(f"overall_auc,{name}_lcb"), FEW)  # type: ignore[arg-type]
    ObjectiveMetrics(parse_objectives(name), FEW)  # type: ignore[arg-type]


def test_a_bound_is_judged_by_the_patients_that_it_is_of() -> None:
    for name in ("overall_auc_lcb", "auc_m_lcb"):
        ObjectiveMetrics(parse_objectives(name), FEW)  # type: ignore[arg-type]
    pictures = few_rows(labels="1" * 12 + "0" * 12, codes="01" * 12)
    pictures.patients = np.repeat(np.arange(8), 3)  # many pictures of four patients with the label
    with pytest.raises(ValueError, match="the split has 4 with the label and 4 without"):
        ObjectiveMetrics(parse_objectives("overall_auc_lcb"), pictures)  # type: ignore[arg-type]
