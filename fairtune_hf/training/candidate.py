"""A candidate: a mask and what is needed to train it, the unit that travels from trial to choice to refit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
    def from_record(cls, entry: Mapping[str, Any]) -> Candidate:
        """Read what was chosen from run.json: the `choice`, or a control's entry. The seed is each refit's own."""
        return cls(
            mask=entry["mask"],
            layout=entry["layout"],
            learning_rate=entry["learning_rate"],
            train_also=tuple(entry.get("train_also") or ()),
            epochs=entry.get("epochs"),
            hyperparameters=dict(entry.get("hyperparameters") or {}),
        )

    def config(self) -> FairMaskConfig:
        """Return the tuner's configuration, a method's preset expanded."""
        return FairMaskConfig(mask=self.mask, layout=self.layout, train_also=self.train_also)
