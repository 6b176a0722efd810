"""A model as a graph that runs without its code: traced with made-up pictures, free of this machine's traces.

A trace keeps the pictures it was made with, and every node the stack, paths and source lines of whoever
called it. So no picture of a patient is traced with, and what is written holds neither: two exports of one
run from different folders are equal to the byte.
"""

from __future__ import annotations

import copy
import importlib
import io
import logging
import random
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

INPUT_NAME, OUTPUT_NAME, BATCH_NAME = "pixel_values", "logits", "batch"
ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"
MOST_BYTES = 2**31 - 2**24  # a file of ONNX is one protocol buffer, which ends below 2 GB
_TRACED_PICTURES = 2  # of one alone the batch would be fixed
_EPOCH = (1980, 1, 1, 0, 0, 0)
_OF_THE_MACHINE = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")


class _Logits(nn.Module):
    """A classifier of transformers that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Any:
        return self.model(pixel_values=pixel_values).logits


def require_extra() -> None:
    """Refuse to go on without the libraries of the extra `export`.

    Raises:
        ModuleNotFoundError: One is not installed; the message says how to.
    """
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"--format onnx: expected the package {name}, and it is not installed. Run pip install 'fairtune_hf[export]'."
            ) from error


def trace(model: nn.Module, size: int) -> Any:
    """Trace a classifier into a `torch.export.ExportedProgram` of any batch, with nothing of this machine in it.

    Args:
        model: A classifier of transformers without adapter, on the CPU, in evaluation mode.
        size: Side of its pictures in pixels.
    """
    model = copy.deepcopy(model).requires_grad_(False)
    _use_plain_attention(model)
    generator = torch.Generator().manual_seed(0)
    made_up = torch.rand((_TRACED_PICTURES, 3, size, size), generator=generator)
    with _quiet():
        program = torch.export.export(
            _Logits(model).eval(),
            (),
            kwargs={INPUT_NAME: made_up},
            dynamic_shapes={INPUT_NAME: {0: torch.export.Dim(BATCH_NAME, min=1)}},
        )
    program.example_inputs = None
    return program


def _use_plain_attention(model: Any) -> None:
    """Compute attention step by step: the fused one of windows (Swin) cannot be taken apart for ONNX."""
    if model.config.model_type != "timm_wrapper":
        model.set_attn_implementation("eager")


def write_program(program: Any, folder: Path) -> Path:
    """Write a traced program; `torch.export.load` reads it."""
    for graph in program.graph_module.modules():
        for node in getattr(getattr(graph, "graph", None), "nodes", ()):
            for name in _OF_THE_MACHINE:
                node.meta.pop(name, None)
    buffer = io.BytesIO()
    with _quiet():
        torch.export.save(program, buffer)
    file = folder / PROGRAM_FILE
    file.write_bytes(_without_times(buffer.getvalue()))
    return file


def _without_times(raw: bytes) -> bytes:
    """Write an archive again with neither times nor the number that tells one saving from the next."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(written, "w") as new:
        for name in old.namelist():
            content = b"0" if name.endswith("serialization_id") else old.read(name)
            new.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return written.getvalue()


def write_onnx(program: Any, folder: Path, told: dict[str, str]) -> Path:
    """Write a traced program as one file of ONNX.

    Args:
        program: From `trace`.
        folder: Where to.
        told: What the file's own metadata say, by name.

    Raises:
        ValueError: It would be larger than one file of ONNX may be.
    """
    size = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    if size > MOST_BYTES:
        raise ValueError(
            f"--format onnx: expected a model below 2 GB, as one file of ONNX has to be, got {size / 1e9:.1f} GB of weights. "
            "Export with --format transformers."
        )
    with _quiet():
        made = torch.onnx.export(
            program,
            (),
            kwargs=None,
            dynamo=True,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            verbose=False,
        )
    assert made is not None  # for the type checker
    file = folder / ONNX_FILE
    file.write_bytes(strip(made.model_proto, told))
    return file


def strip(proto: Any, told: dict[str, str]) -> bytes:
    """Return a model of ONNX as bytes, without what its nodes say of where they come from.

    Args:
        proto: An `onnx.ModelProto`, which is changed.
        told: What the model's metadata say instead.
    """
    graph = proto.graph
    renamed = _symbol(graph)
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == renamed:
                dim.dim_param = BATCH_NAME
    for name, text in sorted(told.items()):
        proto.metadata_props.add(key=name, value=text)
    return bytes(proto.SerializeToString(deterministic=True))


def _symbol(graph: Any) -> str:
    return str(graph.input[0].type.tensor_type.shape.dim[0].dim_param)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' notes on their own parts from the user, and their draws from the random state."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "")]
    before = [logger.level for logger in loggers]
    state = random.getstate()
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
