#!/usr/bin/env bash
# onnxruntime 1.32.0: in a model with weights of 8 bits (`quantize_dynamic`) the score of a picture depends
# on the pictures beside it in the batch. The values between layers are scaled by the range that the whole
# batch has, so one bright picture takes levels from all others. The same picture alone, in its batch, and in
# a batch with brighter ones has three scores; the model of 32 bits gives one. A model that was judged at one
# batch size is therefore another model at the next, and a patient's result depends on who is beside them.
#
# Seen, for one row of random features (probability of the second class):
#   32 bits  alone 0.5965  with seven others 0.5965  with seven that are six times larger 0.5965
#    8 bits  alone 0.5674  with seven others 0.5701  with seven that are six times larger 0.5384
#
# Exit 0 while it is so, 1 once it is not.
set -eu
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install -q --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$T"
"$T/venv/bin/python" - <<'PY'
import logging
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)
generator = np.random.default_rng(0)
first = generator.normal(0, 0.1, (64, 64)).astype("f")
second = generator.normal(0, 0.3, (64, 2)).astype("f")
graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["logits"]),
    ],
    "classifier",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
    [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
    [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
)
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), "32.onnx")
quantize_dynamic(
    "32.onnx", "8.onnx", weight_type=QuantType.QInt8, per_channel=True, reduce_range=True
)
rows = generator.normal(0, 1, (8, 64)).astype("f")
bright = rows.copy()
bright[1:] *= 6


def score(bits, given):
    session = onnxruntime.InferenceSession(f"{bits}.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(None, {"x": given})[0][0].astype(float)
    return 1 / (1 + np.exp(logits[0] - logits[1]))


found = {bits: [score(bits, given) for given in (rows[:1], rows, bright)] for bits in (32, 8)}
for bits, (alone, beside, beside_bright) in found.items():
    print(f"{bits:2} bits  alone {alone:.4f}  with seven others {beside:.4f}  with brighter ones {beside_bright:.4f}")
same = max(found[32]) - min(found[32]) < 1e-6
differs = max(found[8]) - min(found[8]) > 0.005
sys.exit(not (same and differs))
PY
