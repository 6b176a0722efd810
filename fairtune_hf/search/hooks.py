"""The two functions `Trainer.hyperparameter_search` calls for each trial, made for a search space.

They work with our Trainer and with an unmodified one; both ask the space, so it does not matter which is
called first.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import FixedTrial
from peft import get_peft_model
from torch import nn
from transformers import Trainer, set_seed
from transformers.trainer_utils import BestRun

from fairtune_hf.naming import shortened
from fairtune_hf.search.space import LEARNING_RATE_RANGE, SearchSpace
from fairtune_hf.training.backbone import Backbone, load_backbone
from fairtune_hf.training.candidate import Candidate

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
        return self.settings(self.space.suggest(trial))

    @staticmethod
    def settings(candidate: Candidate) -> dict[str, float]:
        """Return what of a candidate goes into the Trainer's arguments."""
        settings: dict[str, float] = {"learning_rate": candidate.learning_rate}
        if candidate.epochs is not None:
            settings["num_train_epochs"] = candidate.epochs
        if candidate.seed is not None:
            settings["seed"] = candidate.seed
        return settings


class ModelInit:
    """The `model_init` of a Trainer: a fresh model for the trial's candidate.

    The head is drawn from the seed, set here because the Trainer applies a trial's seed only after
    the model has been built. Without a trial (the Trainer calls it once at construction) there is no mask to
    train: the model is a placeholder, which can be scored and refuses to be trained. After a search
    `use_best_trial` gives it the mask that was found.

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
        self.chosen: Candidate | None = None

    @property
    def backbone(self) -> Backbone:
        """The backbone copies are made of."""
        if self._backbone is None:
            self._backbone = load_backbone()
        return self._backbone

    @property
    def space(self) -> SearchSpace:
        """What a trial is asked for."""
        return self._space or SearchSpace(layout=self.layout, blocks=self.backbone.blocks)

    def choose(self, parameters: Mapping[str, Any]) -> ModelInit:
        """Return one like this that builds what a trial with these parameters trained, where there is no trial.

        Args:
            parameters: Of a trial of this space: `trial.params`, or `hyperparameters` of the Trainer's `BestRun`.

        Raises:
            ValueError: Parameters of the space are missing.
        """
        missing = [name for name in self.space.parameter_names if name not in parameters]
        if missing:
            raise ValueError(
                f"parameters: expected all of a trial of this space, and {shortened(missing)} are missing. "
                "Give the hyperparameters of the search's best run as they are."
            )
        chosen = copy.copy(self)
        chosen.chosen = self.space.suggest(FixedTrial(dict(parameters)))
        return chosen

    def __call__(self, trial: Any = None) -> nn.Module:
        """Return a fresh model."""
        if trial is None and self.chosen is None:
            set_seed(self.seed)
            placeholder = Candidate(mask="none", layout=self.layout, learning_rate=0.0)
            model = build_masked_model(self.backbone, placeholder)
            model.register_forward_pre_hook(_refuse_training)
            return model
        candidate = self.chosen if trial is None else self.space.suggest(trial)
        assert candidate is not None  # for the type checker
        if self._on_candidate is not None:
            self._on_candidate(candidate)
        set_seed(self.seed if candidate.seed is None else candidate.seed)
        return self._build_model(self.backbone, candidate)


def use_best_trial(trainer: Trainer, best: BestRun) -> Candidate:
    """Let a Trainer train what the best trial of its search trained, the next time `train()` is called.

    The mask goes into the Trainer's `model_init`; learning rate, and epochs and seed where they were
    searched, go into its arguments, which still hold those of the last trial.

    Args:
        trainer: The one that searched, with a `ModelInit` as its `model_init`.
        best: What its `hyperparameter_search` returned, of one objective.

    Returns:
        What will be trained.

    Raises:
        TypeError: Another `model_init`, or several best trials.
        ValueError: The trial is of another search space.
    """
    if not isinstance(trainer.model_init, ModelInit):
        raise TypeError(
            f"trainer: expected a ModelInit as model_init, got {type(trainer.model_init).__name__}. "
            "Build the Trainer with fairtune_hf.model_init, or one of your own from ModelInit."
        )
    if not isinstance(best, BestRun):
        raise TypeError(
            f"best: expected the one best run of a search, got {type(best).__name__}. "
            "Of several objectives' runs, choose one."
        )
    chosen = trainer.model_init.choose(best.hyperparameters)
    trainer.model_init = chosen
    candidate = chosen.chosen
    assert candidate is not None  # for the type checker
    for name, value in HpSpace.settings(candidate).items():
        setattr(trainer.args, name, value)
    return candidate


def _refuse_training(model: nn.Module, inputs: object) -> None:
    """Stop the training of a model whose mask nobody chose."""
    if model.training:
        raise ValueError(
            "model_init: expected a mask to train, and none is chosen: without a trial this is a placeholder. After "
            "`best = trainer.hyperparameter_search(...)`, call `fairtune_hf.use_best_trial(trainer, best)` before `train()`."
        )


hp_space = HpSpace()
model_init = ModelInit()
