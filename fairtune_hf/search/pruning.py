"""Which trials end early.

Optuna's pruners judge trials of one length by their first objective's history, without those that
failed; with several objectives, for which Optuna prunes nothing, a halving by fronts does.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.search.arguments import SearchArguments


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a trial of a given length is judged for the first time."""

    judge_after: float
    warmup_fraction: float
    epochs: int

    def length(self, trial: FrozenTrial | optuna.Trial) -> int:
        """Epochs of a trial that runs to its end."""
        return int(trial.params.get("epochs", self.epochs))

    def first_rung(self, epochs: int) -> int:
        """First epoch judged: after `judge_after` of the epochs, and after the warm-up."""
        warm = math.floor(self.warmup_fraction * epochs + 1e-9) + 1 if self.judge_after else 1
        return max(1, math.ceil(self.judge_after * epochs - 1e-9), warm)


class ComparableTrials:
    """A study as a pruner should see it: the trials of one length, and none that failed or was killed.

    A killed trial leaves its marks on the rungs, and so does its repetition; counted twice they would
    raise the bar for all others.
    """

    def __init__(self, study: optuna.Study, is_comparable: Callable[[FrozenTrial], bool]) -> None:
        self._study, self._is_comparable = study, is_comparable

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def get_trials(self, deepcopy: bool = True, states: Any = None) -> list[FrozenTrial]:
        """The trials that can be compared."""
        found = self._study.get_trials(deepcopy=deepcopy, states=states)
        return [t for t in found if t.state != TrialState.FAIL and self._is_comparable(t)]

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials that can be compared."""
        return self.get_trials()


class FairPruner(optuna.pruners.BasePruner):
    """Spares presets, because they are the baselines, and compares trials of the same length only.

    Args:
        build: Makes the pruner of trials of a given length.
        schedule: Lengths and first rungs.
    """

    def __init__(
        self, build: Callable[[int], optuna.pruners.BasePruner], schedule: Schedule
    ) -> None:
        self._build, self._schedule = build, schedule
        self._pruners: dict[int, optuna.pruners.BasePruner] = {}

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the pruner of the trial's length, which notes the rung reached, and spare presets."""
        epochs = self._schedule.length(trial)
        step = trial.last_step
        if step is None or step < self._schedule.first_rung(epochs):
            return False
        if epochs not in self._pruners:
            self._pruners[epochs] = self._build(epochs)
        view: Any = ComparableTrials(study, lambda t: self._schedule.length(t) == epochs)
        return self._pruners[epochs].prune(view, trial) and trial.user_attrs.get("preset") is None


class Brackets(optuna.pruners.BasePruner):
    """Hyperband: several halvings, each with a later first rung, and each trial judged by one of them.

    Optuna's own asks the storage for a bracket's trials, those of other lengths and failed ones among
    them, and deals them out by number, so that a repeated trial comes into another bracket. Here the
    parameters decide, which a repetition shares. The brackets' shares of the trials are Optuna's.

    Args:
        first_rung: First epoch judged in the first bracket.
        epochs: Epochs of a full trial.
        reduction_factor: One in so many passes a rung; the first rungs of two brackets differ by it.
    """

    def __init__(self, first_rung: int, epochs: int, reduction_factor: int) -> None:
        count = 1
        while first_rung * reduction_factor**count <= epochs:
            count += 1
        self._halvings = [
            optuna.pruners.SuccessiveHalvingPruner(
                min_resource=first_rung,
                reduction_factor=reduction_factor,
                min_early_stopping_rate=bracket,
            )
            for bracket in range(count)
        ]
        self._shares = [
            math.ceil(count * reduction_factor**left / (left + 1))
            for left in reversed(range(count))
        ]

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Ask the halving of the trial's bracket."""
        bracket = self.bracket(trial)
        view: Any = ComparableTrials(study, lambda t: self.bracket(t) == bracket)
        return self._halvings[bracket].prune(view, trial)

    def bracket(self, trial: FrozenTrial) -> int:
        """Which bracket a trial with these parameters belongs to."""
        digest = zlib.crc32(json.dumps(trial.params, sort_keys=True).encode())
        place, bracket = digest % sum(self._shares), 0
        while place >= self._shares[bracket]:
            place -= self._shares[bracket]
            bracket += 1
        return bracket


def build_pruner(search: SearchArguments, schedule: Schedule) -> optuna.pruners.BasePruner:
    """Build the pruner that the search names, for one objective.

    Halving early in a long schedule did worse than running fewer trials to the end on real learning
    curves, hence the late first rung and the factor 2 of the defaults.
    """

    def halving(epochs: int) -> optuna.pruners.BasePruner:
        return optuna.pruners.SuccessiveHalvingPruner(
            min_resource=schedule.first_rung(epochs), reduction_factor=search.reduction_factor
        )

    def hyperband(epochs: int) -> optuna.pruners.BasePruner:
        return Brackets(schedule.first_rung(epochs), epochs, search.reduction_factor)

    def median(epochs: int) -> optuna.pruners.BasePruner:
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0)

    builders = {"successive_halving": halving, "hyperband": hyperband, "median": median}
    if search.pruner == "none":
        return optuna.pruners.NopPruner()
    return FairPruner(builders[search.pruner], schedule)


def is_outranked(
    trial: FrozenTrial,
    others: Sequence[FrozenTrial],
    signs: Sequence[int],
    schedule: Schedule,
    reduction_factor: int,
) -> bool:
    """Whether a trial of several objectives is not among the best fronts at the rung it has just reached.

    At each rung (the first judged epoch times powers of the factor) the trials that got there are
    sorted into fronts, each of trials that only earlier fronts beat in everything. A trial goes on while
    fewer than one in `reduction_factor` of them, itself counted, lie on earlier fronts than its own.

    Args:
        trial: The trial, its curve holding the epoch just reported.
        others: The other trials that count.
        signs: 1 or -1 for each objective, as in `Objective.sign`.
        schedule: Lengths and first rungs.
        reduction_factor: One in so many passes.
    """
    curve = trial.user_attrs.get("curve", [])
    epochs, reached = schedule.length(trial), len(curve)
    rungs, rung = [], schedule.first_rung(epochs)
    while rung < epochs:
        rungs.append(rung)
        rung *= reduction_factor
    if reached not in rungs:
        return False
    peers = [
        _signed(t.user_attrs["curve"][reached - 1]["values"], signs)
        for t in others
        if t.state != TrialState.FAIL
        and schedule.length(t) == epochs
        and len(t.user_attrs.get("curve", [])) >= reached
    ]
    own = _signed(curve[-1]["values"], signs)
    ahead = _count_ahead(own, peers)
    return ahead >= max(1, (len(peers) + 1) // reduction_factor)


def _count_ahead(own: tuple[float, ...], peers: Sequence[tuple[float, ...]]) -> int:
    """Count the peers on earlier fronts than one's own."""
    rest, ahead = list(peers), 0
    while any(_beats(peer, own) for peer in rest):
        front = [p for p in rest if not any(_beats(q, p) for q in [*rest, own])]
        ahead += len(front)
        rest = [p for p in rest if p not in front]
    return ahead


def _signed(values: Sequence[float], signs: Sequence[int]) -> tuple[float, ...]:
    return tuple(sign * value for sign, value in zip(signs, values, strict=True))


def _beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
