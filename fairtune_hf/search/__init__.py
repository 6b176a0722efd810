"""The outer loop: the space, the study and the run of a search."""

from fairtune_hf.search.arguments import BudgetArguments, SearchArguments
from fairtune_hf.search.controls import CONTROLS
from fairtune_hf.search.hooks import (
    HpSpace,
    ModelInit,
    build_masked_model,
    hp_space,
    model_init,
    use_best_trial,
)
from fairtune_hf.search.objectives import Objective, parse_objectives
from fairtune_hf.search.record import describe_choice
from fairtune_hf.search.run import run_study, search_masks
from fairtune_hf.search.sampling import StartupPoint, startup_points
from fairtune_hf.search.space import Candidate, HyperparameterLike, SearchSpace, suggest_mask
from fairtune_hf.search.study import SearchStudy

__all__ = [
    "CONTROLS",
    "BudgetArguments",
    "Candidate",
    "HpSpace",
    "HyperparameterLike",
    "ModelInit",
    "Objective",
    "SearchArguments",
    "SearchSpace",
    "SearchStudy",
    "StartupPoint",
    "build_masked_model",
    "describe_choice",
    "hp_space",
    "model_init",
    "parse_objectives",
    "run_study",
    "search_masks",
    "startup_points",
    "suggest_mask",
    "use_best_trial",
]
