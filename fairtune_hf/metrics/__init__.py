"""Arrays in, numbers out: group metrics with their uncertainty.

Owns the definitions of metrics, intervals, paired tests and the
estimate of selection luck. Knows nothing of images, models or files, and must not import torch.
Source: FairTune (Dutt et al., ICLR 2024), section 4; where its code differs, ours is whole-split.
"""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .audit import audit_predictions as audit_predictions
    from .bootstrap import bootstrap_interval as bootstrap_interval
    from .calibration import ReliabilityCurve as ReliabilityCurve
    from .calibration import reliability_curve as reliability_curve
    from .comparison import Comparison as Comparison
    from .comparison import compare_metrics as compare_metrics
    from .comparison import compare_predictions as compare_predictions
    from .delong import AucEstimate as AucEstimate
    from .delong import delong_auc as delong_auc
    from .delong import delong_difference as delong_difference
    from .evaluate_metric import FairnessMetric as FairnessMetric
    from .evaluation import evaluate_predictions as evaluate_predictions
    from .flags import CollapseFlag as CollapseFlag
    from .flags import collapse_flag as collapse_flag
    from .flags import is_levelling_down as is_levelling_down
    from .groups import group_metrics as group_metrics
    from .multiplicity import holm_p_values as holm_p_values
    from .operating import OperatingPoint as OperatingPoint
    from .operating import choose_operating_point as choose_operating_point
    from .optimism import SelectionOptimism as SelectionOptimism
    from .optimism import selection_optimism as selection_optimism
    from .planning import auc_half_width as auc_half_width
    from .planning import auc_standard_error as auc_standard_error
    from .ranks import average_ranks as average_ranks
    from .ranks import average_scores as average_scores
    from .ranks import rank_methods as rank_methods
    from .ranks import round_half_up as round_half_up
    from .registry import METRICS as METRICS
    from .registry import GroupMetrics as GroupMetrics
    from .registry import GroupRow as GroupRow
    from .trainer_metrics import ComputeMetrics as ComputeMetrics
    from .trainer_metrics import compute_metrics as compute_metrics

__getattr__, __dir__, __all__ = attach(__name__, __file__)
