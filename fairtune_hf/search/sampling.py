"""Where trials come from: start-up points fixed by the seed, then a sampler that survives restarts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.search.space import FREE, SearchSpace
from fairtune_hf.tuner import Mask

STARTUP_TRIALS = 10  # Optuna's own default for TPE

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
    return StartupPoint(params={**params, "learning_rate": space.place(share)}, preset=preset)


class SeededByTrial(optuna.samplers.BaseSampler):
    """A sampler made anew for each trial from the seed and the number of trials finished so far.

    Optuna's samplers restart their random stream when a process starts, so that a resumed search
    would repeat itself. Seeded this way the k-th trial is the same whether or not the search was interrupted.
    """

    def __init__(self, build: Callable[[int], optuna.samplers.BaseSampler], *, seed: int) -> None:
        self._build, self._seed = build, seed
        self._current = build(seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        finished = sum(is_finished(t) for t in study.get_trials(deepcopy=False))
        self._current = self._build(100_003 * self._seed + finished)
        self._current.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, Any]:
        """Delegate to the sampler of this trial."""
        return self._current.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]
    ) -> dict[str, Any]:
        """Delegate to the sampler of this trial."""
        return self._current.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any
    ) -> Any:
        """Delegate to the sampler of this trial."""
        return self._current.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:
        """Delegate to the sampler of this trial."""
        self._current.after_trial(study, trial, state, values)


def build_sampler(name: str, *, seed: int) -> SeededByTrial:
    """Build the sampler called `tpe` or `random`."""
    builders: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
        "tpe": lambda s: optuna.samplers.TPESampler(seed=s, n_startup_trials=STARTUP_TRIALS),
        "random": lambda s: optuna.samplers.RandomSampler(seed=s),
    }
    return SeededByTrial(builders[name], seed=seed)


class KeepPresets(optuna.pruners.BasePruner):
    """Lets presets run to the end, because they are the baselines; they still fill the rungs of the others."""

    def __init__(self, inner: optuna.pruners.BasePruner) -> None:
        self._inner = inner

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the inner pruner, which notes the rung reached, and spare presets."""
        return self._inner.prune(study, trial) and trial.user_attrs.get("preset") is None


def build_pruner(name: str, *, epochs: int, judge_after: float) -> optuna.pruners.BasePruner:
    """Build the pruner; nothing is judged before `judge_after` of the epochs.

    Halving early in a long schedule did worse than running fewer trials to the end on real learning
    curves, hence the late first rung and the factor 2.
    """
    if name == "none":
        return optuna.pruners.NopPruner()
    first_rung = max(1, math.ceil(judge_after * epochs))
    return KeepPresets(
        optuna.pruners.SuccessiveHalvingPruner(min_resource=first_rung, reduction_factor=2)
    )


def is_finished(trial: FrozenTrial) -> bool:
    """Whether a trial came to an end of its own: one whose process was killed has no reason noted."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "reason" in trial.user_attrs
