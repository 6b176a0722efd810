"""Pruners: what they compare, what they spare, and the rule for several objectives."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.pruning import Brackets, FairPruner, Schedule, build_pruner, is_outranked

TEN = Schedule(judge_after=0.4, warmup_fraction=0.1, epochs=10)


def study_with(pruner: optuna.pruners.BasePruner) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize", pruner=pruner)


def train(study: optuna.Study, value: float, **params: Any) -> int | None:
    """Report a constant value; return the epoch the trial was pruned at."""
    trial = study.ask()
    length = trial.suggest_categorical("epochs", [5, 10]) if "epochs" in params else 10
    for epoch in range(1, length + 1):
        trial.report(value, epoch)
        if epoch < length and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, value)
    return None


@pytest.mark.parametrize("name", ["successive_halving", "median", "hyperband"])
def test_nothing_is_judged_early_and_bad_trials_end_after(name: str) -> None:
    pruner = build_pruner(SearchArguments(pruner=name), TEN)  # type: ignore[arg-type]
    study = study_with(pruner)
    for _ in range(8):
        train(study, 0.9)
    ended = [train(study, 0.1) for _ in range(6)]
    assert any(epoch is not None for epoch in ended)
    assert all(epoch is None or epoch >= 4 for epoch in ended)


def test_none_prunes_nothing() -> None:
    study = study_with(build_pruner(SearchArguments(pruner="none"), TEN))
    assert [train(study, v) for v in (0.9, 0.9, 0.9, 0.1)] == [None] * 4


@pytest.mark.parametrize(
    ("judge_after", "warmup", "epochs", "first"),
    [
        (0.4, 0.1, 10, 4),
        (0.4, 1 / 3, 30, 12),
        (0.2, 1 / 3, 30, 11),
        (0.0, 1 / 3, 30, 1),
        (0.4, 0.0, 1, 1),
    ],
)
def test_the_first_epoch_judged_is_after_the_warm_up(
    judge_after: float, warmup: float, epochs: int, first: int
) -> None:
    schedule = Schedule(judge_after=judge_after, warmup_fraction=warmup, epochs=epochs)
    assert schedule.first_rung(epochs) == first


def test_a_killed_trial_and_its_repetition_are_one_rival_not_two() -> None:
    """With factor 2, two rivals of value 0.9 on the rung keep a 0.5 out; one leaves it in."""
    outcomes = {}
    for killed in (False, True):
        study = study_with(build_pruner(SearchArguments(), TEN))
        for value in (0.4, 0.3):
            train(study, value)
        if killed:
            lost = study.ask()
            for epoch in range(1, 5):
                lost.report(0.9, epoch)
                lost.should_prune()  # notes the rung
            study.tell(lost, state=TrialState.FAIL)
        train(study, 0.9)
        outcomes[killed] = train(study, 0.5)
    assert outcomes[True] == outcomes[False]


def deal(brackets: Brackets, bracket: int, count: int) -> list[dict[str, Any]]:
    """Parameters that belong to a bracket."""
    points = [{"x": place / 1000, "epochs": 10} for place in range(1000)]
    found = [p for p in points if brackets.bracket(trial_at(p)) == bracket]
    return found[:count]


def trial_at(params: dict[str, Any]) -> FrozenTrial:
    distributions = {
        "x": optuna.distributions.FloatDistribution(0, 1),
        "epochs": optuna.distributions.CategoricalDistribution([5, 10]),
    }
    return create_trial(value=0.0, params=params, distributions=distributions)


def test_hyperband_deals_trials_out_by_their_parameters_in_optuna_s_shares() -> None:
    ours, theirs = Brackets(1, 9, 3), optuna.pruners.HyperbandPruner(1, 9, 3)
    theirs._try_initialization(optuna.create_study())
    assert ours._shares == theirs._trial_allocation_budgets
    counts = [len(deal(ours, bracket, 1000)) for bracket in range(3)]
    expected = [1000 * share / sum(ours._shares) for share in ours._shares]
    assert counts == pytest.approx(expected, rel=0.2)


def test_hyperband_compares_within_a_bracket_a_length_and_without_failed_trials() -> None:
    pruner = build_pruner(SearchArguments(pruner="hyperband"), TEN)
    assert isinstance(pruner, FairPruner)
    brackets = pruner._build(10)
    assert isinstance(brackets, Brackets)
    early, late = (deal(brackets, bracket, 9) for bracket in (0, 1))
    study = study_with(pruner)

    def run(params: dict[str, Any], value: float, *, fail: bool = False) -> int | None:
        study.enqueue_trial(params)
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        length = trial.suggest_categorical("epochs", [5, 10])
        for epoch in range(1, length):
            trial.report(value, epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                return epoch
        study.tell(trial, state=TrialState.FAIL) if fail else study.tell(trial, value)
        return None

    for params in late[:4]:
        run(params, 0.9)
    for params in early[:4]:
        run({**params, "epochs": 5}, 0.9)
    for params in early[4:6]:
        run(params, 0.9, fail=True)
    assert run(early[6], 0.1) is None  # the first of its kind
    assert run(early[7], 0.5) is None
    assert run(early[8], 0.1) == 4
    assert run(late[4], 0.1) == 8  # its bracket begins later


def test_trials_of_other_lengths_are_not_rivals() -> None:
    study = study_with(build_pruner(SearchArguments(), TEN))
    study.enqueue_trial({"epochs": 10})
    for _ in range(4):
        study.enqueue_trial({"epochs": 10})
        train(study, 0.9, epochs=True)
    train(study, 0.9, epochs=True)
    study.enqueue_trial({"epochs": 5})
    assert train(study, 0.1, epochs=True) is None  # the first of its length: best of one
    study.enqueue_trial({"epochs": 10})
    assert train(study, 0.1, epochs=True) is not None


def test_the_build_is_asked_once_a_length() -> None:
    built: list[int] = []

    def build(epochs: int) -> optuna.pruners.BasePruner:
        built.append(epochs)
        return optuna.pruners.NopPruner()

    study = study_with(FairPruner(build, TEN))
    for _ in range(3):
        train(study, 0.5)
    assert built == [10]


def frozen(*curve: tuple[float, float], state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    rows = [{"values": list(values)} for values in curve]
    values = list(curve[-1]) if state == TrialState.COMPLETE else None
    return create_trial(state=state, values=values, user_attrs={"curve": rows})


@pytest.mark.parametrize(
    ("own", "peers", "outranked"),
    [
        ((0.5, 0.5), [], False),
        ((0.5, 0.5), [(0.9, 0.1), (0.1, 0.9)], False),  # all on one front
        ((0.5, 0.5), [(0.9, 0.9), (0.8, 0.8), (0.4, 0.4)], True),  # third of four
        ((0.8, 0.8), [(0.9, 0.9), (0.5, 0.5), (0.4, 0.4)], False),  # second of four
        ((0.5, 0.5), [(0.9, 0.6), (0.6, 0.9), (0.1, 0.1)], True),  # two on the front ahead
    ],
)
def test_several_objectives_are_halved_by_fronts(
    own: tuple[float, float], peers: list[tuple[float, float]], outranked: bool
) -> None:
    schedule = Schedule(judge_after=0.0, warmup_fraction=0.0, epochs=4)
    trial = frozen(own, state=TrialState.RUNNING)
    others = [frozen(peer) for peer in peers]
    assert is_outranked(trial, others, (1, 1), schedule, 2) is outranked
    # The same with the second objective to be small.
    flipped = [frozen((a, -b)) for a, b in peers]
    mirrored = frozen((own[0], -own[1]), state=TrialState.RUNNING)
    assert is_outranked(mirrored, flipped, (1, -1), schedule, 2) is outranked


def test_several_objectives_are_judged_at_rungs_only_and_without_failed_trials() -> None:
    schedule = Schedule(judge_after=0.4, warmup_fraction=0.0, epochs=10)  # rungs at 4 and 8
    better = [frozen(*[(0.9, 0.9)] * 10) for _ in range(3)]
    for epoch in range(1, 10):
        trial = frozen(*[(0.1, 0.1)] * epoch, state=TrialState.RUNNING)
        assert is_outranked(trial, better, (1, 1), schedule, 2) is (epoch in (4, 8))
    failed = [frozen(*[(0.9, 0.9)] * 10, state=TrialState.FAIL) for _ in range(3)]
    trial = frozen(*[(0.1, 0.1)] * 4, state=TrialState.RUNNING)
    assert not is_outranked(trial, failed, (1, 1), schedule, 2)
