"""Training one model: the backbone, the Trainer, the refit and the run's folder."""

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.training.adapter import require_whole_adapter
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone, load_backbone
from fairtune_hf.training.dataset import ImageDataset, collate_batch
from fairtune_hf.training.description import describe_dataset
from fairtune_hf.training.external import score_external
from fairtune_hf.training.refit import (
    Choice,
    build_datasets,
    check_same_base,
    check_same_inputs,
    finetune,
    refit,
)
from fairtune_hf.training.trainer import FairTrainer

__all__ = [
    "Backbone",
    "Choice",
    "FairTrainer",
    "FitArguments",
    "ImageDataset",
    "RunFolder",
    "build_datasets",
    "check_same_base",
    "check_same_inputs",
    "collate_batch",
    "describe_dataset",
    "finetune",
    "load_backbone",
    "refit",
    "require_whole_adapter",
    "score_external",
]
