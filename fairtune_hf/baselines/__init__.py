"""The methods the paper compares with, one file each, over the same Trainer."""

from fairtune_hf.baselines.method import Hyperparameter, LabelledImages, Method, Stage

__all__ = ["Hyperparameter", "LabelledImages", "Method", "Stage"]
