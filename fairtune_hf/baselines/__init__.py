"""The methods the paper compares with, one file each, over the same Trainer."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .fairprune import FairPrune as FairPrune
    from .fscl import FSCL as FSCL
    from .fscl import FSCLPlus as FSCLPlus
    from .fscl import fair_contrastive_loss as fair_contrastive_loss
    from .groupdro import GroupDRO as GroupDRO
    from .lora import LoRA as LoRA
    from .method import Hyperparameter as Hyperparameter
    from .method import LabelledImages as LabelledImages
    from .method import Method as Method
    from .method import ParameterGroup as ParameterGroup
    from .method import Stage as Stage
    from .registry import CONTROLS as CONTROLS
    from .registry import METHODS as METHODS
    from .registry import MethodSpec as MethodSpec
    from .registry import listed_place as listed_place
    from .registry import method_spec as method_spec
    from .resampling import Resampling as Resampling
    from .scratch import Scratch as Scratch

__getattr__, __dir__, __all__ = attach(__name__, __file__)
