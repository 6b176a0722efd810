"""FairTune (Dutt et al., ICLR 2024) as a Hugging Face PEFT plugin.

Importing this package registers `FairMaskConfig` with PEFT, so that saved adapters load. Everything
else is loaded on first use.

In the command `fairtune` the registration waits too, until a subcommand imports the tuner: an audit of
predictions or a page of help needs neither PEFT nor PyTorch, whose import takes longer than its work.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fairtune_hf.data import ImageTable, load_dataset_table
    from fairtune_hf.metrics import (
        compare_predictions,
        compute_metrics,
        evaluate_predictions,
        group_metrics,
    )
    from fairtune_hf.search import hp_space, model_init, search_masks, suggest_mask, use_best_trial
    from fairtune_hf.training import collate_batch, finetune, load_backbone
    from fairtune_hf.tuner import FairMaskConfig, FairMaskModel, Mask

__version__ = "0.1.0"

_HOMES = {
    "FairMaskConfig": "tuner",
    "FairMaskModel": "tuner",
    "Mask": "tuner",
    "ImageTable": "data",
    "load_dataset_table": "data",
    "compare_predictions": "metrics",
    "compute_metrics": "metrics",
    "evaluate_predictions": "metrics",
    "group_metrics": "metrics",
    "hp_space": "search",
    "model_init": "search",
    "search_masks": "search",
    "suggest_mask": "search",
    "use_best_trial": "search",
    "collate_batch": "training",
    "finetune": "training",
    "load_backbone": "training",
}

__all__ = [
    "FairMaskConfig",
    "FairMaskModel",
    "ImageTable",
    "Mask",
    "collate_batch",
    "compare_predictions",
    "compute_metrics",
    "evaluate_predictions",
    "finetune",
    "group_metrics",
    "hp_space",
    "load_backbone",
    "load_dataset_table",
    "model_init",
    "search_masks",
    "suggest_mask",
    "use_best_trial",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its package on first use."""
    if name not in _HOMES:
        raise AttributeError(
            f"module 'fairtune_hf' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    return getattr(importlib.import_module(f"fairtune_hf.{_HOMES[name]}"), name)


if Path("".join(sys.argv[:1])).stem != "fairtune":
    importlib.import_module("fairtune_hf.tuner")
