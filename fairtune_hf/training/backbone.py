"""The pre-trained classifier a run starts from: loaded once, hashed, copied for every model.

Only safetensors weights are read and no remote code is run. Without a name the backbone embedded in
the package is used (see `demo_backbone/README.md` for how it was made).
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from fairtune_hf.checksums import hash_files
from fairtune_hf.mask import UNITS
from fairtune_hf.run_record import ModelRecord
from fairtune_hf.training.checkpoint import check_name, find_weights, resolved_commit
from fairtune_hf.training.classifier import check_heads, head_modules, load_classifier
from fairtune_hf.training.model_input import ModelInput, read_input
from fairtune_hf.tuner import BlockPattern, count_blocks, describe

DEMO_BACKBONE = Path(__file__).parent / "demo_backbone"
DEMO_BACKBONE_ID = "fairtune_hf/demo-backbone"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A pre-trained image classifier with a fresh two-class head, and where it came from.

    `model` is never trained: `copy_with_new_head` hands out copies, made where it lies. Pictures are
    `image_size` pixels wide and high; mean and deviation are per channel on the [0, 1] scale.
    `processor_asks` is what the checkpoint's own processor says, whether or not it is done.
    """

    model: PreTrainedModel
    id: str
    revision: str | None
    sha256: str
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    image_size: int
    processor_asks: dict[str, Any] = field(default_factory=dict, repr=False)

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
        names = [leaf.name for leaf in describe(model).leaves if leaf.region == "head"]
        for head in check_heads(model, head_modules(names), self.id):
            std = getattr(model.config, "initializer_range", 0.02)
            # Drawn on the CPU, so that a head does not depend on the device.
            drawn = torch.nn.init.normal_(torch.empty(head.weight.shape), std=std)
            head.weight.data.copy_(drawn)
            if head.bias is not None:
                torch.nn.init.zeros_(head.bias)
        return model

    def count_parameters(self) -> dict[str, int]:
        """Count the parameters of the blocks' LayerNorms, attentions and MLPs, of the head and of all else."""
        sizes = {name: value.numel() for name, value in self.model.named_parameters()}
        counts = dict.fromkeys(("layernorm", "attention", "mlp", "head", "other"), 0)
        for leaf in describe(self.model).leaves:
            unit = "layernorm" if leaf.unit in UNITS["layernorm"] else leaf.unit
            counts[unit or ("head" if leaf.region == "head" else "other")] += sizes[leaf.name]
        return counts

    def describe(self) -> ModelRecord:
        """Describe the model for run.json."""
        fed = ModelInput(
            image_size=self.image_size,
            image_mean=self.image_mean,
            image_std=self.image_std,
            asked=self.processor_asks,
        )
        return ModelRecord(
            id=self.id,
            revision=self.revision,
            sha256=self.sha256,
            input=fed.describe(),
            parameters=self.count_parameters(),
        )


def load_backbone(
    model: str | Path | None = None,
    *,
    revision: str | None = None,
    block_pattern: BlockPattern | None = None,
) -> Backbone:
    """Load a checkpoint's body with a new two-class head, and try it on one picture.

    Args:
        model: A local folder, a Hub id, or None for the embedded demo backbone. A classifier or a model without a head;
            of CLIP and SigLIP the vision tower is used, of ViTMAE the encoder.
        revision: The Hub revision (branch, tag or commit); recorded as the commit it resolved to.
        block_pattern: Where the blocks of an unknown architecture are: a glob, or a mapping (also as JSON) with that glob under
            `block` and the children's names under `norm1`, `norm2`, `attention`, `mlp` and `head`.

    Raises:
        FileNotFoundError: A local folder that is absent or lacks its config, its weights or a shard.
        ValueError: A checkpoint that cannot be an image classifier of square colour pictures; weights missing outside the head,
            or of another shape than the config says; a Hub id that cannot be loaded.
    """
    path = str(DEMO_BACKBONE if model is None else model)
    check_name(path)
    name = DEMO_BACKBONE_ID if model is None else path
    if model is not None and Path(path).is_dir():
        name = Path(path).resolve().name
    weights = find_weights(path, revision)
    commit = resolved_commit(path, weights)
    # Weights, config and processor of one commit, also where a branch moves on meanwhile.
    classifier = load_classifier(path, commit or revision, _read_pattern(block_pattern))
    fed = read_input(classifier, path, commit or revision)
    return Backbone(
        model=classifier,
        id=name,
        revision=commit,
        sha256=hash_files(weights),
        image_mean=fed.image_mean,
        image_std=fed.image_std,
        image_size=fed.image_size,
        processor_asks=fed.asked,
    )


def _read_pattern(pattern: BlockPattern | None) -> BlockPattern | None:
    """Read a pattern that is written as JSON, as on a command line; a glob stays as it is."""
    if not isinstance(pattern, str) or not pattern.strip().startswith("{"):
        return pattern
    try:
        found: dict[str, str | list[str]] = json.loads(pattern)
    except ValueError as error:
        raise ValueError(
            f"--block-pattern: expected a glob such as 'trunk.cells.*', or a JSON mapping with that under \"block\", got "
            f"{pattern!r} ({error})."
        ) from error
    return found
