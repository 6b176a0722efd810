"""A candidate: a mask and what is needed to train it, the unit that travels from trial to choice to refit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fairtune_hf.run_record import ChoiceRecord
from fairtune_hf.tuner import FairMaskConfig


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What one training trains; what is None is as the run's arguments say."""

    mask: str
    layout: str
    learning_rate: float
    train_also: tuple[str, ...] = ()
    epochs: int | None = None
    seed: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_record(cls, choice: ChoiceRecord) -> Candidate:
        """Read what was chosen from run.json. The seed is each refit's own."""
        return cls(
            mask=choice.mask,
            layout=choice.layout,
            learning_rate=choice.learning_rate,
            train_also=tuple(choice.train_also or ()),
            epochs=choice.epochs,
            hyperparameters=dict(choice.hyperparameters or {}),
        )

    def config(self) -> FairMaskConfig:
        """Return the tuner's configuration, a method's preset expanded."""
        return FairMaskConfig(mask=self.mask, layout=self.layout, train_also=self.train_also)
