"""Data: declarations and readers, groups, splits, leak checks, pictures, transforms."""

from fairtune_hf.data.catalogue import describe_dataset, list_datasets
from fairtune_hf.data.load import load_dataset_table
from fairtune_hf.data.prepare import PreparedSummary, prepare
from fairtune_hf.data.registry import DATASETS, dataset_spec, dataset_specs
from fairtune_hf.data.splits import hash_split, published_split, stratified_split
from fairtune_hf.data.subsets import stratified_fraction
from fairtune_hf.data.table import SPLITS, ImageTable
from fairtune_hf.data.transforms import TRANSFORM_PRESETS, TransformPreset

__all__ = [
    "DATASETS",
    "SPLITS",
    "TRANSFORM_PRESETS",
    "ImageTable",
    "PreparedSummary",
    "TransformPreset",
    "dataset_spec",
    "dataset_specs",
    "describe_dataset",
    "hash_split",
    "list_datasets",
    "load_dataset_table",
    "prepare",
    "published_split",
    "stratified_fraction",
    "stratified_split",
]
