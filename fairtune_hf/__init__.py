"""FairTune (Dutt et al., ICLR 2024) as a Hugging Face PEFT plugin.

Importing this package lets PEFT know `FairMaskConfig`, so that saved adapters load. It imports neither
PEFT nor PyTorch: the names below are loaded on first use, and the tuner together with PEFT.
"""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach
from fairtune_hf.peft_import import register_with_peft
from fairtune_hf.version import __version__ as __version__

if TYPE_CHECKING:
    from fairtune_hf.data import ImageTable as ImageTable
    from fairtune_hf.data import load_dataset_table as load_dataset_table
    from fairtune_hf.inference import load_predictor as load_predictor
    from fairtune_hf.mask import Mask as Mask
    from fairtune_hf.metrics import compare_predictions as compare_predictions
    from fairtune_hf.metrics import compute_metrics as compute_metrics
    from fairtune_hf.metrics import evaluate_predictions as evaluate_predictions
    from fairtune_hf.metrics import group_metrics as group_metrics
    from fairtune_hf.search import hp_space as hp_space
    from fairtune_hf.search import model_init as model_init
    from fairtune_hf.search import search_masks as search_masks
    from fairtune_hf.search import suggest_mask as suggest_mask
    from fairtune_hf.search import use_best_trial as use_best_trial
    from fairtune_hf.training import collate_batch as collate_batch
    from fairtune_hf.training import finetune as finetune
    from fairtune_hf.training import load_backbone as load_backbone
    from fairtune_hf.tuner import FairMaskConfig as FairMaskConfig
    from fairtune_hf.tuner import FairMaskModel as FairMaskModel

__getattr__, __dir__, __all__ = attach(__name__, __file__)
register_with_peft()
