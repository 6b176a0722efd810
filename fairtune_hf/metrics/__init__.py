"""Arrays in, numbers out: group metrics with their uncertainty.

Owns the definitions (through scikit-learn, fairlearn and SciPy), intervals, paired tests and the
estimate of selection luck. Knows nothing of images, models or files, and must not import torch.
Source: FairTune (Dutt et al., ICLR 2024), section 4; where its code differs, ours is whole-split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fairtune_hf.metrics.audit import audit_predictions
from fairtune_hf.metrics.bootstrap import bootstrap_interval
from fairtune_hf.metrics.calibration import ReliabilityCurve, reliability_curve
from fairtune_hf.metrics.comparison import Comparison, compare_metrics, compare_predictions
from fairtune_hf.metrics.delong import AucEstimate, delong_auc, delong_difference
from fairtune_hf.metrics.evaluation import evaluate_predictions
from fairtune_hf.metrics.flags import CollapseFlag, collapse_flag, is_levelling_down
from fairtune_hf.metrics.groups import GroupMetrics, group_metrics
from fairtune_hf.metrics.multiplicity import holm_p_values
from fairtune_hf.metrics.operating import OperatingPoint, choose_operating_point
from fairtune_hf.metrics.optimism import SelectionOptimism, selection_optimism
from fairtune_hf.metrics.planning import auc_half_width, auc_standard_error
from fairtune_hf.metrics.ranks import average_ranks, average_scores, rank_methods, round_half_up
from fairtune_hf.metrics.resampled_table import METRICS
from fairtune_hf.metrics.rows import GroupRow
from fairtune_hf.metrics.trainer import ComputeMetrics, compute_metrics

if TYPE_CHECKING:
    from fairtune_hf.metrics.evaluate_metric import FairnessMetric

__all__ = [
    "METRICS",
    "AucEstimate",
    "CollapseFlag",
    "Comparison",
    "ComputeMetrics",
    "FairnessMetric",
    "GroupMetrics",
    "GroupRow",
    "OperatingPoint",
    "ReliabilityCurve",
    "SelectionOptimism",
    "auc_half_width",
    "auc_standard_error",
    "audit_predictions",
    "average_ranks",
    "average_scores",
    "bootstrap_interval",
    "choose_operating_point",
    "collapse_flag",
    "compare_metrics",
    "compare_predictions",
    "compute_metrics",
    "delong_auc",
    "delong_difference",
    "evaluate_predictions",
    "group_metrics",
    "holm_p_values",
    "is_levelling_down",
    "rank_methods",
    "reliability_curve",
    "round_half_up",
    "selection_optimism",
]


def __getattr__(name: str) -> Any:
    """Load `FairnessMetric` on first use: `evaluate` and `datasets` take seconds to import."""
    if name == "FairnessMetric":
        from fairtune_hf.metrics.evaluate_metric import FairnessMetric

        return FairnessMetric
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
