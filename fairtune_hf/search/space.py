"""The search space: how a trial's mask is drawn, the learning rate, and whatever else a method tunes.

A space is asked through `SearchSpace.suggest`, which is idempotent within a trial: the Trainer asks once
for its arguments and once for the model, on the first process with an Optuna trial and on the others with
a copy that only knows the parameters. So everything a candidate is made of is a parameter of its trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairtune_hf.baselines.method import Hyperparameter
from fairtune_hf.described import described
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.tuner import Mask, mask_bit_names

LEARNING_RATE_RANGE = (1.0e-5, 1.0e-3)  # log-uniform, as in the paper's search
FREE, RANDOM = "free", "random"
MASK_SEED = "mask_seed"
_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Everything a study may vary."""

    blocks: int = described(12, "Transformer blocks of the model.")
    layout: str = described("block3", "Meaning of the bits of a mask.")
    mask: str = described(
        FREE,
        "free: every bit is searched; random: a mask drawn anew for each trial; else "
        "the one mask of all trials, as bits or a preset's name.",
    )
    train_also: tuple[str, ...] = described((), "What is trained beside every mask.")
    learning_rate: tuple[float, float] = described(
        LEARNING_RATE_RANGE, "Range of the log-uniform learning rate."
    )
    epochs: tuple[int, ...] = described(
        (), "Lengths of the schedule to choose from; none: not searched."
    )
    seeds: tuple[int, ...] = described(
        (), "Seeds of the training to choose from; none: the run's own."
    )
    hyperparameters: tuple[Hyperparameter, ...] = described(
        (), "What the method itself wants tuned."
    )
    integer_bits: bool = described(False, "Bits as integers, which CMA-ES needs, not categories.")

    def __post_init__(self) -> None:
        low, high = self.learning_rate
        if not 0 < low <= high:
            raise ValueError(
                f"learning_rate: expected 0 < low <= high, got {low} and {high}. The paper uses 1.0e-5 and 1.0e-3."
            )
        if self.mask not in (FREE, RANDOM):
            Mask.parse(self.mask, layout=self.layout, blocks=self.blocks)
        taken = {"learning_rate", "epochs", "seed", MASK_SEED, *self.bit_names}
        for parameter in self.hyperparameters:
            if parameter.name in taken:
                raise ValueError(
                    f"hyperparameters: the name {parameter.name!r} is taken. Give each hyperparameter a name of its own."
                )
            taken.add(parameter.name)

    @property
    def bit_names(self) -> list[str]:
        """Readable names of the bits, also the names of the parameters of a free mask."""
        return mask_bit_names(self.layout, self.blocks)

    @property
    def parameter_names(self) -> list[str]:
        """Every parameter a complete trial of this space has."""
        masks = {FREE: self.bit_names, RANDOM: [MASK_SEED]}.get(self.mask, [])
        lengths = (["epochs"] if self.epochs else []) + (["seed"] if self.seeds else [])
        return [*masks, "learning_rate", *lengths, *(h.name for h in self.hyperparameters)]

    def suggest(self, trial: Any) -> Candidate:
        """Ask a trial (or a FixedTrial) for a candidate; asking again returns the same."""
        low, high = self.learning_rate
        return Candidate(
            mask=self._suggest_mask(trial),
            layout=self.layout,
            train_also=self.train_also,
            learning_rate=trial.suggest_float("learning_rate", low, high, log=True),
            epochs=trial.suggest_categorical("epochs", list(self.epochs)) if self.epochs else None,
            seed=trial.suggest_categorical("seed", list(self.seeds)) if self.seeds else None,
            hyperparameters={h.name: _suggest(trial, h) for h in self.hyperparameters},
        )

    def mask_of(self, params: dict[str, Any]) -> str:
        """Write the mask that the parameters of a trial stand for; empty if they are not all there."""
        if self.mask == FREE:
            bits = [params.get(name) for name in self.bit_names]
            return "" if None in bits else "".join(map(str, bits))
        if self.mask == RANDOM:
            return "" if MASK_SEED not in params else self._random_mask(params[MASK_SEED])
        return str(Mask.parse(self.mask, layout=self.layout, blocks=self.blocks))

    def place(self, share: float) -> float:
        """Return the learning rate at a share of the range (0: low, 1: high, on the log scale)."""
        low, high = self.learning_rate
        return min(low * math.exp(share * math.log(high / low)), high)

    def _suggest_mask(self, trial: Any) -> str:
        if self.mask == FREE:
            for name in self.bit_names:
                _suggest_bit(trial, name, self.integer_bits)
            return self.mask_of(trial.params)
        if self.mask == RANDOM:
            return self._random_mask(trial.suggest_int(MASK_SEED, 0, _LARGEST_SEED))
        return self.mask

    def _random_mask(self, seed: int) -> str:
        bits = np.random.default_rng(seed).integers(0, 2, len(self.bit_names))
        return "".join(map(str, bits))


def suggest_mask(trial: Any, *, layout: str = "block3", blocks: int = 12) -> Mask:
    """Ask a trial for every bit of the mask; asking again returns the same mask.

    Args:
        trial: An Optuna trial (or FixedTrial).
        layout: Meaning of the bits, see `fairtune_hf.mask`.
        blocks: Transformer blocks of the model.
    """
    bits = [_suggest_bit(trial, name) for name in mask_bit_names(layout, blocks)]
    return Mask.parse(bits, layout=layout, blocks=blocks)


def _suggest_bit(trial: Any, name: str, integer: bool = False) -> int:
    if integer:
        return int(trial.suggest_int(name, 0, 1))
    return int(trial.suggest_categorical(name, [0, 1]))


def _suggest(trial: Any, parameter: Hyperparameter) -> Any:
    if parameter.choices:
        return trial.suggest_categorical(parameter.name, list(parameter.choices))
    assert parameter.low is not None
    assert parameter.high is not None
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)
