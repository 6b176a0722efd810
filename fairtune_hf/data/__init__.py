"""Data: declarations and readers, groups, splits, leak checks, pictures, transforms."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .catalogue import describe_dataset as describe_dataset
    from .catalogue import list_datasets as list_datasets
    from .checked_rows import check_request as check_request
    from .declaration import ReadRequest as ReadRequest
    from .folder_hf import is_hub_id as is_hub_id
    from .load import load_dataset_table as load_dataset_table
    from .preparation import PreparedSummary as PreparedSummary
    from .preparation import prepare as prepare
    from .registry import DATASETS as DATASETS
    from .registry import dataset_spec as dataset_spec
    from .registry import dataset_specs as dataset_specs
    from .splits import hash_split as hash_split
    from .splits import published_split as published_split
    from .splits import stratified_split as stratified_split
    from .subsets import stratified_fraction as stratified_fraction
    from .table import SPLITS as SPLITS
    from .table import ImageTable as ImageTable
    from .transforms import TRANSFORM_PRESETS as TRANSFORM_PRESETS
    from .transforms import TransformPreset as TransformPreset

__getattr__, __dir__, __all__ = attach(__name__, __file__)
