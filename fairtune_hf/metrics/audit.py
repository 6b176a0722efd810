"""Audit a table of anyone's predictions: names of columns in, one JSON-able report out.

Owns the checks that a stranger's table needs, with messages in the names of her columns.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from fairtune_hf.metrics.arrays import check_labels, check_scores, group_codes, joined_groups
from fairtune_hf.metrics.calibration import are_probabilities, reliability_curve
from fairtune_hf.metrics.comparison import compare_metrics
from fairtune_hf.metrics.evaluation import evaluate_predictions, known_rows
from fairtune_hf.metrics.flags import collapse_flag
from fairtune_hf.metrics.groups import GroupMetrics, measure
from fairtune_hf.metrics.multiplicity import holm_p_values

COMPARED = ("overall_auc", "min_auc", "auc_gap")


def audit_predictions(
    frame: pd.DataFrame,
    *,
    label_column: str,
    score_column: str,
    sensitive_column: str | Sequence[str],
    patient_column: str | None = None,
    id_column: str | None = None,
    reference: pd.DataFrame | None = None,
    threshold: float = 0.5,
    n_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Audit the predictions of one model on one split, and compare them with a reference.

    Args:
        frame: The table, one row per prediction.
        label_column: Labels 0 and 1.
        score_column: Scores of class 1. Losses and calibration need probabilities.
        sensitive_column: The group column, or several for intersectional groups ("old+female").
            Rows without a group are left out, and a warning counts them.
        patient_column: Rows of one patient are resampled together. Without it each row is drawn
            alone, and a warning says so.
        id_column: Unique name of each row; by default row_id if the table has it.
        reference: Predictions of another model on the same rows, in the same columns; paired by
            id if both tables have one, else by position.
        threshold: A score at or above it is a positive prediction.
        n_resamples: Resamples behind the intervals.
        seed: Seed of the resampling.

    Returns:
        JSON-able: rows, sensitive, evaluation (as `validation` and `test` of run.json), metrics
        (every metric, overall and by_group), reliability (curves by group, None unless the scores
        are probabilities), collapse (a `CollapseFlag` as a dictionary, or None), comparisons (of
        overall AUC, min AUC and gap, with p-values by Holm over these three) and warnings. None
        where undefined.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If columns are missing, there are no rows, one class, other labels, NaN
            scores, or duplicated ids, or if the reference holds other rows.

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
    sensitive = [sensitive_column] if isinstance(sensitive_column, str) else list(sensitive_column)
    columns = {"label": label_column, "score": score_column}
    if patient_column is not None:
        columns["patient"] = patient_column
    table = _standard_table(frame, columns, sensitive, id_column, "frame")
    name = "+".join(sensitive)
    _check_both_classes(table["label"].to_numpy(), label_column)
    evaluation = evaluate_predictions(
        table, sensitive=name, threshold=threshold, n_resamples=n_resamples, seed=seed
    )
    known, _ = known_rows(table, name)
    flag = collapse_flag(
        evaluation["overall_auc"], evaluation["overall_auc_ci"], known["score"].to_numpy()
    )
    comparisons = []
    if reference is not None:
        other = _standard_table(reference, columns, sensitive, id_column, "reference")
        comparisons = _compare(table, other, name, (n_resamples, seed, threshold))
    return {
        "rows": len(frame),
        "sensitive": name,
        "evaluation": evaluation,
        "metrics": _every_metric(known, name, threshold),
        "reliability": _reliability(known, name),
        "collapse": None if flag is None else asdict(flag),
        "comparisons": comparisons,
        "warnings": evaluation["warnings"],
    }


def _standard_table(
    frame: pd.DataFrame,
    columns: dict[str, str],
    sensitive: list[str],
    id_column: str | None,
    what: str,
) -> pd.DataFrame:
    """Return the table with our column names, after all checks that need no statistics."""
    wanted = [*columns.values(), *sensitive, *([] if id_column is None else [id_column])]
    _check_columns(frame, wanted, what)
    if len(frame) == 0:
        raise ValueError(f"{what}: expected at least one row, got an empty table.")
    out = pd.DataFrame({
        "label": check_labels(frame[columns["label"]].to_numpy(), name=columns["label"]),
        "score": check_scores(
            frame[columns["score"]].to_numpy(), len(frame), name=columns["score"]
        ),
        "+".join(sensitive): joined_groups([frame[name] for name in sensitive]),
    })  # fmt: skip
    if "patient" in columns:
        out["patient"] = frame[columns["patient"]].to_numpy()
    key = id_column or ("row_id" if "row_id" in frame.columns else None)
    if key is not None:
        repeated = frame[key][frame[key].duplicated()]
        if len(repeated):
            raise ValueError(
                f"{what}: expected each {key} once, got {len(repeated)} repeated, for example "
                f"{repeated.iloc[0]!r}. Keep one split and one seed, and drop duplicates."
            )
        out["row_id"] = frame[key].to_numpy()
    return out


def _check_columns(frame: pd.DataFrame, wanted: list[str], what: str) -> None:
    present = [str(name) for name in frame.columns]
    absent = [name for name in wanted if name not in present]
    if not absent:
        return
    hints = [difflib.get_close_matches(name, present, n=1) for name in absent]
    close = ", ".join(f"{hint[0]!r}" for hint in hints if hint)
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


def _every_metric(table: pd.DataFrame, name: str, threshold: float) -> dict[str, Any]:
    found = measure(
        check_labels(table["label"].to_numpy()),
        check_scores(table["score"].to_numpy(), len(table)),
        group_codes(table[name], len(table), name=name),
        threshold,
    )
    return _without_nan(found)


def _without_nan(found: GroupMetrics) -> dict[str, Any]:
    values: dict[str, Any] = _json_able(asdict(found))
    values.pop("warnings")
    return values


def _json_able(value: Any) -> Any:
    """Return the value with None for NaN and lists for tuples, at any depth."""
    if isinstance(value, dict):
        return {key: _json_able(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_json_able(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _reliability(table: pd.DataFrame, name: str) -> dict[str, Any] | None:
    if not are_probabilities(table["score"].to_numpy()):
        return None
    return {
        str(group): _json_able(asdict(reliability_curve(part["label"], part["score"])))
        for group, part in table.groupby(name, sort=True)
    }


def _compare(
    table: pd.DataFrame, other: pd.DataFrame, name: str, settings: tuple[int, int, float]
) -> list[dict[str, Any]]:
    n_resamples, seed, threshold = settings
    found = compare_metrics(
        table,
        other,
        sensitive=name,
        metrics=COMPARED,
        n_resamples=n_resamples,
        seed=seed,
        threshold=threshold,
    ).values()
    adjusted = holm_p_values({result.metric: result.p_value for result in found})
    return [
        _json_able(
            {
                "metric": result.metric,
                "difference": result.difference,
                "ci": None if math.isnan(result.ci[0]) else result.ci,
                "p_value": result.p_value,
                "p_value_holm": adjusted[result.metric],
                "n_patients": result.n_patients,
                "levelling_down": result.levelling_down,
            }
        )
        for result in found
    ]
