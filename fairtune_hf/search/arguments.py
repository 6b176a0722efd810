"""What a search looks for and how much it may spend."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(kw_only=True)
class SearchArguments:
    """Settings of the outer loop."""

    trials: int = field(
        default=20,
        metadata={"help": "Finished trials in all, restarts counted in (the paper: 40 to 100)."},
    )
    objective: Literal["min_auc", "overall_auc"] = field(
        default="min_auc", metadata={"help": "Validation metric to maximise."}
    )
    layout: Literal["block3", "block4", "attention", "layernorm", "mlp", "block"] = field(
        default="block3",
        metadata={"help": "What a bit of the mask stands for (block3: the paper's 36 bits)."},
    )
    learning_rate_min: float = field(
        default=1.0e-5, metadata={"help": "Lower end of the log-uniform learning rate."}
    )
    learning_rate_max: float = field(
        default=1.0e-3, metadata={"help": "Upper end of the log-uniform learning rate."}
    )
    sampler: Literal["tpe", "random"] = field(
        default="tpe", metadata={"help": "How trials after the start-up points are drawn."}
    )
    pruner: Literal["successive_halving", "none"] = field(
        default="successive_halving", metadata={"help": "Which trials end early. Presets never do."}
    )
    search_fraction: float = field(
        default=1.0,
        metadata={
            "help": "Share of the training rows that the search trains on, drawn by label and group (the paper's CheXpert: 0.1)."
        },
    )
    judge_after: float = field(
        default=0.4, metadata={"help": "Share of a trial's epochs before which it is never pruned."}
    )

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(
                f"--trials: expected at least 1, got {self.trials}. Give the total number of trials."
            )
        if not 0 < self.learning_rate_min < self.learning_rate_max:
            raise ValueError(
                "--learning-rate-min, --learning-rate-max: expected 0 < min < max, got "
                f"{self.learning_rate_min} and {self.learning_rate_max}. The paper uses 1.0e-5 and 1.0e-3."
            )
        if not 0 < self.search_fraction <= 1:
            raise ValueError(
                f"--search-fraction: expected a share in (0, 1], got {self.search_fraction}. 1 searches on all training rows."
            )
        if not 0 <= self.judge_after <= 1:
            raise ValueError(
                f"--judge-after: expected a share in [0, 1], got {self.judge_after}. 0.4 is the default."
            )
