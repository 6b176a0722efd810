"""The loop over trials: claims, trains through `Trainer.hyperparameter_search`, notes what failed.

Trials are asked for one at a time, so that each starts from what the study knows, whoever added to it.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from tqdm.auto import tqdm

from fairtune_hf.search.hooks import HpSpace
from fairtune_hf.search.objectives import Objective, parse_objectives, read_objectives
from fairtune_hf.search.progress import Progress
from fairtune_hf.search.sampling import is_lost
from fairtune_hf.search.study import DONE, GO, WAIT, SearchStudy
from fairtune_hf.training.garbage import quick_collections
from fairtune_hf.training.tracking import trial_name
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.training.trial_trainer import TRIAL_FAILURES, TrialCutShort

_FAILURES_IN_A_ROW = 10
_POLL_SECONDS = 1.0


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
