"""Weights of 8 bits: dynamic quantisation by onnxruntime, with the settings that keep decisions.

Weights are scaled channel by channel and use 7 of the 8 bits: without the latter the sums of two products
overflow on processors that have no instruction for them (VNNI), and many more decisions turn. The values that
flow between layers are scaled by the range that a whole batch has, so a score depends on the pictures beside it:
such a model is judged, and is to be served, at one batch size.
"""

from __future__ import annotations

import logging
from pathlib import Path

from fairtune_hf.export.graphs import strip

INT8_FILE = "model.int8.onnx"
SETTINGS = {"per_channel": True, "reduce_range": True}
_LAYERS = ("MatMul", "Gemm")


def quantise(file: Path, told: dict[str, str]) -> Path:
    """Write a model of ONNX with weights of 8 bits beside it, and remove the one of 32."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = file.with_name(INT8_FILE)
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # advice on how to call it
    try:
        quantize_dynamic(
            file,
            small,
            op_types_to_quantize=list(_LAYERS),
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
            **SETTINGS,
        )
    finally:
        root.setLevel(before)
    small.write_bytes(strip(onnx.load(small), told))
    file.unlink()
    return small
