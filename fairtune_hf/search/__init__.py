"""The outer loop: the space, the study and the run of a search."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from fairtune_hf.training.candidate import Candidate as Candidate

    from .arguments import BudgetArguments as BudgetArguments
    from .arguments import SearchArguments as SearchArguments
    from .hooks import HpSpace as HpSpace
    from .hooks import ModelInit as ModelInit
    from .hooks import build_masked_model as build_masked_model
    from .hooks import hp_space as hp_space
    from .hooks import model_init as model_init
    from .hooks import use_best_trial as use_best_trial
    from .loop import run_study as run_study
    from .objectives import Objective as Objective
    from .objectives import parse_objectives as parse_objectives
    from .record import describe_choice as describe_choice
    from .run import search_masks as search_masks
    from .sampling import StartupPoint as StartupPoint
    from .sampling import startup_points as startup_points
    from .space import SearchSpace as SearchSpace
    from .space import suggest_mask as suggest_mask
    from .study import SearchStudy as SearchStudy
    from .study_plan import StudyPlan as StudyPlan

__getattr__, __dir__, __all__ = attach(__name__, __file__)
