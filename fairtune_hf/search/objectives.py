"""What a trial is judged by: metrics with their directions, confidence bounds, a user's own function.

Values come from the whole validation split in one pass, through the metrics package.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fairtune_hf.data import ImageTable
from fairtune_hf.metrics.bootstrap import FEWEST_PATIENTS, bootstrap_interval
from fairtune_hf.metrics.checks import GroupCodes
from fairtune_hf.metrics.groups import measure, one_sided
from fairtune_hf.metrics.operating import choose_operating_point
from fairtune_hf.metrics.registry import (
    BOUND,
    METRICS,
    OBJECTIVES,
    ROWS,
    TRAINABLE,
    is_small_good,
    statistic,
)
from fairtune_hf.metrics.resampled_table import ResampledTable
from fairtune_hf.metrics.resampling import (
    Design,
    class_patients,
    draw_counts,
    patient_design,
    rarer_class_patients,
)
from fairtune_hf.metrics.trainer_metrics import ComputeMetrics, positive_probability
from fairtune_hf.naming import closest_name

MAXIMIZE, MINIMIZE = "maximize", "minimize"
# Of a model that calls nobody, or everybody, positive a difference at the threshold is undefined: it would
# be 0, the best value there is. Such an epoch counts as the worst instead, so that a search never ends on one.
_WORST_PARITY = 1.0
_AT_SPECIFICITY = re.compile(r"min_sensitivity_at_specificity(?:_(0?\.\d+))?")
_BOUND_CONFIDENCE = 0.8  # two-sided, so that one value in ten lies beyond the bound
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Objective:
    """One metric and where it should go."""

    name: str = field(metadata={"help": "As the user wrote it, without the direction."})
    direction: str = field(metadata={"help": "maximize or minimize."})
    function: Callable[..., float] | None = field(
        default=None, compare=False, metadata={"help": "A user's own; None for known metrics."}
    )

    @property
    def sign(self) -> int:
        """1 where large is good, -1 where small is."""
        return 1 if self.direction == MAXIMIZE else -1

    @property
    def is_bound(self) -> bool:
        """Whether this is a confidence bound of a metric."""
        return self.function is None and self.name.endswith(BOUND)

    @property
    def metric(self) -> str:
        """The metric behind a bound; else the name."""
        return self.name.removesuffix(BOUND) if self.is_bound else self.name


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Read `--objective`: names parted by commas, each perhaps after `maximize:` or `minimize:`.

    Raises:
        ValueError: An unknown name, with the closest one, a function that cannot be imported, a direction that
            contradicts the metric's own, or the same name twice.
    """
    found = tuple(_parse_one(word.strip()) for word in text.split(","))
    names = [objective.name for objective in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"--objective: expected different objectives, got {text!r}. Name each once."
        )
    return found


def _parse_one(word: str) -> Objective:
    given, _, name = word.rpartition(":")
    if given and given not in (MAXIMIZE, MINIMIZE):
        raise ValueError(
            f"--objective: expected maximize: or minimize: before the name, got {given!r}: in {word!r}."
        )
    plain = name.removesuffix(BOUND)
    bounded = name.endswith(BOUND)
    is_known = plain in OBJECTIVES and (plain in METRICS or not bounded)
    if is_known or plain.startswith("auc_") or (not bounded and _AT_SPECIFICITY.fullmatch(name)):
        own = MINIMIZE if is_small_good(plain) else MAXIMIZE
        if given and given != own:
            raise ValueError(
                f"--objective: {name} is to be {own}d, got {word!r}. Leave the direction out."
            )
        return Objective(name=name, direction=own)
    if "." in name:
        return Objective(name=name, direction=given or MAXIMIZE, function=_import(name))
    close = closest_name(plain, OBJECTIVES)
    hint = f"Did you mean {close}?" if close else f"Known: {', '.join(OBJECTIVES)}."
    raise ValueError(
        f"--objective: expected a metric, or the dotted name of a function, got {word!r}. {hint}"
    )


def _import(name: str) -> Callable[..., float]:
    """Import a user's function, also from the folder the command runs in."""
    module, _, function = name.rpartition(".")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"--objective: expected a function that can be imported, got {name!r} ({error}). "
            "Write package.module.function; the current folder is searched too."
        ) from error
    if not callable(found):
        raise ValueError(
            f"--objective: expected a function of (y_true, y_score, *, sensitive_features), got {name!r}, "
            f"a {type(found).__name__}."
        )
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Validation rows with a model's scores."""

    labels: np.ndarray
    scores: np.ndarray
    groups: GroupCodes
    patients: np.ndarray

    @property
    def one_sided(self) -> bool:
        """Whether the threshold of 0.5 calls nobody or everybody positive."""
        return one_sided(float((self.scores >= 0.5).mean()))

    def value(self, objective: Objective) -> float:
        """Compute an objective of these rows (all but `trainable_parameters`, which no row knows)."""
        if objective.function is not None:
            names = np.asarray(self.groups.names)[self.groups.codes]
            return float(objective.function(self.labels, self.scores, sensitive_features=names))
        at = _AT_SPECIFICITY.fullmatch(objective.name)
        if at:
            return self._min_sensitivity(float(at[1] or 0.9))
        if objective.is_bound:
            low, high = bootstrap_interval(
                self.draws(objective.metric),
                n_patients=rarer_class_patients(self.labels, self.design.clusters),
                confidence=_BOUND_CONFIDENCE,
            )
            return low if objective.direction == MAXIMIZE else high
        return measure(self.labels, self.scores, self.groups, 0.5).value(objective.name)

    def standard_error(self, objective: Objective) -> float:
        """Standard deviation of an objective over resampled patients; 0 for `trainable_parameters`."""
        if objective.name == TRAINABLE:
            return 0.0
        if objective.metric in METRICS or objective.metric.startswith("auc_"):
            draws = self.draws(objective.metric)
        else:
            draws = np.array([rows.value(objective) for rows in self._resampled()])
        return float(np.nanstd(draws, ddof=1))

    def draws(self, metric: str) -> np.ndarray:
        """Resample patients: `(200,)` values of a metric, the same patients for every trial."""
        table = ResampledTable(self.labels, self.scores, self.groups, self.design)
        value = statistic(metric, self.groups)
        counts = draw_counts(self.design, _RESAMPLES, np.random.default_rng(0))
        return np.concatenate([value(table, chunk) for chunk in counts])

    def require_bound(self, objective: Objective) -> None:
        """Refuse a bound that too few patients stand behind to say how far a value may be off.

        Raises:
            ValueError: Naming what has too few patients with or without the label, and how many.
        """
        clusters = self.design.clusters
        counts = {
            name: class_patients(self.labels[rows], clusters[rows])
            for name, rows in self._judged(objective.metric).items()
        }
        few = [
            f"{name} has {positives} with the label and {negatives} without"
            for name, (negatives, positives) in counts.items()
            if min(negatives, positives) < FEWEST_PATIENTS
        ]
        if few:
            raise ValueError(
                f"--objective: expected at least {FEWEST_PATIENTS} validation patients with and without the label behind "
                f"{objective.name}, and {'; '.join(few)}. Choose {objective.metric} itself, put more patients into the "
                "validation split, or join small groups."
            )

    def _judged(self, metric: str) -> dict[str, np.ndarray]:
        """Return the rows of each group that a metric depends on by itself, else all rows."""
        names, codes = self.groups.names, self.groups.codes
        if metric in METRICS and METRICS[metric].of == ROWS:
            return {"the split": np.ones(self.labels.size, dtype=np.bool_)}
        return {
            f"group {name!r}": codes == code
            for code, name in enumerate(names)
            if metric in METRICS or metric == f"auc_{name}"
        }

    @property
    def design(self) -> Design:
        """Who is resampled: the patients, within groups and labels."""
        return patient_design(self.labels, self.groups, self.patients)

    def _resampled(self) -> list[Rows]:
        design = self.design
        weights = np.concatenate(
            list(draw_counts(design, _RESAMPLES, np.random.default_rng(0)))
        ).astype(np.int64)
        found = []
        for row in weights:
            picked = np.repeat(np.arange(self.labels.size), row[design.clusters])
            groups = GroupCodes(self.groups.codes[picked], self.groups.names)
            found.append(
                Rows(
                    labels=self.labels[picked],
                    scores=self.scores[picked],
                    groups=groups,
                    patients=self.patients[picked],
                )
            )
        return found

    def _min_sensitivity(self, specificity: float) -> float:
        """Sensitivity of the worst group at the threshold where all rows reach the specificity."""
        point = choose_operating_point(
            self.labels, self.scores, rule="specificity", target=specificity
        )
        found = measure(self.labels, self.scores, self.groups, point.threshold)
        return float(min(row.sensitivity for row in found.by_group.values()))


class ObjectiveMetrics:
    """`compute_metrics` of a search: the group metrics and every objective that comes from rows.

    `last` holds the rows of the latest evaluation, from which the noise of the best value is measured.

    Args:
        objectives: What the study looks for.
        table: The validation rows, in the order they are evaluated.

    Raises:
        ValueError: An objective of a group that the table does not have, or a bound that too few
            patients stand behind.
    """

    def __init__(self, objectives: Sequence[Objective], table: ImageTable) -> None:
        self._objectives, self._table = objectives, table
        self._groups = GroupCodes(np.asarray(table.group_codes, dtype=np.int64), table.groups)
        self._group_metrics = ComputeMetrics(group_names=table.groups)
        self.last: Rows | None = None
        for objective in objectives:
            if objective.function is None and objective.metric.startswith("auc_"):
                statistic(objective.metric, self._groups)  # says which groups there are
            if objective.is_bound:
                self.rows(np.zeros(len(table.labels))).require_bound(objective)

    def rows(self, scores: np.ndarray) -> Rows:
        """Return the validation rows with these scores."""
        return Rows(
            labels=np.asarray(self._table.labels, dtype=np.int64),
            scores=scores,
            groups=self._groups,
            patients=np.asarray(self._table.patients),
        )

    def __call__(self, eval_prediction: Any) -> dict[str, float]:
        """Return the metrics of an evaluation over the whole split.

        Raises:
            RuntimeError: The rows came back in another order than the table's.
        """
        found = self._group_metrics(eval_prediction)
        rows = self.rows(positive_probability(eval_prediction.predictions))
        labels, codes = (np.asarray(part) for part in eval_prediction.label_ids)
        if not (np.array_equal(labels, rows.labels) and np.array_equal(codes, rows.groups.codes)):
            raise RuntimeError(
                "validation: expected the rows in the order of the table, and they came back in another. Set no "
                "evaluation sampler in --training-arguments."
            )
        self.last = rows
        for objective in self._objectives:
            if objective.name not in found and objective.name != TRAINABLE:
                found[objective.name] = rows.value(objective)
            at_threshold = (
                objective.metric in METRICS and METRICS[objective.metric].needs_both_sides
            )
            if at_threshold and rows.one_sided:
                found[objective.name] = _WORST_PARITY
        return found


def read_objectives(
    objectives: Sequence[Objective], metrics: dict[str, float], trainable: int
) -> float | list[float]:
    """Pick the objectives out of the Trainer's metrics: a number for one, a list for several.

    Raises:
        FloatingPointError: One is not a number.
    """
    known = {**metrics, f"eval_{TRAINABLE}": float(trainable)}
    values = [float(known[f"eval_{objective.name}"]) for objective in objectives]
    broken = [o.name for o, v in zip(objectives, values, strict=True) if not math.isfinite(v)]
    if broken:
        raise FloatingPointError(f"the objective {', '.join(broken)} is not a number")
    return values[0] if len(values) == 1 else values
