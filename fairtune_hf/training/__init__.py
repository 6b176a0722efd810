"""Training one model: the backbone, the Trainer, the refit and the run's folder."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from fairtune_hf.run_folder import RunFolder as RunFolder

    from .adapter import require_whole_adapter as require_whole_adapter
    from .arguments import FitArguments as FitArguments
    from .backbone import Backbone as Backbone
    from .backbone import load_backbone as load_backbone
    from .candidate import Candidate as Candidate
    from .dataset import ImageDataset as ImageDataset
    from .dataset import collate_batch as collate_batch
    from .description import describe_dataset as describe_dataset
    from .external import score_external as score_external
    from .refit import check_same_base as check_same_base
    from .refit import check_same_inputs as check_same_inputs
    from .refit import finetune as finetune
    from .train import Training as Training
    from .train import build_datasets as build_datasets
    from .trainer import FairTrainer as FairTrainer

__getattr__, __dir__, __all__ = attach(__name__, __file__)
