"""Audit a table of anyone's predictions: names of columns in, one JSON-able report out.

Owns the checks that a stranger's table needs, with messages in the names of her columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from fairtune_hf.ages import DEFAULT_THRESHOLD
from fairtune_hf.json_values import json_able
from fairtune_hf.metrics.audit_columns import (
    ColumnRules,
    attribute_groups,
    label_values,
    split_attributes,
)
from fairtune_hf.metrics.calibration import are_probabilities, reliability_curve
from fairtune_hf.metrics.checks import (
    FloatArray,
    check_labels,
    check_scores,
    check_threshold,
    group_codes,
)
from fairtune_hf.metrics.comparison import Comparison, compare_metrics
from fairtune_hf.metrics.delong import delong_difference
from fairtune_hf.metrics.evaluation import evaluate_predictions, known_rows
from fairtune_hf.metrics.flags import collapse_flag
from fairtune_hf.metrics.groups import measure
from fairtune_hf.metrics.multiplicity import holm_p_values
from fairtune_hf.metrics.registry import TEST, shown_in
from fairtune_hf.naming import closest_name


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The keywords of `audit_predictions`, explained there."""

    label_column: str
    score_column: str
    sensitive_column: str | Sequence[str]
    patient_column: str | None = None
    id_column: str | None = None
    threshold: float | None = None
    n_resamples: int = 2000
    seed: int = 0
    positive_label: str | None = None
    age_threshold: str = DEFAULT_THRESHOLD
    age_boundary: str = "gt"
    unknown: str = "drop"

    @property
    def columns(self) -> dict[str, str]:
        """Our name of a column -> the table's."""
        found = {"label": self.label_column, "score": self.score_column}
        return found if self.patient_column is None else {**found, "patient": self.patient_column}

    @cached_property
    def rules(self) -> ColumnRules:
        """How the columns are read."""
        return ColumnRules(
            positive_label="" if self.positive_label is None else str(self.positive_label),
            age_threshold=self.age_threshold,
            age_boundary=self.age_boundary,
            unknown=self.unknown,
        )


def audit_predictions(
    frame: pd.DataFrame, *, reference: pd.DataFrame | None = None, **settings: Any
) -> dict[str, Any]:
    """Audit the predictions of one model on one split, and compare them with a reference.

    Args:
        frame: The table, one row per prediction.
        reference: Predictions of another model on the same rows, in the same columns; paired by
            id if both tables have one, else by position.
        **settings: As follows; the first three are needed.
        label_column: Labels: 0 and 1, or two words, of which a negation ("no glaucoma", "benign")
            is 0 as in data sets; a warning says which word was taken as 1 where neither tells.
        score_column: Scores of class 1. Losses and calibration need probabilities.
        sensitive_column: The group column. "sex+age", or a list, crosses columns into groups such as
            "F+>60"; "sex,age" are two attributes, audited one after the other. Numbers of many values
            and ages in years are cut at `age_threshold`. Rows without a group, or with a word that
            says it is not known, are left out; warnings count them.
        patient_column: Rows of one patient are resampled together. Without it each row is drawn
            alone, and a warning says so.
        id_column: Unique name of each row; by default row_id if the table has it.
        threshold: A score at or above it is a positive prediction. None is 0.5 for probabilities; for
            scores outside [0, 1] it is no threshold, and all that needs one is None.
        n_resamples: Resamples behind the intervals.
        seed: Seed of the resampling.
        positive_label: The value of the label column that is label 1.
        age_threshold: Cuts of ages, such as "60" or "40,60".
        age_boundary: "gt" puts an age at a cut into the lower group, "ge" into the upper one.
        unknown: Rows of unknown group: "drop", "group" (a group of their own) or "error".

    Returns:
        JSON-able: rows, label_names (the values of labels 0 and 1, None for numbers), sensitive, evaluation (as `validation` and `test` of run.json), metrics
        (every metric, overall and by_group), reliability (curves by group, None unless the scores
        are probabilities), collapse (a `CollapseFlag` as a dictionary, or None), comparisons (of
        overall AUC, min AUC and gap, with p-values by Holm over these three; that of overall AUC with
        DeLong's p-value too where each patient has one row) and warnings. None
        where undefined. With several attributes all this of the first one, and `attributes`: the same
        of each by name.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If columns are missing, there are no rows, one class, one group, more labels than
            two, NaN scores, or duplicated ids, or if the reference holds other rows.

    Example:
        >>> frame = pd.DataFrame({
        ...     "y": [0, 1, 0, 1] * 5, "p": [0.1, 0.9, 0.6, 0.4] * 5, "sex": list("ffmm") * 5,
        ... })
        >>> report = audit_predictions(
        ...     frame, label_column="y", score_column="p", sensitive_column="sex", n_resamples=50
        ... )
        >>> report["evaluation"]["min_auc"], report["metrics"]["by_group"]["f"]["sensitivity"]
        (0.0, 1.0)
    """
    asked = _Settings(**settings)
    asked.rules  # noqa: B018 - a wrong rule is said before any table is looked at
    attributes = split_attributes(asked.sensitive_column, [str(name) for name in frame.columns])
    reports = {"+".join(p): _audit_attribute(frame, reference, p, asked) for p in attributes}
    first = next(iter(reports.values()))
    return first if len(reports) == 1 else {**first, "attributes": reports}


def _audit_attribute(
    frame: pd.DataFrame, reference: pd.DataFrame | None, parts: list[str], settings: _Settings
) -> dict[str, Any]:
    table, label_names, notes = _standard_table(frame, parts, settings, "frame")
    name = "+".join(parts)
    _check_both_classes(table["label"].to_numpy(), settings.columns["label"])
    known, _ = known_rows(table, name)
    _check_groups(known[name], name)
    threshold = _threshold(known["score"].to_numpy(), settings.threshold)
    numbers: dict[str, Any] = {
        "n_resamples": settings.n_resamples,
        "seed": settings.seed,
        "threshold": threshold,
    }
    evaluation = evaluate_predictions(table, sensitive=name, **numbers)
    evaluation["warnings"] = [*notes, *evaluation["warnings"]]
    warnings = evaluation["warnings"]
    flag = collapse_flag(
        evaluation["overall_auc"], evaluation["overall_auc_ci"], known["score"].to_numpy()
    )
    comparisons: list[dict[str, Any]] = []
    if reference is not None:
        other, _, _ = _standard_table(reference, parts, settings, "reference")
        comparisons, told = _compare(table, other, name, numbers)
        warnings = list(dict.fromkeys([*warnings, *told]))
    return {
        "rows": len(frame),
        "label_names": None if label_names is None else list(label_names),
        "sensitive": name,
        "evaluation": evaluation,
        "metrics": _every_metric(known, name, threshold),
        "reliability": _reliability(known, name),
        "collapse": None if flag is None else asdict(flag),
        "comparisons": comparisons,
        "warnings": warnings,
    }


def _threshold(scores: FloatArray, named: float | None) -> float | None:
    """Return the threshold named, else 0.5 for probabilities and none for other scores."""
    return 0.5 if named is None and are_probabilities(scores) else named


def _standard_table(
    frame: pd.DataFrame, parts: list[str], settings: _Settings, what: str
) -> tuple[pd.DataFrame, tuple[str, str] | None, list[str]]:
    """Return the table with our column names after all checks that need no statistics, and what was read into it."""
    columns, id_column = settings.columns, settings.id_column
    wanted = [*columns.values(), *parts, *([] if id_column is None else [id_column])]
    _check_columns(frame, wanted, what)
    if len(frame) == 0:
        raise ValueError(f"{what}: expected at least one row, got an empty table.")
    labels, label_names, notes = label_values(
        frame[columns["label"]], columns["label"], settings.rules
    )
    scores = check_scores(frame[columns["score"]].to_numpy(), len(frame), name=columns["score"])
    groups, told = attribute_groups(frame, parts, settings.rules)
    out = pd.DataFrame({"label": labels, "score": scores, "+".join(parts): groups})
    if "patient" in columns:
        out["patient"] = frame[columns["patient"]].to_numpy()
    key = id_column or ("row_id" if "row_id" in frame.columns else None)
    if key is not None:
        _check_ids(frame[key], key, what)
        out["row_id"] = frame[key].to_numpy()
    return out, label_names, [*notes, *told]


def _check_ids(ids: pd.Series, key: str, what: str) -> None:
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise ValueError(
            f"{what}: expected each {key} once, got {len(repeated)} repeated, for example "
            f"{repeated.iloc[0]!r}. Keep one split and one seed, and drop duplicates."
        )


def _check_groups(groups: pd.Series, name: str) -> None:
    found = groups.unique()
    if len(found) < 2:
        what = f"only {found[0]!r}" if len(found) else "none that is known"
        raise ValueError(
            f"{name}: expected two groups or more, got {what} in {len(groups)} rows: nothing can be "
            f"compared. Choose another column, or other cuts of ages."
        )


def _check_columns(frame: pd.DataFrame, wanted: list[str], what: str) -> None:
    present = [str(name) for name in frame.columns]
    absent = [name for name in wanted if name not in present]
    if not absent:
        return
    close = ", ".join(repr(hint) for name in absent if (hint := closest_name(name, present)))
    raise ValueError(
        f"{what}: expected the columns {', '.join(map(repr, wanted))}, but "
        f"{', '.join(map(repr, absent))} is missing among {', '.join(map(repr, present))}."
        + (f" Did you mean {close}?" if close else " Name the columns of your table.")
    )


def _check_both_classes(labels: Any, column: str) -> None:
    if labels.min() == labels.max():
        raise ValueError(
            f"{column}: expected both classes 0 and 1, got {labels[0]} in all {labels.size} rows. "
            f"Nothing can be measured on one class; take the whole split."
        )


def _every_metric(table: pd.DataFrame, name: str, threshold: float | None) -> dict[str, Any]:
    found = measure(
        check_labels(table["label"].to_numpy()),
        check_scores(table["score"].to_numpy(), len(table)),
        group_codes(table[name], len(table), name=name),
        check_threshold(threshold),
    )
    values: dict[str, Any] = json_able(asdict(found))
    values.pop("warnings")
    values.pop("threshold_warnings")
    return values


def _reliability(table: pd.DataFrame, name: str) -> dict[str, Any] | None:
    if not are_probabilities(table["score"].to_numpy()):
        return None
    return {
        str(group): json_able(asdict(reliability_curve(part["label"], part["score"])))
        for group, part in table.groupby(name, sort=True)
    }


def _compare(
    table: pd.DataFrame, other: pd.DataFrame, name: str, numbers: dict[str, Any]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the comparisons, and what is to be said of them."""
    found = compare_metrics(table, other, sensitive=name, metrics=shown_in(TEST), **numbers)
    adjusted = holm_p_values({metric: result.p_value for metric, result in found.items()})
    rows = [_compared(result, adjusted[metric]) for metric, result in found.items()]
    if "patient" in table and table["patient"].is_unique:  # DeLong's test is of independent rows
        key = ["row_id"] if "row_id" in table and "row_id" in other else []
        ours, theirs = (
            known_rows(part, name)[0].sort_values(key or "label", kind="stable")
            for part in (table, other)
        )
        p_value = delong_difference(ours["label"], ours["score"], theirs["score"]).p_value
        next(row for row in rows if row["metric"] == "overall_auc")["p_value_delong"] = json_able(
            p_value
        )
    return rows, next(iter(found.values())).warnings


def _compared(result: Comparison, adjusted: float) -> dict[str, Any]:
    row: dict[str, Any] = json_able({
        "metric": result.metric,
        "difference": result.difference,
        "ci": None if math.isnan(result.ci[0]) else result.ci,
        "p_value": result.p_value,
        "p_value_holm": adjusted,
        "n_patients": result.n_patients,
        "levelling_down": result.levelling_down,
    })  # fmt: skip
    return row
