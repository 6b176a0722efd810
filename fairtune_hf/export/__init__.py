"""From a run to files that others open without this package: transformers, ONNX, a traced program."""

from typing import TYPE_CHECKING

from fairtune_hf.lazy import attach

if TYPE_CHECKING:
    from .bounds import Bounds as Bounds
    from .request import Request as Request
    from .run import export_run as export_run
    from .sameness import ExportRefused as ExportRefused

__getattr__, __dir__, __all__ = attach(__name__, __file__)
