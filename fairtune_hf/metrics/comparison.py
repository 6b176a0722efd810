"""Paired comparison of two prediction tables on the same rows.

Two sources of chance are resampled: the training seeds and the patients of the split. The patients
are drawn once per resample for both tables and for all seeds, since they are the same people.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fairtune_hf.metrics.arrays import (
    FloatArray,
    GroupCodes,
    IntArray,
    check_choice,
    check_labels,
    check_scores,
    check_threshold,
    group_codes,
)
from fairtune_hf.metrics.bootstrap import check_resamples, percentile_interval
from fairtune_hf.metrics.evaluation import known_rows
from fairtune_hf.metrics.groups import GroupMetrics, measure
from fairtune_hf.metrics.resampling import (
    Design,
    ResampledTable,
    draw_counts,
    patient_design,
    spread,
)

Statistic = Callable[[ResampledTable, FloatArray], FloatArray]

_STATISTICS: dict[str, Statistic] = {
    "overall_auc": lambda table, counts: table.aucs(counts)[0],
    "min_auc": lambda table, counts: table.aucs(counts)[1:].min(axis=0),
    "max_auc": lambda table, counts: table.aucs(counts)[1:].max(axis=0),
    "auc_gap": lambda table, counts: spread(table.aucs(counts)[1:]),
    "equalized_odds_difference": lambda table, counts: spread(table.rates(counts)[1:]).max(axis=0),
    "demographic_parity_difference": lambda table, counts: spread(table.rates(counts)[0]),
}


@dataclass(frozen=True)
class Comparison:
    """The paired difference of one metric between two tables of predictions."""

    metric: str = field(metadata={"help": "Name of the metric."})
    difference: float = field(metadata={"help": "Table minus reference, mean over the seeds."})
    ci: tuple[float, float] = field(metadata={"help": "95 % interval of the difference."})
    p_value: float = field(metadata={"help": "Two-sided, of a difference of 0."})
    n_seeds: int = field(
        metadata={
            "help": "Seeds of the table with fewer; with 1, the chance of "
            "training is not in the interval."
        }
    )
    n_patients: int = field(metadata={"help": "Patients drawn from."})
    levelling_down: bool = field(
        metadata={"help": "Whether parity was bought with losses; see `is_levelling_down`."}
    )
    group_differences: dict[str, float] = field(
        metadata={"help": "AUC difference of each group, mean over the seeds."}
    )
    warnings: tuple[str, ...] = field(metadata={"help": "What was left out or is undefined."})


@dataclass(frozen=True)
class _Paired:
    """Rows in one order, with the scores of each seed as rows of a matrix."""

    labels: IntArray
    groups: GroupCodes
    patients: object | None
    scores: dict[str, FloatArray]
    reference_scores: dict[str, FloatArray]
    messages: tuple[str, ...]


def compare_predictions(
    frame: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    sensitive: str,
    metric: str = "min_auc",
    n_resamples: int = 2000,
    seed: int = 0,
    threshold: float = 0.5,
) -> Comparison:
    """Compare two tables of predictions of the same rows, each of one or several seeds.

    Args:
        frame: Columns label, score, the group column, and where there are any row_id (else rows
            are paired by position), patient and seed.
        reference: The table to compare with, on the same rows. Seeds are paired if both tables
            have the same ones, else drawn independently.
        sensitive: Name of the group column.
        metric: One of overall_auc, min_auc, max_auc, auc_gap, equalized_odds_difference,
            demographic_parity_difference.
        n_resamples: Resamples of seeds and patients.
        seed: Seed of the resampling.
        threshold: A score at or above it is a positive prediction.

    Returns:
        The difference frame - reference with a 95 % percentile interval and a two-sided p-value.
        For min_auc, max_auc and AUCs higher is better; for the gap and the differences lower is.
        All NaN if a group has one class and the metric needs both.

    Raises:
        TypeError: If labels or scores are not numbers.
        ValueError: If columns are missing, the tables hold different rows, labels or groups, a
            row appears twice within a seed, or the metric is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> label = np.arange(200) % 2
        >>> base = pd.DataFrame({
        ...     "row_id": [str(i) for i in range(200)], "label": label, "patient": range(200),
        ...     "sex": np.where(np.arange(200) < 100, "f", "m"), "score": rng.random(200),
        ... })
        >>> better = base.assign(score=base["score"] + 0.5 * label)
        >>> result = compare_predictions(better, base, sensitive="sex", n_resamples=200)
        >>> result.difference > 0.2, result.p_value < 0.05, result.n_seeds
        (True, True, 1)
    """
    check_choice("metric", metric, tuple(_STATISTICS))
    check_resamples(n_resamples)
    check_threshold(threshold)
    paired = _pair(frame, reference, sensitive)
    design = patient_design(paired.labels, paired.groups, paired.patients)
    ours = [measure(paired.labels, s, paired.groups, threshold) for s in paired.scores.values()]
    theirs = [
        measure(paired.labels, s, paired.groups, threshold)
        for s in paired.reference_scores.values()
    ]
    draws = _resampled_differences(paired, design, metric, threshold, n_resamples, seed)
    by_group, worst = _group_differences(ours, theirs)
    return Comparison(
        metric=metric,
        difference=float(_mean(ours, metric) - _mean(theirs, metric)),
        ci=percentile_interval(draws),
        p_value=two_sided_p_value(draws),
        n_seeds=min(len(ours), len(theirs)),
        n_patients=design.n_clusters,
        levelling_down=is_levelling_down(by_group, worst),
        group_differences=by_group,
        warnings=tuple(dict.fromkeys([*paired.messages, *ours[0].warnings])),
    )


def two_sided_p_value(draws: FloatArray) -> float:
    """Return the p-value of a difference of 0 from resampled differences, at least 1/(n + 1).

    It is below 5 % when the 95 % percentile interval leaves out 0. Ties with 0 count for both
    sides. NaN if no resample is defined.

    Example:
        >>> two_sided_p_value(np.array([1.0] * 99))
        0.02
    """
    defined = draws[~np.isnan(draws)]
    if defined.size == 0:
        return float("nan")
    below = (np.sum(defined <= 0) + 1) / (defined.size + 1)
    above = (np.sum(defined >= 0) + 1) / (defined.size + 1)
    return float(min(1.0, 2 * min(below, above)))


def is_levelling_down(differences: dict[str, float], worst: str) -> bool:
    """Tell whether parity was bought with losses.

    True if every group lost against the reference, or if the group that was worst in the reference
    gained (or held) less than the other groups lost on average.

    Args:
        differences: Change of each group's AUC against the reference; NaN is passed over.
        worst: Name of the group that is worst in the reference.

    Source: Mittelstadt, Wachter and Russell 2023, The Unfairness of Fair Machine Learning.

    Example:
        >>> is_levelling_down({"f": 0.01, "m": -0.05}, "f")
        True
        >>> is_levelling_down({"f": 0.04, "m": -0.01}, "f")
        False
    """
    defined = {name: value for name, value in differences.items() if not np.isnan(value)}
    if not defined:
        return False
    if all(value < 0 for value in defined.values()):
        return True
    others = [value for name, value in defined.items() if name != worst]
    if worst not in defined or not others:
        return False
    lost = -float(np.mean(others))
    return bool(0 <= defined[worst] < lost)


def _pair(frame: pd.DataFrame, reference: pd.DataFrame, sensitive: str) -> _Paired:
    frame, messages = known_rows(frame, sensitive)
    reference, _ = known_rows(reference, sensitive)
    first, scores = _by_seed(frame, "frame")
    second, reference_scores = _by_seed(reference, "reference")
    labels = check_labels(first["label"].to_numpy(), name="label")
    same = len(first) == len(second) and all(
        list(first[name].astype(str)) == list(second[name].astype(str))
        for name in ("row_id", "label", sensitive)
        if name in first and name in second
    )
    if not same:
        raise ValueError(
            f"reference: expected the same rows, labels and groups as frame ({len(first)} rows), "
            f"got {len(second)} rows that differ. Predict the same split with both models."
        )
    groups = group_codes(first[sensitive], labels.size, name=sensitive)
    patients = first["patient"].to_numpy() if "patient" in first else None
    return _Paired(labels, groups, patients, scores, reference_scores, tuple(messages))


def _by_seed(frame: pd.DataFrame, name: str) -> tuple[pd.DataFrame, dict[str, FloatArray]]:
    """Return the rows of one seed, sorted by row_id, and the scores of every seed in that order."""
    seeds = frame["seed"] if "seed" in frame else pd.Series(0, index=frame.index)
    parts: dict[str, pd.DataFrame] = {}
    for key, part in frame.groupby(seeds, sort=True):
        if "row_id" in part:
            if part["row_id"].duplicated().any():
                row = part.loc[part["row_id"].duplicated(), "row_id"].iloc[0]
                raise ValueError(
                    f"{name}: expected each row_id once per seed, got {row!r} twice in seed {key}. "
                    f"Keep one split and drop duplicates."
                )
            part = part.sort_values("row_id")
        parts[str(key)] = part
    if not parts:
        raise ValueError(f"{name}: expected at least one row with a group, got none.")
    first = next(iter(parts.values()))
    for key, part in parts.items():
        if len(part) != len(first) or (
            "row_id" in part and list(part["row_id"]) != list(first["row_id"])
        ):
            raise ValueError(
                f"{name}: expected the same rows for each seed, got others for seed {key}. "
                f"Predict the same split with each seed."
            )
    return first, {
        key: check_scores(part["score"].to_numpy(), len(first), name="score")
        for key, part in parts.items()
    }


def _resampled_differences(
    paired: _Paired, design: Design, metric: str, threshold: float, n_resamples: int, seed: int
) -> FloatArray:
    def tables(scores: dict[str, FloatArray]) -> list[ResampledTable]:
        return [
            ResampledTable(paired.labels, values, paired.groups, design, threshold)
            for values in scores.values()
        ]

    ours, theirs = tables(paired.scores), tables(paired.reference_scores)
    statistic = _STATISTICS[metric]
    patients, training = (np.random.default_rng(child) for child in _streams(seed))
    left, right = [], []
    for counts in draw_counts(design, n_resamples, patients):
        left.append(np.stack([statistic(table, counts) for table in ours]))
        right.append(np.stack([statistic(table, counts) for table in theirs]))
    weights = _seed_weights(len(ours), n_resamples, training)
    same_seeds = list(paired.scores) == list(paired.reference_scores)
    other = weights if same_seeds else _seed_weights(len(theirs), n_resamples, training)
    first = (np.concatenate(left, axis=1) * weights).sum(axis=0)
    second = (np.concatenate(right, axis=1) * other).sum(axis=0)
    return np.asarray(first - second, dtype=np.float64)


def _streams(seed: int) -> list[np.random.SeedSequence]:
    return np.random.SeedSequence(seed).spawn(2)


def _seed_weights(n_seeds: int, n_resamples: int, rng: np.random.Generator) -> FloatArray:
    """Return (seeds, resamples): the share of each training seed in each resample."""
    drawn = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples)
    return np.asarray(drawn.T / n_seeds, dtype=np.float64)


def _mean(tables: list[GroupMetrics], metric: str) -> float:
    return float(np.mean([getattr(table, metric) for table in tables]))


def _group_differences(
    ours: list[GroupMetrics], theirs: list[GroupMetrics]
) -> tuple[dict[str, float], str]:
    """Return each group's AUC difference, and the group that is worst in the reference."""
    names = list(theirs[0].by_group)
    after = {name: np.mean([table.by_group[name].auc for table in ours]) for name in names}
    before = {name: np.mean([table.by_group[name].auc for table in theirs]) for name in names}
    worst = min(names, key=lambda name: (bool(np.isnan(before[name])), float(before[name])))
    return {name: float(after[name] - before[name]) for name in names}, worst
