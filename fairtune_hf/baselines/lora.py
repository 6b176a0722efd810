"""LoRA (Hu et al., ICLR 2022): low-rank updates of the query and value projections, and the head.

The reference's own helper, which nothing calls, freezes the new head as well; here it is trained.
"""

from __future__ import annotations

import re

from peft import LoraConfig, PeftConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from fairtune_hf.baselines.method import Method
from fairtune_hf.tuner import FairMaskConfig, describe

_QUERY_OR_VALUE = re.compile(r"\.(?:query|value)\.weight$")


class LoRA(Method):
    """Train a rank-r update of the query and value projections of each block whose attention the mask selects.

    Args:
        rank: r; the update is scaled by alpha / r = 1, as in the reference.
    """

    source = (
        "Hu et al., ICLR 2022, section 4.1; r = alpha = 8 as in the reference's utils.py:385-417"
    )

    def __init__(self, *, rank: int = 8) -> None:
        self.rank = rank

    def prepare_model(self, model: PreTrainedModel, mask: PeftConfig) -> nn.Module:
        """Put LoRA layers where the mask selects attention, and train the head whole.

        Raises:
            ValueError: The mask selects no attention, or the model has no separate query and value.
        """
        if not isinstance(mask, FairMaskConfig):
            raise ValueError(
                f"mask: expected a FairMaskConfig, which says in which blocks, got {type(mask).__name__}."
            )
        anatomy = describe(model)
        units = mask.resolve_mask(len(anatomy.blocks)).units()
        targets = [
            leaf.name.rpartition(".")[0]
            for leaf in anatomy.leaves
            if (leaf.block, "attention") in units and _QUERY_OR_VALUE.search(leaf.key)
        ]
        if not targets:
            raise ValueError(
                f"LoRA: expected query and value projections in blocks whose attention the mask selects; "
                f"{type(model).__name__} under this mask has none (a fused qkv cannot be adapted in part). "
                "Use a model with separate projections, and a mask with attention bits."
            )
        heads = {leaf.name.rpartition(".")[0] for leaf in anatomy.leaves if leaf.region == "head"}
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.rank,
            lora_dropout=0.0,
            target_modules=targets,
            modules_to_save=sorted(heads),
        )
        return get_peft_model(model, config)
