"""The two functions `Trainer.hyperparameter_search` calls for each trial, made for a search space.

They work with our Trainer and with an unmodified one; both ask the space, so it does not matter which is
called first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peft import get_peft_model
from torch import nn
from transformers import set_seed

from fairtune_hf.search.space import LEARNING_RATE_RANGE, Candidate, SearchSpace
from fairtune_hf.training.backbone import Backbone, load_backbone

BuildModel = Callable[[Backbone, Candidate], nn.Module]


def build_masked_model(backbone: Backbone, candidate: Candidate) -> nn.Module:
    """Return a fresh copy of the backbone under the candidate's mask."""
    return get_peft_model(backbone.copy_with_new_head(), candidate.config())


class HpSpace:
    """The space for `Trainer.hyperparameter_search(hp_space=...)`.

    Only what the Trainer knows how to set is returned (learning rate, epochs, seed); the mask and a method's
    hyperparameters reach the model through `ModelInit`.

    Args:
        space: What to search; without it a free mask in the given layout.
        layout: Meaning of the bits.
        blocks: Transformer blocks of the model.
        learning_rate: Range of the log-uniform learning rate.
    """

    def __init__(
        self,
        space: SearchSpace | None = None,
        *,
        layout: str = "block3",
        blocks: int = 12,
        learning_rate: tuple[float, float] = LEARNING_RATE_RANGE,
    ) -> None:
        self.space = space or SearchSpace(layout=layout, blocks=blocks, learning_rate=learning_rate)

    def __call__(self, trial: Any) -> dict[str, float]:
        """Suggest everything and return what goes into the Trainer's arguments."""
        candidate = self.space.suggest(trial)
        settings: dict[str, float] = {"learning_rate": candidate.learning_rate}
        if candidate.epochs is not None:
            settings["num_train_epochs"] = candidate.epochs
        if candidate.seed is not None:
            settings["seed"] = candidate.seed
        return settings


class ModelInit:
    """The `model_init` of a Trainer: a fresh model for the trial's candidate.

    The head is drawn from the seed, set here because the Trainer applies a trial's seed only after
    the model has been built. Without a trial (the Trainer calls it once at construction) the mask is `none`.

    Args:
        backbone: Where every model starts; None loads the embedded demo backbone on first use.
        space: What to ask a trial for; without it a free mask in `layout`.
        layout: Meaning of the bits.
        seed: Seed of the new head, the same for every trial whose candidate names none.
        build_model: Makes the model of a candidate; the backbone under its mask by default.
        on_candidate: Called with each trial's candidate before its model is built, on every process.
    """

    def __init__(
        self,
        backbone: Backbone | None = None,
        space: SearchSpace | None = None,
        *,
        layout: str = "block3",
        seed: int = 0,
        build_model: BuildModel = build_masked_model,
        on_candidate: Callable[[Candidate], object] | None = None,
    ) -> None:
        self._backbone, self._space = backbone, space
        self.layout, self.seed = layout if space is None else space.layout, seed
        self._build_model, self._on_candidate = build_model, on_candidate

    @property
    def backbone(self) -> Backbone:
        """The backbone copies are made of."""
        if self._backbone is None:
            self._backbone = load_backbone()
        return self._backbone

    def __call__(self, trial: Any = None) -> nn.Module:
        """Return a fresh model."""
        if trial is None:
            set_seed(self.seed)
            placeholder = Candidate(mask="none", layout=self.layout, learning_rate=0.0)
            return build_masked_model(self.backbone, placeholder)
        space = self._space or SearchSpace(layout=self.layout, blocks=self.backbone.blocks)
        candidate = space.suggest(trial)
        if self._on_candidate is not None:
            self._on_candidate(candidate)
        set_seed(self.seed if candidate.seed is None else candidate.seed)
        return self._build_model(self.backbone, candidate)


hp_space = HpSpace()
model_init = ModelInit()
