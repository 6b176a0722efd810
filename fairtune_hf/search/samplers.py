"""How trials after the start-up points are drawn: every sampler, declared once.

Flags, their help, errors and the search read `SAMPLERS`, so an entry is all there is to add. Optuna is
imported when a sampler is built: a page of help needs it not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fairtune_hf.described import described

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 10  # Optuna's own default for TPE


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """The declaration of one sampler."""

    name: str = field(metadata={"help": "Its class in `optuna.samplers`."})
    settings: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Its arguments beside the seed."}
    )
    one_objective: bool = described(False, "Whether it cannot follow several objectives.")
    integer_bits: bool = described(
        False, "Whether it takes numbers only, so that bits must be some."
    )
    masks_only: bool = described(False, "Whether it is for mask searches, not for all methods.")

    def build(self, seed: int) -> optuna.samplers.BaseSampler:
        """Make the sampler."""
        import optuna

        made: optuna.samplers.BaseSampler = getattr(optuna.samplers, self.name)(
            seed=seed, **self.settings
        )
        return made


_STARTUP = {"n_startup_trials": STARTUP_TRIALS}
_QUIET = {**_STARTUP, "warn_independent_sampling": False}
SAMPLERS = {
    "tpe": Sampler(name="TPESampler", settings=_STARTUP),
    "tpe_univariate": Sampler(
        name="TPESampler", settings={**_STARTUP, "multivariate": False, "constant_liar": False}
    ),
    "random": Sampler(name="RandomSampler"),
    # Learns from completed trials alone, not from pruned ones; takes a second or two for a trial of 36 bits;
    # may ask for the best point again where it lies at the end of the range.
    "gp": Sampler(name="GPSampler", settings=_QUIET),
    "cmaes": Sampler(
        name="CmaEsSampler",
        settings=_QUIET,
        one_objective=True,
        integer_bits=True,
        masks_only=True,
    ),
    "nsga2": Sampler(
        name="NSGAIISampler", settings={"population_size": max(STARTUP_TRIALS, 20)}, masks_only=True
    ),
}
FOR_METHODS = tuple(name for name, sampler in SAMPLERS.items() if not sampler.masks_only)
