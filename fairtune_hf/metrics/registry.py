"""Every metric, declared once: name, words, direction, function, and where it is shown.

A metric is a field of `GroupRow` (measured on any set of rows: the whole table and each group) or of
`GroupMetrics` (made from the groups together). The search's objectives, `run.json`, tables, figures,
comparisons, cards and the texts of the command read the declarations, so a field is all there is to add.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fairtune_hf.described import described

if TYPE_CHECKING:
    from fairtune_hf.metrics.checks import FloatArray, GroupCodes
    from fairtune_hf.metrics.resampled_table import ResampledTable, WeightedRows, WeightedTable

# Where a metric is shown, beside the objectives of a search: those are all that have a direction.
TABLE = "table"  # tables of results, and the blocks `validation` and `test` of run.json
COMPARISON = "comparison"  # tables of many methods, with ranks; in run.json with its interval
TEST = "test"  # paired tests, and the table in the terminal
CARD = "card"  # the model index of a card
EVERYWHERE = frozenset([TABLE, COMPARISON, CARD])

# What a metric is of, which says how many patients stand behind it.
ROWS = "rows"
GROUPS = "groups"
JUDGED = "judged groups"  # without those that have no AUC, if the caller passes over them

# The rows of a confusion matrix.
TN, FP, FN, TP = range(4)

HEADLINE = "min_auc"
BOUND = "_lcb"
"""How the name of a metric's confidence bound ends; it is good the same way as the metric."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The declaration of one metric; calling it gives its value in each resample of a table."""

    label: str = field(metadata={"help": "Its name as tables print it."})
    title: str = field(metadata={"help": "Its name in full, as the card prints it."})
    function: Callable[[Any], FloatArray] = field(
        metadata={"help": "From `WeightedRows` (of `ROWS`) or `WeightedTable` to (resamples,)."}
    )
    small_is_good: bool | None = field(
        metadata={"help": "None: neither small nor large is good, so that nothing is judged by it."}
    )
    of: str = field(metadata={"help": "ROWS, GROUPS or JUDGED: what it is measured on."})
    shown: frozenset[str] = field(metadata={"help": "Where it is shown, of TABLE to CARD."})
    is_share: bool = field(metadata={"help": "Whether it lies in [0, 1]."})
    needs_both_sides: bool = field(
        metadata={
            "help": "Undefined, not 0 as it would come out, where all scores lie on one side of the threshold."
        }
    )

    def __call__(self, table: ResampledTable, counts: FloatArray) -> FloatArray:
        """Return the metric in each row of counts (resamples, patients)."""
        return self.value(table.under(counts))

    def value(self, table: WeightedTable) -> FloatArray:
        """Return the metric in each resample of a weighted table, shape (resamples,)."""
        return self.function(table.whole if self.of == ROWS else table)


def _metric(
    label: str,
    text: str,
    function: Callable[[Any], FloatArray],
    *,
    small_is_good: bool | None = False,
    title: str = "",
    of: str = ROWS,
    shown: frozenset[str] = frozenset(),
    **kind: bool,
) -> Any:
    """Return the field that declares a metric."""
    declared = Metric(
        label=label,
        title=title or label,
        function=function,
        small_is_good=small_is_good,
        of=of,
        shown=shown,
        is_share=kind.get("is_share", True),
        needs_both_sides=kind.get("needs_both_sides", False),
    )
    return field(metadata={"help": text, "metric": declared})


def divide(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return the ratio, NaN where the whole is not above 0 (or NaN)."""
    ratio = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _sum(parts: Iterable[FloatArray]) -> FloatArray:
    return np.asarray(sum(parts), dtype=np.float64)


def _share(
    *cells: int, of: tuple[int, ...] = (TN, FP, FN, TP)
) -> Callable[[WeightedRows], FloatArray]:
    """Return the share of some cells of the confusion matrix in others."""

    def share(rows: WeightedRows) -> FloatArray:
        found = rows.cells
        return divide(_sum(found[i] for i in cells), _sum(found[i] for i in of))

    return share


def _spread(values: FloatArray) -> FloatArray:
    return np.asarray(values.max(axis=0) - values.min(axis=0), dtype=np.float64)


def _odds(table: WeightedTable) -> FloatArray:
    return np.maximum(_spread(table.groups("sensitivity")), _spread(table.groups("fpr")))


def _parity(table: WeightedTable) -> FloatArray:
    # A group that a resample, or the weights, leave without rows has no rate to differ by.
    rates = table.groups("selection_rate")
    return np.asarray(np.fmax.reduce(rates) - np.fmin.reduce(rates), dtype=np.float64)


def _equity_scaled(table: WeightedTable) -> FloatArray:
    overall = table.whole["auc"]
    distances = np.abs(table.groups("auc") - overall)
    return np.asarray(overall / (1 + distances.sum(axis=0)), dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """What one group (or the whole table) shows. Fractions in [0, 1]; NaN where undefined."""

    n: int = field(metadata={"help": "Rows."})
    positives: int = field(metadata={"help": "Rows with label 1."})
    auc: float = _metric(
        "AUC", "Area under the ROC curve; higher is better.", lambda rows: rows.auc
    )
    average_precision: float = _metric(
        "Average precision",
        "Average precision; higher is better, the base rate is chance.",
        lambda rows: rows.average_precision,
    )
    accuracy: float = _metric(
        "Accuracy",
        "Share predicted right; higher is better.",
        _share(TP, TN),
    )
    balanced_accuracy: float = _metric(
        "Balanced accuracy",
        "Mean of sensitivity and specificity; higher is better, 0.5 is chance.",
        lambda rows: (rows["sensitivity"] + 1 - rows["fpr"]) / 2,
    )
    sensitivity: float = _metric(
        "Sensitivity",
        "True-positive rate; higher is better.",
        _share(TP, of=(TP, FN)),
    )
    specificity: float = _metric(
        "Specificity",
        "True-negative rate; higher is better.",
        lambda rows: 1 - rows["fpr"],
    )
    ppv: float = _metric(
        "PPV",
        "Share of positive predictions that are right.",
        _share(TP, of=(TP, FP)),
    )
    negative_predictive_value: float = _metric(
        "NPV",
        "Share of negative predictions that are right.",
        _share(TN, of=(TN, FN)),
        title="Negative predictive value",
        shown=EVERYWHERE,
    )
    fnr: float = _metric(
        "FNR",
        "False-negative rate, 1 - sensitivity.",
        lambda rows: 1 - rows["sensitivity"],
        small_is_good=True,
    )
    fpr: float = _metric(
        "FPR",
        "False-positive rate, 1 - specificity.",
        _share(FP, of=(FP, TN)),
        small_is_good=True,
    )
    selection_rate: float = _metric(
        "Selection rate",
        "Share predicted positive.",
        _share(TP, FP),
        small_is_good=None,
    )
    log_loss: float = _metric(
        "Log loss",
        "Mean log loss, >= 0, lower is better; NaN unless probabilities.",
        lambda rows: rows.log_loss,
        small_is_good=True,
        is_share=False,
    )
    brier: float = _metric(
        "Brier score",
        "Mean squared error of the probability; lower is better.",
        lambda rows: rows.brier,
        small_is_good=True,
    )
    ece: float = _metric(
        "ECE",
        "Expected calibration error, 10 bins of equal width; 0 is best.",
        lambda rows: rows.ece,
        small_is_good=True,
    )


@dataclass(frozen=True, kw_only=True)
class GroupMetrics:
    """Metrics of one table. Fractions in [0, 1]; NaN means undefined, and `warnings` says why."""

    overall_auc: float = _metric(
        "Overall AUC",
        "AUC of all rows; higher is better.",
        lambda rows: rows["auc"],
        title="AUC",
        shown=EVERYWHERE | {TEST},
    )
    min_auc: float = _metric(
        "Min-group AUC",
        "AUC of the worst group; higher is better.",
        lambda table: table.judged_aucs.min(axis=0),
        title="AUC of the worst-off group",
        of=JUDGED,
        shown=EVERYWHERE | {TEST},
    )
    max_auc: float = _metric(
        "Max-group AUC",
        "AUC of the best group; higher is better.",
        lambda table: table.judged_aucs.max(axis=0),
        of=JUDGED,
        shown=frozenset([TABLE]),
    )
    auc_gap: float = _metric(
        "AUC gap",
        "max_auc - min_auc; 0 is parity, lower is better.",
        lambda table: _spread(table.judged_aucs),
        title="AUC gap between groups",
        small_is_good=True,
        of=JUDGED,
        shown=EVERYWHERE | {TEST},
    )
    equalized_odds_difference: float = _metric(
        "EOddsD",
        "Larger of the TPR and FPR differences; 0 is parity, lower is better.",
        _odds,
        title="Equalized odds difference",
        small_is_good=True,
        of=GROUPS,
        shown=EVERYWHERE,
        needs_both_sides=True,
    )
    demographic_parity_difference: float = _metric(
        "DPD",
        "Difference of selection rates; 0 is parity, lower is better.",
        _parity,
        title="Demographic parity difference",
        small_is_good=True,
        of=GROUPS,
        shown=EVERYWHERE,
        needs_both_sides=True,
    )
    equal_opportunity_difference: float = _metric(
        "Equal opportunity difference",
        "Difference of true-positive rates; 0 is parity, lower is better.",
        lambda table: _spread(table.groups("sensitivity")),
        small_is_good=True,
        of=GROUPS,
        needs_both_sides=True,
    )
    equity_scaled_auc: float = _metric(
        "Equity-scaled AUC",
        "AUC / (1 + sum of the groups' distances from it); higher is better.",
        _equity_scaled,
        of=GROUPS,
    )
    max_group_loss: float = _metric(
        "Max-group log loss",
        "Log loss of the worst group, >= 0; NaN unless probabilities.",
        lambda table: table.groups("log_loss").max(axis=0),
        small_is_good=True,
        of=GROUPS,
        is_share=False,
    )
    threshold: float = field(metadata={"help": "score >= threshold is a positive prediction."})
    overall: GroupRow = field(metadata={"help": "The same as of a group, of the whole table."})
    by_group: dict[str, GroupRow] = field(metadata={"help": "The groups by name, names sorted."})
    warnings: tuple[str, ...] = field(
        metadata={"help": "Which groups have one class, with their counts."}
    )
    threshold_warnings: tuple[str, ...] = described(
        (), "Where the threshold calls everybody, or nobody, positive."
    )

    def value(self, metric: str) -> float:
        """Return a metric by its name in `METRICS`, or auc_<group>."""
        for holder in (self, self.overall):
            if hasattr(holder, metric):
                return float(getattr(holder, metric))
        return self.by_group[metric.removeprefix("auc_")].auc


def _declared(holder: type) -> dict[str, Metric]:
    return {
        item.name: item.metadata["metric"]
        for item in dataclasses.fields(holder)
        if "metric" in item.metadata
    }


OF_ROWS = _declared(GroupRow)
OF_TABLE = _declared(GroupMetrics)
METRICS: dict[str, Metric] = {
    **OF_TABLE,
    **{name: metric for name, metric in OF_ROWS.items() if name != "auc"},
}
"""Every metric of a table by name; the AUC of all rows goes by the name of `overall_auc`."""


def shown_in(place: str) -> tuple[str, ...]:
    """Name the metrics shown in a place, such as `TABLE`, in the order of their declarations."""
    return tuple(name for name, metric in METRICS.items() if place in metric.shown)


TESTED = tuple(sorted(shown_in(TEST), key=lambda name: name != HEADLINE))
"""The metrics of paired tests, the one that a search looks for by default first."""

TRAINABLE = "trainable_parameters"
OBJECTIVES = (
    *(name for name, metric in METRICS.items() if metric.small_is_good is not None),
    *(TRAINABLE, "min_sensitivity_at_specificity"),
)
"""What a search may look for: the metrics that have a direction, and two that it measures itself."""


def is_small_good(name: str) -> bool:
    """Tell whether a metric, or the confidence bound of one, is better the smaller it is."""
    plain = name.removesuffix(BOUND)
    return plain == TRAINABLE or (plain in METRICS and bool(METRICS[plain].small_is_good))


def statistic(
    metric: str, groups: GroupCodes
) -> Callable[[ResampledTable, FloatArray], FloatArray]:
    """Return the resampled form of a metric: a name of `METRICS`, or auc_<group>.

    Raises:
        ValueError: If the name is unknown, with the closest match.
    """
    by_group = {f"auc_{name}": code for code, name in enumerate(groups.names)}
    if metric in by_group and metric not in METRICS:
        code = by_group[metric]
        return lambda table, counts: table.under(counts).groups("auc")[code]
    from fairtune_hf.metrics.checks import check_choice  # pandas, which a page of help does without

    return METRICS[check_choice("metric", metric, (*METRICS, *by_group))]
