"""Paired comparison of two prediction tables on the same rows.

Two sources of chance are in the interval: the patients of the split and the training seeds. The
patients are drawn once per resample for both tables and all seeds, since they are the same people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fairtune_hf.metrics.bootstrap import (
    UNBOUNDED,
    bootstrap_interval,
    bootstrap_p_value,
    check_resamples,
)
from fairtune_hf.metrics.checks import (
    FloatArray,
    GroupCodes,
    check_labels,
    check_scores,
    check_threshold,
    group_codes,
)
from fairtune_hf.metrics.evaluation import few_patients, known_rows, patients_behind
from fairtune_hf.metrics.flags import is_levelling_down
from fairtune_hf.metrics.groups import measure_table
from fairtune_hf.metrics.registry import METRICS, ROWS, GroupMetrics, statistic
from fairtune_hf.metrics.resampled_table import ResampledTable
from fairtune_hf.metrics.resampling import draw_counts, patient_design
from fairtune_hf.metrics.seeds import combine_seeds, combine_unpaired


@dataclass(frozen=True)
class Comparison:
    """The paired difference of one metric between two tables of predictions."""

    metric: str = field(metadata={"help": "Name of the metric."})
    difference: float = field(metadata={"help": "Table minus reference, mean over the seeds."})
    ci: tuple[float, float] = field(
        metadata={
            "help": "95 % interval of the difference; NaN where too few patients stand behind."
        }
    )
    p_value: float = field(metadata={"help": "Two-sided, of a difference of 0."})
    n_seeds: int = field(
        metadata={
            "help": "Seeds of the table that has fewer. With 1 the chance of training is not in "
            "the interval."
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
class _Side:
    """One of the two: a table of the same rows for each seed, and the values of each on the data itself."""

    tables: dict[str, ResampledTable]
    measured: list[GroupMetrics]

    def points(self, metric: str) -> FloatArray:
        """Return the value of each seed."""
        return np.array([found.value(metric) for found in self.measured])


def compare_predictions(
    frame: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    sensitive: str,
    metric: str = "min_auc",
    n_resamples: int = 2000,
    seed: int = 0,
    threshold: float | None = 0.5,
) -> Comparison:
    """Compare two tables of predictions of the same rows, each of one or several seeds.

    Args:
        frame: Columns label, score, the group column, and where there are any row_id (else rows
            are paired by position), patient and seed.
        reference: The table to compare with, on the same rows. Seeds are paired if both tables
            have the same ones, else drawn independently.
        sensitive: Name of the group column.
        metric: A name of `METRICS` (min_auc, auc_gap, balanced_accuracy, log_loss, ...), or
            auc_<group>.
        n_resamples: Resamples of seeds and patients.
        seed: Seed of the resampling.
        threshold: A score at or above it is a positive prediction; None for no threshold.

    Returns:
        The difference frame - reference with a 95 % interval and a two-sided p-value. The
        interval is the percentile one of the resampled patients, with the seeds' spread added as
        Student's t (see `seeds.py`): with 2 or 3 seeds that differ it is wide, and rightly. For
        AUCs higher is better; for gaps, differences and losses lower is. NaN if a group has one
        class and the metric needs both, or all scores of a table lie on one side of the threshold and
        the metric compares groups there. No interval and no p-value, and a warning, if fewer than
        five patients of a class stand behind it. At a tie of the groups the test of min AUC and gap is too careful (it rejects in under 3 % of null cases).

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
    return compare_metrics(
        frame,
        reference,
        sensitive=sensitive,
        metrics=(metric,),
        n_resamples=n_resamples,
        seed=seed,
        threshold=threshold,
    )[metric]


def compare_metrics(
    frame: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    sensitive: str,
    metrics: Sequence[str],
    n_resamples: int = 2000,
    seed: int = 0,
    threshold: float | None = 0.5,
) -> dict[str, Comparison]:
    """Compare several metrics on the same resamples; see `compare_predictions`.

    Args:
        frame: As for `compare_predictions`.
        reference: As for `compare_predictions`.
        sensitive: Name of the group column.
        metrics: Names of metrics. Each value equals that of `compare_predictions`.
        n_resamples: Resamples of the patients.
        seed: Seed of the resampling.
        threshold: A score at or above it is a positive prediction.

    Raises:
        TypeError: As `compare_predictions`.
        ValueError: As `compare_predictions`.

    Example:
        >>> frame = pd.DataFrame({
        ...     "label": [0, 1] * 20, "score": [0.2, 0.8] * 20, "sex": ["f"] * 20 + ["m"] * 20,
        ... })
        >>> reference = frame.assign(score=0.5)
        >>> found = compare_metrics(
        ...     frame, reference, sensitive="sex", metrics=["min_auc", "brier"], n_resamples=50
        ... )
        >>> found["min_auc"].difference, round(found["brier"].difference, 2)
        (0.5, -0.21)
    """
    check_resamples(n_resamples)
    ours, theirs, told = _pair(frame, reference, sensitive, check_threshold(threshold))
    table = next(iter(ours.tables.values()))
    behind = patients_behind(table)
    draws = _resample(
        ours, theirs, metrics, draw_counts(table.design, n_resamples, np.random.default_rng(seed))
    )
    by_group, worst = _group_differences(ours.measured, theirs.measured)
    messages = _messages(told, table, ours, theirs)
    found = {}
    for metric in metrics:
        difference = float(ours.points(metric).mean()) - float(theirs.points(metric).mean())
        combined = np.full(n_resamples, np.nan)
        # What is undefined has no interval, whatever its resamples say.
        if not np.isnan(difference):
            n_patients = _smallest_count(behind, table.groups, metric)
            rng = np.random.default_rng([seed, 1])
            combined = _combine(ours, theirs, metric, draws[metric], n_patients, rng)
        is_share = metric not in METRICS or METRICS[metric].is_share
        found[metric] = Comparison(
            metric=metric,
            difference=difference,
            ci=bootstrap_interval(
                combined, estimate=difference, bounds=(-1.0, 1.0) if is_share else UNBOUNDED
            ),
            p_value=bootstrap_p_value(combined),
            n_seeds=min(len(ours.tables), len(theirs.tables)),
            n_patients=table.design.n_clusters,
            levelling_down=is_levelling_down(by_group, worst),
            group_differences=by_group,
            warnings=messages,
        )
    return found


def _pair(
    frame: pd.DataFrame, reference: pd.DataFrame, sensitive: str, threshold: float
) -> tuple[_Side, _Side, list[str]]:
    frame, messages = known_rows(frame, sensitive)
    reference, _ = known_rows(reference, sensitive)
    first, *sides = _by_seed(frame, "frame")
    second, *others = _by_seed(reference, "reference")
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
    design = patient_design(
        labels, groups, first["patient"].to_numpy() if "patient" in first else None
    )
    ours, theirs = (
        {
            key: ResampledTable(labels, score, groups, design, threshold)
            for key, score in side.items()
        }
        for side in (*sides, *others)
    )
    return (
        _Side(ours, [measure_table(table) for table in ours.values()]),
        _Side(theirs, [measure_table(table) for table in theirs.values()]),
        messages,
    )


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


def _resample(
    ours: _Side, theirs: _Side, metrics: Sequence[str], matrices: Iterator[FloatArray]
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return for each metric the draws (seeds, n_resamples) of the table and of the reference."""
    groups = next(iter(ours.tables.values())).groups
    statistics = {metric: statistic(metric, groups) for metric in metrics}
    parts: dict[str, list[list[FloatArray]]] = {metric: [[], []] for metric in metrics}
    for counts in matrices:
        for metric, value in statistics.items():
            for side, part in zip((ours, theirs), parts[metric], strict=True):
                part.append(np.stack([value(table, counts) for table in side.tables.values()]))
    return {
        metric: (np.concatenate(first, axis=1), np.concatenate(second, axis=1))
        for metric, (first, second) in parts.items()
    }


def _combine(
    ours: _Side,
    theirs: _Side,
    metric: str,
    draws: tuple[FloatArray, FloatArray],
    n_patients: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return draws (n_resamples,) of the difference, patients and seeds both varying."""
    points = ours.points(metric), theirs.points(metric)
    if list(ours.tables) == list(theirs.tables):
        return combine_seeds(draws[0] - draws[1], points[0] - points[1], rng, n_patients)
    return combine_unpaired((draws[0], points[0]), (draws[1], points[1]), rng, n_patients)


def _messages(
    told: list[str], table: ResampledTable, ours: _Side, theirs: _Side
) -> tuple[str, ...]:
    """Say what was left out, what is undefined and what no interval is given for."""
    found = [*told, *ours.measured[0].warnings, *few_patients(table)]
    for side, what in ((ours, ""), (theirs, "The reference: ")):
        found += [what + text for one in side.measured for text in one.threshold_warnings]
    found += _seed_messages(len(ours.tables), len(theirs.tables))
    return tuple(dict.fromkeys(found))


def _seed_messages(ours: int, theirs: int) -> list[str]:
    if min(ours, theirs) > 1:
        return []
    which = "Each table has" if max(ours, theirs) == 1 else "One table has"
    return [f"{which} one training seed: the chance of its training is not in the interval."]


def _smallest_count(behind: list[int], groups: GroupCodes, metric: str) -> int:
    """Return the patients of the rarer class, of the group that has fewest if groups matter."""
    if metric not in METRICS:
        return behind[1 + groups.names.index(metric.removeprefix("auc_"))]
    return behind[0] if METRICS[metric].of == ROWS else min(behind[1:])


def _group_differences(
    ours: list[GroupMetrics], theirs: list[GroupMetrics]
) -> tuple[dict[str, float], str]:
    """Return each group's AUC difference, and the group that is worst in the reference."""
    names = list(theirs[0].by_group)
    after = {name: np.mean([table.by_group[name].auc for table in ours]) for name in names}
    before = {name: np.mean([table.by_group[name].auc for table in theirs]) for name in names}
    worst = min(names, key=lambda name: (bool(np.isnan(before[name])), float(before[name])))
    return {name: float(after[name] - before[name]) for name in names}, worst
