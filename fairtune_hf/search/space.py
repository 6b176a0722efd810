"""The search space: one bit for each maskable part of the model, and the learning rate.

`hp_space` and `model_init` have the signatures `Trainer.hyperparameter_search` calls; both ask
`suggest_mask`, which is idempotent within a trial, so it does not matter which is called first.
"""

from __future__ import annotations

from typing import Any

from peft import PeftModel, get_peft_model
from transformers import set_seed

from fairtune_hf.training.backbone import Backbone, load_backbone
from fairtune_hf.tuner import FairMaskConfig, Mask, mask_bit_names

LEARNING_RATE_RANGE = (1.0e-5, 1.0e-3)  # PROTOCOL of the paper's search: log-uniform


def suggest_mask(trial: Any, *, layout: str = "block3", blocks: int = 12) -> Mask:
    """Ask a trial for every bit of the mask; asking again returns the same mask.

    Args:
        trial: An Optuna trial (or FixedTrial).
        layout: Meaning of the bits, see `fairtune_hf.tuner.mask`.
        blocks: Transformer blocks of the model.
    """
    bits = [trial.suggest_categorical(name, [0, 1]) for name in mask_bit_names(layout, blocks)]
    return Mask.parse(bits, layout=layout, blocks=blocks)


class HpSpace:
    """The space for `Trainer.hyperparameter_search(hp_space=...)`: suggests the bits and the learning rate.

    Only the learning rate is returned, because the Trainer sets what is returned on its arguments;
    the bits reach the model through `ModelInit`.

    Args:
        layout: Meaning of the bits.
        blocks: Transformer blocks of the model.
        learning_rate: Range of the log-uniform learning rate.
    """

    def __init__(
        self,
        *,
        layout: str = "block3",
        blocks: int = 12,
        learning_rate: tuple[float, float] = LEARNING_RATE_RANGE,
    ) -> None:
        self.layout, self.blocks, self.learning_rate = layout, blocks, learning_rate

    def __call__(self, trial: Any) -> dict[str, float]:
        """Suggest the bits and return the learning rate."""
        suggest_mask(trial, layout=self.layout, blocks=self.blocks)
        low, high = self.learning_rate
        return {"learning_rate": trial.suggest_float("learning_rate", low, high, log=True)}


class ModelInit:
    """The `model_init` of a Trainer: a fresh copy of the backbone under the trial's mask.

    The head is drawn from `seed`, set here because the Trainer applies a trial's seed only after
    the model has been built. Without a trial (the Trainer calls it once at construction) the mask is `none`.

    Args:
        backbone: Where every model starts; None loads the embedded demo backbone on first use.
        layout: Meaning of the bits.
        seed: Seed of the new head, the same for every trial.
    """

    def __init__(
        self, backbone: Backbone | None = None, *, layout: str = "block3", seed: int = 0
    ) -> None:
        self._backbone = backbone
        self.layout, self.seed = layout, seed

    @property
    def backbone(self) -> Backbone:
        """The backbone copies are made of."""
        if self._backbone is None:
            self._backbone = load_backbone()
        return self._backbone

    def __call__(self, trial: Any = None) -> PeftModel:
        """Return a fresh model under the trial's mask."""
        blocks = self.backbone.blocks
        mask = (
            Mask.parse("none", layout=self.layout, blocks=blocks)
            if trial is None
            else suggest_mask(trial, layout=self.layout, blocks=blocks)
        )
        set_seed(self.seed)
        config = FairMaskConfig(mask=str(mask), layout=self.layout)
        return get_peft_model(self.backbone.copy_with_new_head(), config)


hp_space = HpSpace()
model_init = ModelInit()
