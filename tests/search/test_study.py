"""The study: start-up points, dead trials, counting, pruning."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.pruning import Schedule, build_pruner
from fairtune_hf.search.samplers import SAMPLERS, STARTUP_TRIALS
from fairtune_hf.search.sampling import startup_points
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.study import REPLACEMENT, SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import FitArguments

BLOCKS = 2


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_study(path: Path, *, seed: int = 0, **settings: object) -> SearchStudy:
    arguments = SearchArguments(**settings)  # type: ignore[arg-type]
    return SearchStudy(
        StudyPlan(
            RunFolder(path),
            SearchSpace(blocks=BLOCKS),
            arguments,
            FitArguments(epochs=10, seed=seed),
        )
    )


def objective(trial: optuna.Trial) -> float:
    """How many of the bits are set, and a learning rate near 1e-4: quick, deterministic, learnable."""
    bits = [trial.suggest_categorical(name, [0, 1]) for name in NAMES]
    rate = trial.suggest_float("learning_rate", 1e-5, 1e-3, log=True)
    return sum(bits) / len(bits) - abs(rate - 1e-4)


NAMES = [f"blocks.{i}.{part}" for i in range(BLOCKS) for part in ("layernorm", "attention", "mlp")]


def run(study: SearchStudy, trials: int) -> None:
    for _ in range(trials):
        assert study.claim() == "go"
        optuna.create_study(**study.create_study_arguments(), direction="maximize").optimize(
            objective, n_trials=1
        )


def die(study: SearchStudy, **where: str) -> None:
    """Ask, draw and go on no further, as a process does that is killed: its pid is nobody's."""
    study.claim()
    trial = study.study.ask()
    study.end_turn()
    objective(trial)
    signature = study.trials(TrialState.RUNNING)[-1].user_attrs["worker"]
    trial.set_user_attr("worker", {**signature, "pid": 2**22 + 1, **where})


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


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
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
    die(study)
    reopened = open_study(tmp_path / "killed")
    again = open_study(tmp_path / "killed")  # opening twice must not queue it twice
    run(again, 15 - after)
    assert not reopened.trials(TrialState.RUNNING)
    assert again.finished() == 15
    assert points(again) == points(whole)  # the lost point is repeated before anything new


def preset_of_next(study: SearchStudy) -> str:
    assert study.claim() == "go"
    trial = study.study.ask()
    study.end_turn()
    return str(trial.user_attrs["preset"])


def test_a_point_that_three_workers_died_of_is_given_up_for_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    survivor = open_study(tmp_path)
    for _ in range(3):
        die(survivor)
    assert preset_of_next(survivor) == "full_blocks"
    failed = survivor.trials(TrialState.FAIL)
    reason = "given up: 3 workers ended in the middle of it"
    assert [t.user_attrs.get("reason") for t in failed] == [None, None, reason]
    said = capsys.readouterr().err
    assert said.count("ended in the middle and is repeated") == 2
    assert f"Trial {failed[-1].number} is {reason}" in said
    assert (
        preset_of_next(open_study(tmp_path)) == "none"
    )  # the next start-up point, not the old one
    assert len(survivor.trials(TrialState.FAIL)) == 3


def test_a_point_that_kills_a_pool_s_workers_is_given_up_though_each_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die(open_study(tmp_path))
    monkeypatch.setenv(REPLACEMENT, "1")
    for _ in range(2):
        die(open_study(tmp_path))
    assert preset_of_next(open_study(tmp_path)) == "full_blocks"


def test_a_search_that_is_put_on_another_node_again_and_again_gives_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("fairtune_hf.search.storage.time.monotonic", lambda: now)
    for node in range(5):
        study = open_study(tmp_path)
        now += 61.0  # only now the trial of the node before can be taken for dead
        die(study, host=f"node {node}")
    study = open_study(tmp_path)
    now += 61.0
    assert preset_of_next(study) == "none"
    assert len(study.trials(TrialState.FAIL)) == 5
    assert study.trials()[-1].user_attrs["restarts"] == 5


def test_a_point_in_the_middle_of_which_the_search_was_ended_is_not(tmp_path: Path) -> None:
    for _ in range(5):
        die(open_study(tmp_path))
    study = open_study(tmp_path)
    assert preset_of_next(study) == "none"
    assert len(study.trials(TrialState.FAIL)) == 5


def test_presets_are_never_pruned_and_nothing_is_judged_early() -> None:
    schedule = Schedule(judge_after=0.4, warmup_fraction=0.1, epochs=10)
    pruner = build_pruner(SearchArguments(), schedule)
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
    objective(failed)
    failed.set_user_attr("reason", "FloatingPointError: diverged")
    study.study.tell(failed, state=TrialState.FAIL)
    study.write_tables()
    table = pd.read_csv(tmp_path / "trials.csv", dtype={"mask": str})
    assert list(table["state"]) == ["COMPLETE", "COMPLETE", "FAIL"]
    assert table["reason"].iloc[2] == "FloatingPointError: diverged"
    assert study.finished() == 2


def test_a_trial_whose_worker_died_before_signing_is_buried(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    trial = optuna.load_study(study_name=study.name, storage=study.storage).ask()
    assert "worker" not in trial.user_attrs  # asked without the signing sampler
    reopened = open_study(tmp_path)
    assert not reopened.trials(TrialState.RUNNING)
    assert (
        reopened.study.ask().number == STARTUP_TRIALS - 9
    )  # the queue goes on; the point waits at its end


def test_a_living_worker_of_this_host_is_left_alone(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    study.claim()
    study.study.ask()
    reopened = open_study(tmp_path)
    assert len(reopened.trials(TrialState.RUNNING)) == 1


def test_a_worker_of_another_host_is_dead_when_its_beats_stand_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("fairtune_hf.search.storage.time.monotonic", lambda: now)
    study = open_study(tmp_path)
    trial = study.study.ask()
    trial.set_user_attr("worker", {"host": "elsewhere", "pid": 1, "started": 0.0})
    watcher = open_study(tmp_path)
    for beat in range(3):  # for three minutes it beats now and then
        trial.set_user_attr("beat", beat)
        now += 59.0
        watcher.claim()
        watcher.end_turn()
        assert watcher.running() == 1
    now += 61.0
    watcher.claim()
    watcher.end_turn()
    assert watcher.running() == 0


def test_trials_run_by_others_count_against_the_budget(tmp_path: Path) -> None:
    one = open_study(tmp_path, trials=2)
    two = open_study(tmp_path, trials=2)
    assert one.claim() == "go"
    first = one.study.ask()
    assert two.claim() == "go"
    second = two.study.ask()
    assert first.number != second.number
    assert one.claim() == "wait"  # room only if one of them is lost
    one.study.tell(first, 0.5)
    two.study.tell(second, state=TrialState.FAIL)  # lost without a reason
    assert one.claim() == "go"
    one.study.tell(one.study.ask(), 0.6)
    assert one.claim() == two.claim() == "done"


def test_a_claim_that_breaks_off_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    one, two = open_study(tmp_path), open_study(tmp_path)
    monkeypatch.setattr(one, "_queue_next", interrupt)
    with pytest.raises(KeyboardInterrupt):
        one.claim()
    assert one._turn._handle < 0  # type: ignore[attr-defined]
    assert two.claim() == "go"
    two.end_turn()


def test_a_running_trial_beats_in_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that shares the file has no other sign that the worker lives."""
    monkeypatch.setattr("fairtune_hf.search.storage.BEAT_SECONDS", 0.01)
    study = open_study(tmp_path)
    study.claim()
    study.study.ask()
    deadline = time.monotonic() + 60
    while study.trials(TrialState.RUNNING)[0].user_attrs.get("beat", 0) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    study.end_turn()


def test_a_claim_that_leads_nowhere_is_given_back(tmp_path: Path) -> None:
    one, two = open_study(tmp_path), open_study(tmp_path)
    assert one.claim() == "go"
    one.end_turn()
    assert two.claim() == "go"
    two.end_turn()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_without_repeats(tmp_path: Path, sampler: str) -> None:
    arguments = SearchArguments(sampler=sampler, trials=40)
    space = SearchSpace(blocks=BLOCKS, integer_bits=SAMPLERS[sampler].integer_bits)

    def reopen() -> SearchStudy:
        return SearchStudy(
            StudyPlan(RunFolder(tmp_path), space, arguments, FitArguments(epochs=10))
        )

    for _ in range(25):
        study = reopen()
        study.claim()
        trial = study.study.ask()
        candidate = space.suggest(trial)
        study.study.tell(trial, candidate.mask.count("1") / 6 - candidate.learning_rate)
    found = points(study)
    repeated = {point for point in found if found.count(point) > 1}
    best = max(found, key=lambda point: point[0].count("1") / 6 - point[1])
    # A Gaussian process may ask for the best point again where it lies at the end of the range.
    assert repeated <= ({best} if sampler == "gp" else set())
    marks = {"cmaes": "cma:", "nsga2": "NSGAIISampler:"}
    if sampler in marks:  # what it learnt travels by the study, since each trial has a new sampler
        noted = {key for t in study.trials() for key in t.system_attrs}
        assert any(key.startswith(marks[sampler]) for key in noted)
    if sampler.startswith("tpe"):
        late = [mask.count("1") for mask, _ in points(study)[STARTUP_TRIALS + 5 :]]
        assert sum(late) / len(late) > 3.5


def test_workers_at_work_at_once_draw_different_points(tmp_path: Path) -> None:
    studies = [open_study(tmp_path, sampler="random", presets=False) for _ in range(4)]
    drawn = []
    for study in studies:
        study.claim()
        trial = study.study.ask()
        objective(trial)
        drawn.append((study.mask_of(trial), trial.params["learning_rate"]))
    assert len({rate for _, rate in drawn}) == 4


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_trial_that_ends_while_it_is_counted_is_counted_once(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker ends the last trial after so many readings of the study: no further one is handed out."""
    study = open_study(tmp_path, trials=2)
    run(study, 1)
    other = open_study(tmp_path, trials=2)
    assert other.claim() == "go"
    last = other.study.ask()
    read, readings = study.study.get_trials, itertools.count(1)

    def read_and_let_end(**given: Any) -> list[optuna.trial.FrozenTrial]:
        found = read(**given)
        if next(readings) == after:
            other.study.tell(last, objective(last))
        return found

    monkeypatch.setattr(study.study, "get_trials", read_and_let_end)
    assert study.claim() != "go"
    assert next(readings) <= 2  # it reads them once: they are many, and all workers ask
    monkeypatch.undo()
