"""Where trials come from: start-up points fixed by the seed, then a sampler that survives restarts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.search.samplers import SAMPLERS, STARTUP_TRIALS
from fairtune_hf.search.space import FREE, MASK_SEED, SearchSpace
from fairtune_hf.tuner import Mask

# Preset and the place of its learning rate in the range (0 = min, 1 = max, on the log scale). The two
# controls come first and twice, because each is later trained at the better of its learning rates.
_PRESETS = (
    ("none", 1.0),
    ("full_blocks", 0.4),
    ("none", 0.7),
    ("full_blocks", 0.7),
    ("attention", 0.7),
    ("layernorm", 1.0),
    ("mlp", 0.7),
)
# Learning rates tried first where there is no mask to search, same scale.
_PLACES = (0.5, 0.75, 0.25, 1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class StartupPoint:
    """A trial that is enqueued before the sampler decides: its parameters and the preset it stands for."""

    params: dict[str, Any]
    preset: str | None
    random: bool = False  # a mask drawn at random, which makes it a control


def startup_points(space: SearchSpace, *, seed: int) -> list[StartupPoint]:
    """List the first trials of a search, fixed by the seed.

    For a free mask: presets, then random masks up to ten; presets that the layout cannot express are
    left out. For any other space: the learning rates of `_PLACES`, the rest left to the sampler.
    """
    if space.mask != FREE:
        return [
            StartupPoint(params={"learning_rate": space.place(share)}, preset=None)
            for share in _PLACES
        ]
    points = []
    for preset, share in _PRESETS:
        try:
            mask = Mask.parse(preset, layout=space.layout, blocks=space.blocks)
        except ValueError:
            continue
        points.append(_free_point(space, mask.bits, share, preset))
    generator = np.random.default_rng(seed)
    while len(points) < STARTUP_TRIALS:
        bits = generator.integers(0, 2, len(space.bit_names))
        points.append(_free_point(space, bits, generator.random(), None))
    return points


def _free_point(space: SearchSpace, bits: Any, share: float, preset: str | None) -> StartupPoint:
    params = dict(zip(space.bit_names, (int(bit) for bit in bits), strict=True))
    return StartupPoint(
        params={**params, "learning_rate": space.place(share)},
        preset=preset,
        random=preset is None,
    )


class SeededByTrial(optuna.samplers.BaseSampler):
    """A sampler made anew for each trial from the seed and the place of the trial in the search.

    Optuna's samplers restart their random stream when a process starts, so that a resumed search, or a
    second worker, would repeat what is there already. Seeded this way the k-th trial is the same
    whether or not the search was interrupted. The place is the number of trials before it that were not lost.

    Args:
        build: Makes the sampler for a seed.
        seed: Seed of the search.
        on_claim: Called as soon as a trial exists, before anything of it is drawn.
    """

    def __init__(
        self,
        build: Callable[[int], optuna.samplers.BaseSampler],
        *,
        seed: int,
        on_claim: Callable[[optuna.Study, FrozenTrial], object] | None = None,
    ) -> None:
        self._build, self._seed, self._on_claim = build, seed, on_claim
        self._independent = optuna.samplers.RandomSampler(seed=seed)
        self._current = build(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        before = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
        if self._on_claim is not None:
            self._on_claim(study, trial)
        seed = 100_003 * self._seed + sum(not is_lost(t) for t in before)
        self._current = self._build(seed)
        self._independent = optuna.samplers.RandomSampler(seed=seed)
        self._current.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        """Delegate to the sampler of this trial; the seed of a random mask is nothing to learn from."""
        space = self._current.infer_relative_search_space(study, trial)
        return {name: found for name, found in space.items() if name != MASK_SEED}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Delegate to the sampler of this trial."""
        return self._current.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Delegate to the sampler of this trial, but for the seed of a random mask."""
        sampler = self._independent if param_name == MASK_SEED else self._current
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:
        """Delegate to the sampler of this trial."""
        self._current.after_trial(study, trial, state, values)


def is_lost(trial: FrozenTrial) -> bool:
    """Whether a trial failed without a reason noted: it was killed, interrupted, or cut short by the budget."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs


def build_sampler(
    name: str,
    *,
    seed: int,
    on_claim: Callable[[optuna.Study, FrozenTrial], object] | None = None,
) -> SeededByTrial:
    """Build a sampler of `SAMPLERS`."""
    return SeededByTrial(SAMPLERS[name].build, seed=seed, on_claim=on_claim)
