"""FairMask, a PEFT method: train chosen parts of chosen blocks of a vision transformer, and its head.

Importing this package registers the method with PEFT, which loading a saved adapter needs too.
"""

from . import _register  # first: makes the member of PeftType that the config names
from .anatomy import describe
from .architectures import ARCHITECTURES, count_blocks
from .config import FairMaskConfig
from .layer import FairMaskLayer
from .mask import LAYOUTS, PRESETS, TRAIN_ALSO, Mask, mask_bit_names
from .model import FairMaskModel

__all__ = [
    "ARCHITECTURES",
    "LAYOUTS",
    "PRESETS",
    "TRAIN_ALSO",
    "FairMaskConfig",
    "FairMaskLayer",
    "FairMaskModel",
    "Mask",
    "count_blocks",
    "describe",
    "mask_bit_names",
]

_register.register(FairMaskConfig, FairMaskModel)
