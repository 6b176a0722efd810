"""The persistent study: opened or resumed, shared by workers, cleaned of dead trials, counted exactly."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial, TrialState
from tqdm.auto import tqdm

from fairtune_hf.search.budget import CUT_SHORT, spent_reason
from fairtune_hf.search.objectives import parse_objectives
from fairtune_hf.search.pruning import Schedule, build_pruner, is_outranked
from fairtune_hf.search.sampling import build_sampler, is_lost
from fairtune_hf.search.storage import (
    WORKER,
    Heartbeat,
    Liveness,
    make_durable,
    open_storage,
    open_turn,
    this_worker,
    told_apart,
    without_password,
)
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.search.trial_tables import noted_study, read_listed, require_trials, write_tables
from fairtune_hf.training.trial_trainer import PRUNED

# Set in the environment of a worker that takes a lost one's place.
REPLACEMENT = "FAIRTUNE_REPLACEMENT"
GO, WAIT, DONE = "go", "wait", "done"
# A point is left failed when so many workers died of it while others lived on, or when the search as a
# whole ended so often in the middle of it, which is mostly somebody's doing.
_MAX_DEATHS = 3
_MAX_RESTARTS = 20
_GIVEN_UP = "given up"  # how the reason begins then
_STARTUP = "startup"  # attribute of a trial: which of the start-up points it is
_SHOWN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


class SearchStudy:
    """One Optuna study, counted and resumed exactly, by one process or many.

    Args:
        plan: What it is.

    Raises:
        ValueError: The study is damaged, or does not hold the trials that the folder's trials.csv lists.
    """

    def __init__(self, plan: StudyPlan) -> None:
        self.plan, self.folder, self.space = plan, plan.folder, plan.space
        self.arguments, self.name, self.url = plan.search, plan.name, plan.url
        self.objectives = parse_objectives(plan.search.objective)
        plan.folder.path.mkdir(parents=True, exist_ok=True)
        self.storage = open_storage(self.url)
        self._turn = open_turn(self.url, self.storage, self.name)
        self._liveness, self._worker = Liveness(), this_worker()
        self._heartbeat = Heartbeat(self.storage)
        search, training = plan.search, plan.training
        self.sampler = build_sampler(search.sampler, seed=training.seed, on_claim=self._on_claim)
        self.schedule = Schedule(
            judge_after=search.judge_after,
            warmup_fraction=training.warmup_fraction,
            epochs=training.epochs,
        )
        several = len(self.objectives) > 1
        self.pruner = optuna.pruners.NopPruner() if several else build_pruner(search, self.schedule)
        # Trials that may have lost their worker before this one came.
        self._before: set[int] = set()
        self._turn.acquire()
        try:
            self._open()
        finally:
            self._turn.release()
        self._startup = plan.first_trials()

    def _open(self) -> None:
        """Open or make the study, hold it against the tables, and bury its dead. Call it during a turn."""
        directions: Any = [o.direction for o in self.objectives]
        with told_apart(self.url):
            self.study = optuna.create_study(directions=directions, **self.create_study_arguments())
        is_theirs = not self.plan.repeats or noted_study(self.folder) == self.name
        listed = read_listed(self.folder, self.name) if is_theirs else {}
        trials = self.study.get_trials(deepcopy=False)
        require_trials(self.folder, listed, trials, without_password(self.url))
        # Whoever starts a replacement was there before it.
        if REPLACEMENT not in os.environ:
            self._before = {t.number for t in trials if t.state != TrialState.WAITING}
        self._bury_dead_trials(trials)

    def create_study_arguments(self) -> dict[str, Any]:
        """Arguments by which `Trainer.hyperparameter_search` opens this same study."""
        return {
            "study_name": self.name,
            "storage": self.storage,
            "load_if_exists": True,
            "sampler": self.sampler,
            "pruner": self.pruner,
        }

    @property
    def direction(self) -> str | list[str]:
        """The direction, or those of several objectives, as the Trainer takes it."""
        directions = [o.direction for o in self.objectives]
        return directions if len(directions) > 1 else directions[0]

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in the given states (all but the waiting ones by default), in order of their numbers."""
        return self.study.get_trials(deepcopy=False, states=states or _SHOWN)

    def finished(self) -> int:
        """Trials that count against the budget: complete and pruned."""
        return sum(self._counts(t) for t in self.trials())

    def _counts(self, trial: FrozenTrial) -> bool:
        if trial.state == TrialState.FAIL:
            return self.plan.repeats and not is_lost(trial)
        return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)

    def running(self) -> int:
        """Trials in state RUNNING, whether or not their worker lives."""
        return len(self.trials(TrialState.RUNNING))

    def spent_reason(self) -> str | None:
        """Which limit of time or epochs is reached, or None."""
        if self.arguments.hours is None and self.arguments.trained_epochs is None:
            return None  # asked every epoch: the trials are not read from the storage for nothing
        return spent_reason(self.arguments, self.trials())

    def is_done(self) -> bool:
        """Whether the budget is spent and nothing is running any more."""
        over = self.finished() >= self.arguments.trials or self.spent_reason() is not None
        return over and self.running() == 0

    def claim(self) -> Literal["go", "wait", "done"]:
        """Ask for the next trial.

        Returns:
            "go": there is one; the turn is kept until the sampler has seen it, or `end_turn`. "wait":
            others are running the last ones; ask again, since one of them may be lost. "done": the
            budget is spent.
        """
        decision: Literal["go", "wait", "done"] | None = None
        self._turn.acquire()
        try:
            # One reading for the count: between two, another worker's trial may end and be counted in neither.
            trials = self.study.get_trials(deepcopy=False)
            if self._bury_dead_trials(trials):
                trials = self.study.get_trials(deepcopy=False)
            finished = sum(map(self._counts, trials))
            running = sum(trial.state == TrialState.RUNNING for trial in trials)
            decision = "wait" if running else "done"
            if finished + running < self.arguments.trials and self.spent_reason() is None:
                self._queue_next(trials)
                decision = "go"
            return decision
        finally:
            if decision != "go":
                self._turn.release()

    def end_turn(self) -> None:
        """Give up a claim that led to no trial, and stop beating for one that ended."""
        self._turn.release()
        self._heartbeat.stop()

    def judge(
        self, trial: optuna.Trial, epoch: int, is_last: bool, row: dict[str, Any]
    ) -> str | None:
        """Note an epoch of a running trial; say why it should end now (`PRUNED`, or what of the budget is spent), or None.

        Args:
            trial: The running trial.
            epoch: Epochs trained so far.
            is_last: Whether it ends anyway; pruning would then only throw a result away.
            row: The epoch's line of the learning curve, with the objectives under `values`.
        """
        if len(self.objectives) == 1:
            trial.report(row["values"][0], epoch)
        trial.set_user_attr("curve", [*trial.user_attrs.get("curve", []), row])
        if is_last:
            return None
        spent = self.spent_reason()
        if spent is not None:
            trial.set_user_attr(CUT_SHORT, spent)
            return spent
        if len(self.objectives) == 1:
            return PRUNED if trial.should_prune() else None
        return PRUNED if self._is_outranked(trial) else None

    def best(self) -> FrozenTrial | None:
        """The complete trial with the best first objective; the earliest of equals; None if none completed."""
        top = self.top(1)
        return top[0] if top else None

    def top(self, count: int) -> list[FrozenTrial]:
        """The complete trials with the best first objectives, best first; later objectives part equals."""
        complete = self.trials(TrialState.COMPLETE)
        signs = [o.sign for o in self.objectives]

        def key(trial: FrozenTrial) -> tuple[float, ...]:
            values = [-sign * value for sign, value in zip(signs, trial.values, strict=True)]
            return (*values, trial.number)

        return sorted(complete, key=key)[:count]

    def with_mask(self, mask: str) -> list[FrozenTrial]:
        """The complete trials of one mask, best first."""
        return [t for t in self.top(len(self.trials())) if self.mask_of(t) == mask]

    def mask_of(self, trial: FrozenTrial) -> str:
        """Bits of a trial as a string; empty if it died before they were drawn."""
        return self.space.mask_of(trial.params)

    def epochs_of(self, trial: FrozenTrial) -> int:
        """Epochs of a trial that runs to its end."""
        return self.schedule.length(trial)

    def found_nothing_yet(self) -> bool:
        """Whether nothing has completed so far, and this worker's latest trial was pruned."""
        own = [t for t in self.trials() if t.user_attrs.get(WORKER) == self._worker]
        nothing = not self.trials(TrialState.COMPLETE)
        return nothing and bool(own) and own[-1].state == TrialState.PRUNED

    def was_taken_for_dead(self) -> bool:
        """Whether another worker ended this one's latest trial, whose point it queued again or gave up before."""
        trials = self.study.get_trials(deepcopy=False)
        own = [t for t in trials if t.user_attrs.get(WORKER) == self._worker]
        if not own or own[-1].state != TrialState.FAIL:
            return False
        queued = {t.user_attrs.get("retry_of") for t in trials}
        return own[-1].number in queued or _GIVEN_UP in own[-1].user_attrs.get("reason", "")

    def write_tables(self) -> None:
        """Write trials.csv and curves.csv, of what is then on the disk."""
        make_durable(self.storage)
        write_tables(self.folder, self.space, self.objectives, self.trials(), self.name)

    def _on_claim(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Sign a new trial, and let the next worker take its turn."""
        study._storage.set_trial_user_attr(trial._trial_id, WORKER, self._worker)
        self._turn.release()
        self._heartbeat.start(trial._trial_id)

    def _is_outranked(self, trial: optuna.Trial) -> bool:
        if self.arguments.pruner == "none" or trial.user_attrs.get("preset") is not None:
            return False
        others = self.study.get_trials(deepcopy=False)
        own = next(t for t in others if t.number == trial.number)
        rest = [t for t in others if t.number != trial.number]
        signs = [o.sign for o in self.objectives]
        return is_outranked(own, rest, signs, self.schedule, self.arguments.reduction_factor)

    def _queue_next(self, trials: Sequence[FrozenTrial]) -> None:
        """Queue the next start-up point, unless a lost one waits to be repeated. Call it during a turn.

        One at a time, since Optuna hands out what waits in the order it came: a lost point is so
        repeated before anything new, and an interrupted search has the trials of an uninterrupted one.
        """
        if any(trial.state == TrialState.WAITING for trial in trials):
            return
        started = {trial.user_attrs.get(_STARTUP) for trial in trials}
        for place, point in enumerate(self._startup):
            if place in started:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self.study.enqueue_trial(
                    point.params,
                    user_attrs={"preset": point.preset, "random": point.random, _STARTUP: place},
                )
            return

    def _bury_dead_trials(self, trials: Sequence[FrozenTrial]) -> bool:
        """Fail the trials whose worker is gone and queue their points again, once; return whether anything changed.

        Queued before failed, and recognised by `retry_of`, so that a second kill in between neither
        loses a point nor queues it twice. Call it during a turn.
        """
        retried = {t.user_attrs.get("retry_of") for t in trials}
        changed = False
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                if self._liveness.is_alive(trial):
                    continue
                # What is dead now may have ended its trial between the reading above and its death.
                if self.storage.get_trial(trial._trial_id).state != TrialState.RUNNING:
                    continue
            elif not is_lost(trial) or trial.number in retried:
                continue
            changed |= trial.number not in retried and self._queue_again(trial)
            if trial.state == TrialState.RUNNING:
                self.study.tell(trial.number, state=TrialState.FAIL)
                changed = True
        return changed

    def _queue_again(self, trial: FrozenTrial) -> bool:
        """Queue the point of a lost trial, unless nothing of it is known or it was lost too often."""
        # Whoever was there when a trial began and finds it dead has outlived its worker: the point may be to
        # blame. What began earlier may have ended with the whole search, as when a job is put on another node.
        is_restart = trial.number in self._before
        counts = CUT_SHORT not in trial.user_attrs  # the budget's end is nobody's death
        deaths = trial.user_attrs.get("deaths", 0) + (counts and not is_restart)
        restarts = trial.user_attrs.get("restarts", 0) + (counts and is_restart)
        complete = set(self.space.parameter_names) <= set(trial.params)
        point = trial.params if complete else trial.system_attrs.get("fixed_params")
        if not point:
            return False
        if deaths >= _MAX_DEATHS or restarts >= _MAX_RESTARTS:
            if trial.state == TrialState.RUNNING:  # with a reason it is not lost, but failed
                lost = (
                    f"{deaths} workers" if deaths >= _MAX_DEATHS else f"the search {restarts} times"
                )
                reason = f"{_GIVEN_UP}: {lost} ended in the middle of it"
                self.storage.set_trial_user_attr(trial._trial_id, "reason", reason)
                tqdm.write(f"Trial {trial.number} is {reason}.", file=sys.stderr)
            return False
        self.study.enqueue_trial(
            point,
            user_attrs={
                "preset": trial.user_attrs.get("preset"),
                "random": trial.user_attrs.get("random"),
                "retry_of": trial.number,
                "deaths": deaths,
                "restarts": restarts,
                _STARTUP: trial.user_attrs.get(_STARTUP),
            },
        )
        tqdm.write(f"Trial {trial.number} ended in the middle and is repeated.", file=sys.stderr)
        return True
