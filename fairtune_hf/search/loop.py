"""A study from its first trial to its last: claims, trains through `Trainer.hyperparameter_search`, notes what failed.

Trials are asked for one at a time, so that each starts from what the study knows, whoever added to it.
"""

from __future__ import annotations

import functools
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna
import torch
from accelerate.utils import broadcast_object_list
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from torch import nn
from tqdm.auto import tqdm

from fairtune_hf.search.best import KeepBest
from fairtune_hf.search.hooks import HpSpace, ModelInit
from fairtune_hf.search.interrupt import prompt_exit
from fairtune_hf.search.objectives import (
    Objective,
    ObjectiveMetrics,
    parse_objectives,
    read_objectives,
)
from fairtune_hf.search.progress import Progress
from fairtune_hf.search.sampling import is_lost
from fairtune_hf.search.storage import told_apart
from fairtune_hf.search.study import DONE, GO, WAIT, SearchStudy
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.search.workers import WorkerPool, is_worker
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.garbage import quick_collections
from fairtune_hf.training.tracking import trial_name
from fairtune_hf.training.train import Training
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.training.trial_trainer import TRIAL_FAILURES, TrialCutShort

_FAILURES_IN_A_ROW = 10
_POLL_SECONDS = 1.0


def run_study(
    plan: StudyPlan,
    training: Training,
    *,
    pool: WorkerPool | None = None,
    on_candidate: Callable[[Candidate], object] | None = None,
    keep_best: bool = True,
    show_progress: bool = True,
) -> SearchStudy | None:
    """Run, or go on with, the one study of a folder until its budget is spent; write its tables.

    Args:
        plan: What it is; nothing is written outside its folder and its storage.
        training: How a candidate is trained.
        pool: Workers that do the training, so that this process only watches.
        on_candidate: Called with each trial's candidate before its model is built, on every process.
        keep_best: Save the adapter of the best trial whenever there is a better one.
        show_progress: Draw a progress bar with the best value so far.

    Returns:
        The study; None on the processes that only help the first one to train.

    Raises:
        RuntimeError: Ten trials in a row failed, or all workers ended.
        ValueError: The study is damaged, or lost trials that its trials.csv lists.
        OSError: The disk is full, or the study may not be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study: SearchStudy | None
    if pool is not None:
        study = watched = SearchStudy(plan)
        helps = False
        work: Callable[[Progress], None] = functools.partial(_watch_trials, pool, watched)
    else:
        trainer = _make_trainer(plan, training, on_candidate, keep_best)
        study = SearchStudy(plan) if trainer.is_world_process_zero() else None
        helps = study is None or is_worker()
        work = functools.partial(
            run_trials, trainer, study, HpSpace(plan.space), plan.search.objective, not helps
        )
    progress = Progress(study, show=show_progress and not helps)
    try:
        with prompt_exit(), told_apart(plan.url):
            if pool is None and study is not None and not helps:
                study.write_tables()  # damaged ones are mended, whether or not a trial follows
            work(progress)
    finally:
        progress.close()
    return study


def _make_trainer(
    plan: StudyPlan,
    training: Training,
    on_candidate: Callable[[Candidate], object] | None,
    keep_best: bool,
) -> FairTrainer:
    """Make the Trainer that runs a study's trials."""
    arguments = training.arguments
    longest = max(plan.space.epochs, default=arguments.epochs)
    training = training.at(
        plan.folder.path,
        arguments=replace(arguments, epochs=longest),
        trainings=plan.search.trials,
    )
    objectives = parse_objectives(plan.search.objective)
    metrics = ObjectiveMetrics(objectives, training.table.subset("validation"))

    def build_model(_: Backbone, candidate: Candidate) -> nn.Module:
        model, last, _cost = training.build(candidate, trainer.cost)
        trainer.use_stage(last)
        return model

    model_init = ModelInit(
        training.backbone,
        plan.space,
        seed=arguments.seed,
        build_model=build_model,
        on_candidate=on_candidate,
    )
    trainer = training.for_trials(model_init, metrics, plan.space.learning_rate[0])
    if keep_best:
        trainer.add_callback(KeepBest(plan.folder.path, trainer, metrics, objectives[0]))
    return trainer


def _watch_trials(pool: WorkerPool, study: SearchStudy, progress: Progress) -> None:
    """Watch workers run a study's trials, and write its tables as they end."""
    written = -1

    def look() -> bool:
        nonlocal written
        is_done, finished = study.is_done(), study.finished()
        if is_done or finished != written:
            written = finished
            study.write_tables()
        progress.refresh()
        return is_done

    pool.watch(look)


def run_trials(
    trainer: FairTrainer,
    study: SearchStudy | None,
    space: HpSpace,
    objective: str,
    write_tables: bool,
    progress: Progress,
) -> None:
    """Run trials until the budget is spent or somebody stops the study; the first process counts for all.

    Args:
        trainer: Trains them.
        study: The study; None on the processes that only help the first one.
        space: What may vary.
        objective: As in `SearchArguments`.
        write_tables: Whether this process writes the tables after each trial.
        progress: Told after each trial.

    Raises:
        RuntimeError: Ten trials in a row failed.
    """
    with quick_collections() as settle:
        trainer.judge = None if study is None else study.judge
        objectives = parse_objectives(objective)
        while (decision := _agree(trainer, _decide(trainer, study))) != DONE:
            if decision == WAIT:
                time.sleep(_POLL_SECONDS)
                continue
            _run_trial(trainer, study, space, objectives)
            if study is not None:
                if write_tables:
                    study.write_tables()
                progress.refresh()
            settle()


def _run_trial(
    trainer: FairTrainer,
    study: SearchStudy | None,
    space: HpSpace,
    objectives: Sequence[Objective],
) -> None:
    """Run the trial that was claimed, whatever becomes of it."""
    try:
        trainer.hyperparameter_search(
            hp_space=space,
            compute_objective=lambda metrics: read_objectives(
                objectives, metrics, _count_trainable(trainer)
            ),
            n_trials=1,
            direction="maximize" if study is None else study.direction,
            backend="optuna",
            hp_name=trial_name,
            **({} if study is None else study.create_study_arguments()),
        )
    except TRIAL_FAILURES as error:
        _consider_failure(trainer, study, error)
    except TrialCutShort:
        pass  # the budget is spent, and the claim of the next trial says so
    except (UpdateFinishedTrialError, ValueError) as error:
        _consider_refusal(trainer, study, error)
    finally:
        if study is not None:
            study.end_turn()


def _decide(trainer: FairTrainer, study: SearchStudy | None) -> str:
    if study is None:
        return GO  # what the first process decides is received instead
    return DONE if trainer.stop_requested else study.claim()


def _agree(trainer: FairTrainer, decision: str) -> str:
    """Let the first process decide what comes next."""
    shared = [decision]
    if trainer.args.world_size > 1:
        broadcast_object_list(shared, from_process=0)
    return shared[0]


def _count_trainable(trainer: FairTrainer) -> int:
    model: Any = trainer.model
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _consider_refusal(
    trainer: FairTrainer, study: SearchStudy | None, error: BaseException
) -> None:
    """Go on after what Optuna refuses though nothing is wrong with this process; raise anything else."""
    if study is None:
        raise error
    if study.found_nothing_yet():
        return  # it asks for the best trial after each call, and finds none while nothing has completed
    # The other processes may be in the middle of the trial: all have to start again.
    if trainer.args.world_size > 1 or not study.was_taken_for_dead():
        raise error
    tqdm.write(
        "A trial's result is thrown away: another worker took this one for dead and had the trial queued again.",
        file=sys.stderr,
    )


def _consider_failure(
    trainer: FairTrainer, study: SearchStudy | None, error: BaseException
) -> None:
    """Go on after a failed trial, unless other processes may not know of it or it is one of many."""
    if trainer.args.world_size > 1 and not isinstance(error, FloatingPointError):
        raise error  # out of memory in one process leaves the others waiting: all have to start again
    if study is None:
        raise error
    error.__traceback__ = None  # it would keep the trial's tensors alive
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    ended = [t for t in study.trials() if t.state != TrialState.RUNNING and not is_lost(t)]
    tail = [t.state for t in ended[-_FAILURES_IN_A_ROW:]]
    if len(tail) == _FAILURES_IN_A_ROW and set(tail) == {TrialState.FAIL}:
        study.write_tables()
        raise RuntimeError(
            f"{_FAILURES_IN_A_ROW} trials in a row failed, the last with {type(error).__name__}: {error}. The study is "
            "saved; choose a lower --learning-rate-max, a smaller --batch-size or --precision fp32."
        ) from error
