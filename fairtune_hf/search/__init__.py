"""The outer loop: the space, the study and the run of a search."""

from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.record import CONTROLS, describe_choice
from fairtune_hf.search.run import search_masks
from fairtune_hf.search.space import HpSpace, ModelInit, hp_space, model_init, suggest_mask

__all__ = [
    "CONTROLS",
    "HpSpace",
    "ModelInit",
    "SearchArguments",
    "describe_choice",
    "hp_space",
    "model_init",
    "search_masks",
    "suggest_mask",
]
