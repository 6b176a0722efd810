"""Arrays in, numbers out: group metrics with their uncertainty.

Owns the definitions (through scikit-learn, fairlearn and SciPy), intervals, paired tests and the
estimate of selection luck. Knows nothing of images, models or files, and must not import torch.
Source: FairTune (Dutt et al., ICLR 2024), section 4; where its code differs, ours is whole-split.
"""

from fairtune_hf.metrics.comparison import Comparison, compare_predictions
from fairtune_hf.metrics.evaluation import evaluate_predictions
from fairtune_hf.metrics.groups import GroupMetrics, GroupRow, group_metrics
from fairtune_hf.metrics.optimism import SelectionOptimism, selection_optimism
from fairtune_hf.metrics.planning import auc_half_width
from fairtune_hf.metrics.trainer import ComputeMetrics, compute_metrics

__all__ = [
    "Comparison",
    "ComputeMetrics",
    "GroupMetrics",
    "GroupRow",
    "SelectionOptimism",
    "auc_half_width",
    "compare_predictions",
    "compute_metrics",
    "evaluate_predictions",
    "group_metrics",
    "selection_optimism",
]
