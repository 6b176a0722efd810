"""What a checkpoint is fed: side, channel mean and deviation, by its own image processor.

A processor computes `(x * factor - mean) / std` of values 0..255, each step of which it may leave out;
here every such rule is one mean and deviation on the [0, 1] scale. What it asks for beside that
(interpolation, the share of the picture that is kept) is recorded, not done.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.utils import cached_file

INTERPOLATION = "bilinear"
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_UNSUITABLE = (RuntimeError, ValueError, TypeError, AssertionError, IndexError, AttributeError)

_logger = logging.getLogger(__name__)

Numbers = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """The pictures a model takes: three channels on the [0, 1] scale, minus mean, over deviation.

    `asked` is what the checkpoint's processor says of side (px), interpolation and share of the side
    that the centre crop keeps; empty where there is no processor.
    """

    image_size: int
    image_mean: Numbers
    image_std: Numbers
    asked: dict[str, Any]

    def describe(self) -> dict[str, Any]:
        """Return what is done, and what the checkpoint asks for, as run.json has it."""
        return {
            "image_size": self.image_size,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "interpolation": INTERPOLATION,
            "crop": "centre square of the shorter side; transforms that store larger pictures keep their centre",
            "processor_asks": self.asked or None,
        }


def read_input(model: PreTrainedModel, path: str, revision: str | None) -> ModelInput:
    """Read what to feed a model, and try it: the processor's side if the model takes it, else the config's.

    Raises:
        ValueError: The processor asks for what cannot be done, or the model takes square pictures of neither side.
    """
    processor = _load_processor(path, revision)
    mean: Numbers = (0.5, 0.5, 0.5)
    std = mean
    if processor is None:
        asked: dict[str, Any] = {}
    elif hasattr(processor, "data_config"):  # timm's models carry timm's own description
        mean, std, asked = _read_timm(processor.data_config)
    else:
        mean, std = _normalisation(processor, path)
        asked = _read_geometry(processor)
    size = _choose_size(model, asked.get("image_size"), path)
    return ModelInput(image_size=size, image_mean=mean, image_std=std, asked=asked)


def _load_processor(path: str, revision: str | None) -> Any | None:
    try:
        return AutoImageProcessor.from_pretrained(
            path, revision=revision or "main", trust_remote_code=False
        )
    except Exception as error:
        # Of a processor from elsewhere anything can be wrong; none at all is allowed, a broken one is not.
        for name in _PROCESSOR_FILES:
            if _has_file(path, name, revision):
                raise ValueError(
                    f"--model: expected {name} of {path!r} to describe an image processor, and it cannot be read as one "
                    f"({(str(error).strip() or type(error).__name__).splitlines()[0]}). Correct it, or remove the file to "
                    "have pictures normalised with mean = std = 0.5."
                ) from error
    _logger.warning(
        "%s ships no image processor; images are normalised with mean = std = 0.5", path
    )
    return None


def _has_file(path: str, name: str, revision: str | None) -> bool:
    try:
        found = cached_file(
            path, name, revision=revision or "main", _raise_exceptions_for_missing_entries=False
        )
    except OSError:
        return False
    return found is not None


def _normalisation(processor: Any, path: str) -> tuple[Numbers, Numbers]:
    """Mean and deviation on the [0, 1] scale that do what the processor's own steps do."""
    if getattr(processor, "do_flip_channel_order", False):
        raise ValueError(
            f"--model: expected a checkpoint for pictures in red, green, blue, and the processor of {path!r} turns the "
            "channels around (do_flip_channel_order). Choose another checkpoint."
        )
    mean: Numbers = (0.0, 0.0, 0.0)
    std: Numbers = (1.0, 1.0, 1.0)
    if processor.do_normalize:
        mean = _three(processor.image_mean, "image_mean", path)
        std = _three(processor.image_std, "image_std", path)
    # one unit of [0, 1] in the units that mean and deviation are in
    unit = 1.0
    if not processor.do_rescale:
        unit = 255.0
    elif (factor := float(processor.rescale_factor)) != 1 / 255:
        unit = 255.0 * factor
    if getattr(processor, "rescale_offset", False) and processor.do_rescale:
        mean = tuple(value + 1.0 for value in mean)
    if unit == 1.0:
        return mean, std
    return tuple(value / unit for value in mean), tuple(value / unit for value in std)


def _three(values: Any, name: str, path: str) -> Numbers:
    given = (
        [values] * 3
        if isinstance(values, int | float)
        else list(values)
        if values is not None
        else []
    )
    numbers = tuple(float(value) for value in given if isinstance(value, int | float))
    if len(numbers) != 3 or (name == "image_std" and 0.0 in numbers):
        raise ValueError(
            f"--model: expected {name} of the image processor of {path!r} to be three numbers"
            f"{', none of them 0' if name == 'image_std' else ''}, got {values!r}. Correct preprocessor_config.json, or set "
            "do_normalize to false there."
        )
    return numbers


def _read_timm(described: dict[str, Any]) -> tuple[Numbers, Numbers, dict[str, Any]]:
    mean = _three(described["mean"], "mean", "timm")
    std = _three(described["std"], "std", "timm")
    asked = {
        "image_size": _square(described["input_size"][1:]),
        "interpolation": described["interpolation"],
        "crop_share": described["crop_pct"],
    }
    return mean, std, asked


def _read_geometry(processor: Any) -> dict[str, Any]:
    """Side, interpolation and kept share of a processor of transformers; None where it says nothing."""
    resized = _side(getattr(processor, "size", None)) if processor.do_resize else None
    cropped = None
    if getattr(processor, "do_center_crop", False):
        cropped = _side(getattr(processor, "crop_size", None))
    resample = getattr(processor, "resample", None)
    return {
        "image_size": cropped or resized,
        "interpolation": None if resample is None else _RESAMPLING.get(int(resample)),
        "crop_share": round(cropped / resized, 4) if cropped and resized else 1.0,
    }


def _side(size: Any) -> int | None:
    """The side of a processor's size: of a square, or of the shorter edge."""
    if size is None or isinstance(size, int):
        return size
    if size.get("height") is not None:
        return _square((size["height"], size["width"]))
    edge: int | None = size.get("shortest_edge")
    return edge


def _square(sides: Sequence[int]) -> int | None:
    return int(sides[0]) if len(set(sides)) == 1 else None


def own_size(model: PreTrainedModel) -> int | None:
    """The side, in pixels, that a model's config names; None if that is not a square, or not said."""
    vision: Any = getattr(model.config, "vision_config", None) or model.config
    size: Any = getattr(vision, "image_size", None)
    if size is None:  # timm's models say it in the patch embedding, or as (channels, height, width)
        patches = getattr(getattr(model, "timm_model", None), "patch_embed", None)
        size = getattr(patches, "img_size", None)
        size = (
            size or (getattr(model.config, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
        )
    return size if isinstance(size, int) else _square(size) if size else None


def _choose_size(model: PreTrainedModel, asked: int | None, path: str) -> int:
    own, why = own_size(model), ""
    for size in dict.fromkeys((asked, own)):
        if size is None:
            continue
        why = _fault(model, size)
        if why:
            continue
        if asked is not None and size != asked:
            _logger.warning(
                "%s: the image processor asks for %d px, which the model does not take; pictures have %d px, as its config says",
                path,
                asked,
                size,
            )
        return size
    sizes = " or ".join(str(size) for size in dict.fromkeys((asked, own)) if size) or "unknown"
    raise ValueError(
        f"--model: expected a checkpoint that classifies square pictures (image_size in its config, here {sizes}), and {path!r} "
        f"does not ({why or 'it names no square side'}). Choose a ViT-like image classifier."
    )


@torch.no_grad()
def _fault(model: PreTrainedModel, size: int) -> str:
    """Why a model does not give two logits for one picture of this side; empty if it does."""
    try:
        logits = model(pixel_values=torch.zeros(1, 3, size, size)).logits
    except _UNSUITABLE as error:
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return "" if tuple(logits.shape) == (1, 2) else f"it gives {tuple(logits.shape)} outputs"
