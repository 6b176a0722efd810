"""The earlier name of `array_files`, for programs that import from it."""

from __future__ import annotations

from fairtune_hf.data.array_files import SliceSource

__all__ = ["SliceSource"]
