"""The methods the paper compares with, one file each, over the same Trainer."""

from fairtune_hf.baselines.fairprune import FairPrune
from fairtune_hf.baselines.fscl import FSCL, FSCLPlus, fair_contrastive_loss
from fairtune_hf.baselines.groupdro import GroupDRO
from fairtune_hf.baselines.lora import LoRA
from fairtune_hf.baselines.method import Hyperparameter, LabelledImages, Method, Stage
from fairtune_hf.baselines.registry import METHODS, MethodSpec, listed_place, method_spec
from fairtune_hf.baselines.resampling import Resampling
from fairtune_hf.baselines.scratch import Scratch

__all__ = [
    "FSCL",
    "METHODS",
    "FSCLPlus",
    "FairPrune",
    "GroupDRO",
    "Hyperparameter",
    "LabelledImages",
    "LoRA",
    "Method",
    "MethodSpec",
    "Resampling",
    "Scratch",
    "Stage",
    "fair_contrastive_loss",
    "listed_place",
    "method_spec",
]
