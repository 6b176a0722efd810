"""From a run, an adapter's folder or a Hub id to the score of a picture."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from fairtune_hf.model_description import OperatingPoint as OperatingPoint

    from .loading import load_predictor as load_predictor
    from .predictor import Prediction as Prediction
    from .predictor import Predictor as Predictor

__getattr__, __dir__, __all__ = attach(__name__, __file__)
