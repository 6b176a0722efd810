"""The files of an export beside its graph or weights: what prepares its pictures, and what is to be known of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fairtune_hf.export import preparation
from fairtune_hf.inference import Predictor
from fairtune_hf.model_description import InputRecord
from fairtune_hf.plain_data import to_plain
from fairtune_hf.training.classifier import quiet_transformers

PREPARATION, PROCESSOR = "preparation.py", "preprocessor_config.json"
_OF_THE_MACHINE = ("_name_or_path", "transformers_version")


def write_preparation(folder: Path, given: InputRecord) -> None:
    """Write the module that prepares pictures as the training did, with the numbers of this model in it."""
    numbers = f"INPUT: dict[str, Any] = {input_of(given)!r}"
    code = Path(preparation.__file__).read_text(encoding="utf-8")
    filled, found = re.subn(r"^INPUT: .*$", lambda _: numbers, code, flags=re.MULTILINE)
    if found != 1:
        raise RuntimeError("preparation.py has no one line to put the model's numbers into")
    (folder / PREPARATION).write_text(filled, encoding="utf-8")


def input_of(given: InputRecord) -> dict[str, Any]:
    """Return what `preparation.py` needs to know of what a picture goes through."""
    plain = to_plain(given)
    names = ("image_size", "stored_sides", "image_mean", "image_std", "depth16")
    return {name: plain[name] for name in names}


def write_transformers(
    model: Any, folder: Path, predictor: Predictor, half: torch.dtype | None
) -> None:
    """Write weights, config and processor as a folder that transformers opens.

    Args:
        model: The merged model.
        folder: Where to.
        predictor: What belongs to the model.
        half: Store the weights in this precision; they are computed with in 32 bits all the same.
    """
    told = processor_of(predictor.described.input)
    model.config.num_labels = len(predictor.id2label)
    model.config.id2label = dict(predictor.id2label)
    model.config.label2id = {name: code for code, name in predictor.id2label.items()}
    if half is not None:
        model = model.to(half)
    with quiet_transformers():
        model.save_pretrained(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    for name in _OF_THE_MACHINE:
        config.pop(name, None)
    config["architectures"] = [type(model).__name__]
    # Weights of half precision are read into 32 bits: on a CPU they are many times slower to compute with.
    config["dtype"] = "float32"
    # timm's models are asked for their processor here, the others in the processor's own file.
    config["image_processor_type"] = told["image_processor_type"]
    file.write_text(_json(config), encoding="utf-8")
    (folder / PROCESSOR).write_text(_json(told), encoding="utf-8")


def processor_of(given: InputRecord) -> dict[str, Any]:
    """Return the processor of transformers that is nearest, of equal pixels for square pictures with its backend of Pillow.

    Where what is stored is what the model sees, that one cuts the centre square and then resizes it, as the training
    did but for the outermost pixels. Else it resizes the shorter side and cuts the centre. Its backend of torchvision,
    which is taken by itself, rounds some pixels to the next grey level.
    """
    size, stored = given.image_size, given.stored_sides[-1]
    square = {"height": size, "width": size}
    cuts_first = stored == size
    return {
        "image_processor_type": f"{'Perceiver' if cuts_first else 'CLIP'}ImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": square if cuts_first else {"shortest_edge": stored},
        "resample": int(Image.Resampling.BILINEAR),
        "do_center_crop": True,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(given.image_mean),
        "image_std": list(given.image_std),
    }


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a file of JSON."""
    file.write_text(_json(content), encoding="utf-8")


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
