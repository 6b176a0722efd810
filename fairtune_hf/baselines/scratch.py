"""Training from scratch: the architecture of the backbone with random weights, then the usual recipe."""

from __future__ import annotations

import copy

from peft import PeftConfig
from torch import nn
from transformers import PreTrainedModel

from fairtune_hf.baselines.method import Method
from fairtune_hf.tuner import PATTERN_ATTRIBUTE, own_pattern


class Scratch(Method):
    """Forget the pre-training: every weight is drawn anew from torch's global random state.

    Combined with the mask `full` this is the paper's "train from scratch"; under a smaller mask what
    is not trained stays random.
    """

    source = "Dutt et al., ICLR 2024, section 4.1"

    def prepare_model(self, model: PreTrainedModel, mask: PeftConfig) -> nn.Module:
        """Put the tuner on a model of the same configuration with freshly drawn weights."""
        fresh = type(model)(copy.deepcopy(model.config))
        if own_pattern(model) is not None:
            setattr(fresh, PATTERN_ATTRIBUTE, own_pattern(model))
        return super().prepare_model(fresh, mask)
