"""Which way a metric is good, in one place for the search, its tables and its pages."""

from __future__ import annotations

SMALL_IS_GOOD = frozenset(
    [
        "auc_gap",
        "equalized_odds_difference",
        "demographic_parity_difference",
        "equal_opportunity_difference",
        "max_group_loss",
        "log_loss",
        "brier",
        "ece",
        "fnr",
        "fpr",
        "trainable_parameters",
    ]
)
"""Names of what is to be small; of everything else that is judged by, large is good."""

BOUND = "_lcb"
"""How the name of a metric's confidence bound ends; it is good the same way as the metric."""


def is_small_good(name: str) -> bool:
    """Tell whether a metric, or the confidence bound of one, is better the smaller it is."""
    return name.removesuffix(BOUND) in SMALL_IS_GOOD
