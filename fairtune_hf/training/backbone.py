"""The pre-trained classifier a run starts from: loaded once, hashed, copied for every model.

Only safetensors weights are read and no remote code is run. Without a name the backbone embedded in
the package is used (see `demo_backbone/README.md` for how it was made).
"""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from fairtune_hf.tuner import count_blocks, describe

DEMO_BACKBONE = Path(__file__).parent / "demo_backbone"
DEMO_BACKBONE_ID = "fairtune_hf/demo-backbone"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pre-trained image classifier with a fresh two-class head, and where it came from.

    `model` is never trained: `copy_with_new_head` hands out copies, made where it lies.
    """

    model: PreTrainedModel
    id: str
    revision: str | None
    sha256: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    image_size: int

    @property
    def blocks(self) -> int:
        """Number of transformer blocks, the length of a mask in blocks."""
        return count_blocks(self.model)

    def to(self, device: torch.device | str) -> Backbone:
        """Move the kept model to a device and return self; later copies are made there."""
        self.model.to(device)
        return self

    def copy_with_new_head(self) -> PreTrainedModel:
        """Copy the model and draw a new head from torch's global random state."""
        model = copy.deepcopy(self.model)
        names = [
            leaf.name.rpartition(".")[0] for leaf in describe(model).leaves if leaf.region == "head"
        ]
        heads = [model.get_submodule(name) for name in dict.fromkeys(names)]
        if not heads or not all(isinstance(head, torch.nn.Linear) for head in heads):
            raise ValueError(
                f"The model {self.id!r} ({type(model).__name__}) was expected to end in a linear classification head, "
                "and has none. Use an image-classification checkpoint."
            )
        for head in heads:
            std = getattr(model.config, "initializer_range", 0.02)
            # Drawn on the CPU, so that a head does not depend on the device.
            drawn = torch.nn.init.normal_(torch.empty(head.weight.shape), std=std)
            head.weight.data.copy_(drawn)
            if head.bias is not None:
                torch.nn.init.zeros_(head.bias)
        return model

    def describe(self) -> dict[str, str | None]:
        """Return the `model` entry of run.json."""
        return {"id": self.id, "revision": self.revision, "sha256": self.sha256}


def load_backbone(model: str | Path | None = None, *, revision: str | None = None) -> Backbone:
    """Load an image-classification checkpoint with a new two-class head.

    Args:
        model: A local folder, a Hub id, or None for the embedded demo backbone.
        revision: The Hub revision (branch, tag or commit); recorded as the commit it resolved to.

    Raises:
        FileNotFoundError: A local folder that is absent or holds no safetensors weights.
        ValueError: A checkpoint that is not an image classifier with square input, or a Hub id that cannot be loaded.
    """
    path = str(DEMO_BACKBONE if model is None else model)
    name = DEMO_BACKBONE_ID if model is None else path
    if Path(path).is_dir():
        _check_local_folder(Path(path))
        name = name if model is None else Path(path).resolve().name
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise FileNotFoundError(
            f"--model: expected a folder with config.json and *.safetensors, or a Hub id such as "
            f"google/vit-base-patch16-224; there is no folder {path}. Check the path."
        )
    classifier = _load_classifier(path, revision)
    mean, std = _normalisation(path, revision)
    return Backbone(
        model=classifier,
        id=name,
        revision=getattr(classifier.config, "_commit_hash", None),
        sha256=_hash_weights(path, revision),
        image_mean=mean,
        image_std=std,
        image_size=_image_size(classifier, name),
    )


def _check_local_folder(path: Path) -> None:
    missing = [
        what
        for what, pattern in (("config.json", "config.json"), ("*.safetensors", "*.safetensors"))
        if not any(path.glob(pattern))
    ]
    if missing:
        raise FileNotFoundError(
            f"--model: expected a checkpoint with config.json and *.safetensors in {path}; "
            f"{' and '.join(missing)} not found there. Point --model at the folder written by save_pretrained "
            "(weights in other formats are not read)."
        )


def _load_classifier(path: str, revision: str | None) -> PreTrainedModel:
    try:
        with _quiet_transformers():  # a head of another size is what we expect, not a problem
            model = AutoModelForImageClassification.from_pretrained(
                path,
                revision=revision or "main",
                id2label={0: "LABEL_0", 1: "LABEL_1"},
                label2id={"LABEL_0": 0, "LABEL_1": 1},
                ignore_mismatched_sizes=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
            )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--model: expected an image-classification checkpoint in safetensors format, and {path!r} could not be "
            f"loaded as one ({str(error).strip().splitlines()[0]}). Check the name, or download it and give the folder."
        ) from error
    # The base is never trained; every copy starts frozen and the tuner decides what trains.
    return model.eval()


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    before, bar = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bar:
            transformers_logging.enable_progress_bar()


def _normalisation(path: str, revision: str | None) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of the checkpoint's own processor, else 0.5."""
    try:
        processor: Any = AutoImageProcessor.from_pretrained(path, revision=revision or "main")
    except (OSError, ValueError):
        _logger.warning(
            "%s ships no image processor; images are normalised with mean = std = 0.5", path
        )
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if hasattr(processor, "data_config"):  # timm's models carry timm's own description
        processor = processor.data_config
        return tuple(processor["mean"]), tuple(processor["std"])
    return tuple(processor.image_mean), tuple(processor.image_std)


def _image_size(model: PreTrainedModel, name: str) -> int:
    size = getattr(model.config, "image_size", None)
    if size is None:  # timm's models say it as (channels, height, width)
        size = (getattr(model.config, "pretrained_cfg", None) or {}).get("input_size", [None])[1:]
    if isinstance(size, (list, tuple)) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise ValueError(
            f"--model: expected a checkpoint with a square `image_size` in its config; {name} has {size!r}. "
            "Choose a ViT-like image classifier."
        )
    return size


def _hash_weights(path: str, revision: str | None) -> str:
    """SHA-256 over the weight files in name order, so that a run names the exact weights it used."""
    if Path(path).is_dir():
        files = sorted(Path(path).glob("*.safetensors"))
    else:
        files = [Path(cached_file(path, "model.safetensors", revision=revision or "main"))]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
