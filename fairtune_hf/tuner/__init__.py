"""FairMask, a PEFT method: train chosen parts of chosen blocks of a vision transformer, and its head.

Importing this package registers the method with PEFT, which loading a saved adapter needs too.
"""

from fairtune_hf.mask import LAYOUTS, PRESETS, TRAIN_ALSO, Mask, mask_bit_names

from . import _register  # first: makes the member of PeftType that the config names
from .anatomy import describe
from .architectures import ARCHITECTURES, PATTERN_ATTRIBUTE, BlockPattern, count_blocks, own_pattern
from .config import FairMaskConfig
from .layer import FairMaskLayer
from .model import FairMaskModel
from .plan import check_layout_of, count_trained

__all__ = [
    "ARCHITECTURES",
    "LAYOUTS",
    "PATTERN_ATTRIBUTE",
    "PRESETS",
    "TRAIN_ALSO",
    "BlockPattern",
    "FairMaskConfig",
    "FairMaskLayer",
    "FairMaskModel",
    "Mask",
    "check_layout_of",
    "count_blocks",
    "count_trained",
    "describe",
    "mask_bit_names",
    "own_pattern",
]

_register.register(FairMaskConfig, FairMaskModel)
