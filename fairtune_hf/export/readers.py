"""Scores of an export, read from its files as a stranger would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.special import softmax

from fairtune_hf.export.graphs import INPUT_NAME, OUTPUT_NAME, PROGRAM_FILE
from fairtune_hf.training.classifier import quiet_transformers

Scorer = Callable[[np.ndarray], np.ndarray]
"""From (n, 3, size, size) float32 to the probability of label 1, (n,) float64."""


def open_onnx(file: Path) -> Scorer:
    """Open a model of ONNX on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def score(values: np.ndarray) -> np.ndarray:
        (logits,) = session.run([OUTPUT_NAME], {INPUT_NAME: values})
        return probability(logits)

    return score


def open_program(folder: Path) -> Scorer:
    """Open a traced program."""
    program = torch.export.load(folder / PROGRAM_FILE).module()

    def score(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = program(pixel_values=torch.from_numpy(values))
        return probability(logits.numpy())

    return score


def open_transformers(folder: Path) -> Scorer:
    """Open a folder of transformers, by the class that its config names."""
    from transformers import AutoModelForImageClassification

    with quiet_transformers():
        model = AutoModelForImageClassification.from_pretrained(folder, use_safetensors=True).eval()

    def score(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits = model(pixel_values=torch.from_numpy(values).to(model.dtype)).logits
        return probability(logits.float().numpy())

    return score


def score_by_pipeline(folder: Path, squares: np.ndarray, positive: str) -> np.ndarray:
    """Score stored squares, (n, side, side, 3) uint8, by the pipeline of transformers; read by the label's name."""
    from transformers import pipeline

    with quiet_transformers():
        classify: Any = pipeline("image-classification", model=str(folder), device="cpu")
    found = classify([Image.fromarray(square) for square in squares])
    return np.array([{one["label"]: one["score"] for one in each}[positive] for each in found])


def probability(logits: np.ndarray) -> np.ndarray:
    """Return the probability of label 1, (n,) float64, of logits (n, 2)."""
    return np.asarray(softmax(np.asarray(logits, dtype=np.float64), axis=1)[:, 1])
