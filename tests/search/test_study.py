"""The study: start-up points, dead trials, counting, pruning."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.sampling import STARTUP_TRIALS, build_pruner, startup_points
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.training.run_folder import RunFolder

BLOCKS = 2


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(path: Path, *, seed: int = 0, **settings: object) -> SearchStudy:
    arguments = SearchArguments(**settings)  # type: ignore[arg-type]
    return SearchStudy(RunFolder(path), SearchSpace(blocks=BLOCKS), arguments, epochs=10, seed=seed)


def objective(trial: optuna.Trial) -> float:
    """How many of the bits are set, and a learning rate near 1e-4: quick, deterministic, learnable."""
    bits = [trial.suggest_categorical(name, [0, 1]) for name in NAMES]
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
    return sum(bits) / len(bits) - abs(rate - 1e-4)


NAMES = [f"blocks.{i}.{part}" for i in range(BLOCKS) for part in ("layernorm", "attention", "mlp")]


def run(study: SearchStudy, trials: int) -> None:
    for _ in range(trials):
        optuna.create_study(**study.create_study_arguments(), direction="maximize").optimize(
            objective, n_trials=1
        )


def points(study: SearchStudy) -> list[tuple]:
    return [
        (study.mask_of(t), t.params["learning_rate"]) for t in study.trials(TrialState.COMPLETE)
    ]


def test_startup_points_are_fixed_by_the_seed_and_hold_both_controls_twice() -> None:
    one, same, other = (startup_points(SearchSpace(), seed=s) for s in (3, 3, 4))
    assert one == same
    assert one != other
    assert len(one) == STARTUP_TRIALS
    for control in ("none", "full_blocks"):
        rates = {p.params["learning_rate"] for p in one if p.preset == control}
        assert len(rates) == 2
    assert all(1e-5 <= p.params["learning_rate"] <= 1e-3 for p in one)


def test_layouts_without_a_preset_leave_it_out() -> None:
    presets = {p.preset for p in startup_points(SearchSpace(layout="attention"), seed=0)}
    assert "layernorm" not in presets
    assert "attention" in presets


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_reopened_after_every_trial_equals_one_go(tmp_path: Path, sampler: str) -> None:
    whole = open_study(tmp_path / "whole", sampler=sampler)
    run(whole, 13)
    for _ in range(13):
        piecewise = open_study(tmp_path / "pieces", sampler=sampler)
        run(piecewise, 1)
    assert points(whole) == points(piecewise)
    assert len(set(points(whole))) == 13


@pytest.mark.parametrize("after", [0, 4, 12])
def test_a_killed_trial_is_queued_again_once_and_counted_once(tmp_path: Path, after: int) -> None:
    whole = open_study(tmp_path / "whole")
    run(whole, 15)
    study = open_study(tmp_path / "killed")
    run(study, after)
    dead = study.study.ask()  # a process that asks, suggests and dies
    objective(dead)
    reopened = open_study(tmp_path / "killed")
    again = open_study(tmp_path / "killed")  # opening twice must not queue it twice
    run(again, 15 - after)
    assert not reopened.trials(TrialState.RUNNING)
    assert again.finished() == 15
    assert sorted(points(again)[:STARTUP_TRIALS]) == sorted(points(whole)[:STARTUP_TRIALS])
    if after >= STARTUP_TRIALS:  # nothing was waiting behind it, so the order is the same
        assert points(again) == points(whole)


def test_a_point_that_kills_every_process_is_given_up(tmp_path: Path) -> None:
    for _ in range(3):
        study = open_study(tmp_path)
        objective(study.study.ask())
    study = open_study(tmp_path)
    assert len(study.trials(TrialState.FAIL)) == 3
    nxt = study.study.ask()
    assert nxt.user_attrs["preset"] == "full_blocks"


def test_presets_are_never_pruned_and_nothing_is_judged_early() -> None:
    pruner = build_pruner("successive_halving", epochs=10, judge_after=0.4)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for _ in range(4):  # good trials fill the rungs
        good = study.ask()
        for epoch in range(1, 11):
            good.report(0.9, epoch)
            good.should_prune()
        study.tell(good, 0.9)

    def first_pruned_epoch(preset: str | None) -> int | None:
        bad = study.ask()
        bad.set_user_attr("preset", preset)
        for epoch in range(1, 11):
            bad.report(0.1, epoch)
            if bad.should_prune():
                return epoch
        return None

    assert first_pruned_epoch("none") is None
    assert first_pruned_epoch(None) == 4


def test_tables_are_written_with_reasons(tmp_path: Path) -> None:
    import pandas as pd

    study = open_study(tmp_path)
    run(study, 2)
    failed = study.study.ask()
    failed.set_user_attr("reason", "FloatingPointError: diverged")
    study.study.tell(failed, state=TrialState.FAIL)
    study.write_tables()
    table = pd.read_csv(tmp_path / "trials.csv", dtype={"mask": str})
    assert list(table["state"]) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert table["reason"].iloc[2] == "FloatingPointError: diverged"
    assert study.finished() == 2
