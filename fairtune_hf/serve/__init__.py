"""A local page that scores one picture at a time with a trained model, and keeps none of them."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .server import serve_model as serve_model

__getattr__, __dir__, __all__ = attach(__name__, __file__)
