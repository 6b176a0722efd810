"""One search: trials through `Trainer.hyperparameter_search`, their tables, and the choice, all on disk.

Trials are asked for one at a time, so that each starts from what the study file knows: a restart
goes on with the next trial, and the total is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from accelerate.utils import broadcast_object_list
from optuna.trial import TrialState
from tqdm.auto import tqdm

from fairtune_hf.data import ImageTable
from fairtune_hf.metrics import ComputeMetrics
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.hooks import BuildModel, HpSpace, ModelInit, build_masked_model
from fairtune_hf.search.record import write_record
from fairtune_hf.search.sampling import StartupPoint
from fairtune_hf.search.space import Candidate, SearchSpace
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.refit import Choice, build_datasets, class_weights
from fairtune_hf.training.run_folder import RunFolder
from fairtune_hf.training.tracking import trial_name
from fairtune_hf.training.trainer import TRIAL_FAILURES, FairTrainer

_FAILURES_IN_A_ROW = 10


def search_masks(
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    search: SearchArguments,
    training: FitArguments,
    *,
    show_progress: bool = True,
) -> Choice:
    """Search the mask and the learning rate, and write the run's tables and `run.json`.

    Args:
        table: Training and validation rows; a table that holds test rows is refused.
        backbone: Where every trial starts from.
        folder: Where the study and the tables go; a study found there is continued.
        search: What to look for and how many trials.
        training: How each trial is trained.
        show_progress: Draw a progress bar with the best value so far.

    Returns:
        The choice written to run.json.

    Raises:
        ValueError: The table holds test rows.
        RuntimeError: No trial completed, or ten in a row failed.
    """
    if "test" in table.splits:
        raise ValueError(
            'table: expected training and validation rows only, got test rows too. Load it with splits=("train", "validation").'
        )
    space = SearchSpace(
        blocks=backbone.blocks,
        layout=search.layout,
        learning_rate=(search.learning_rate_min, search.learning_rate_max),
    )
    study = run_study(table, backbone, folder, space, search, training, show_progress=show_progress)
    if study is None:  # another process of the same trial: the first one writes
        return Choice.from_record(folder.read()["choice"], search.layout)
    return write_record(study, table, backbone, folder, search, training)


def run_study(
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    space: SearchSpace,
    search: SearchArguments,
    training: FitArguments,
    *,
    startup: Sequence[StartupPoint] | None = None,
    build_model: BuildModel = build_masked_model,
    make_trainer: Callable[..., FairTrainer] = FairTrainer,
    on_candidate: Callable[[Candidate], object] | None = None,
    show_progress: bool = True,
) -> SearchStudy | None:
    """Run, or go on with, the one study of a folder until its budget is spent; write its tables.

    Args:
        table: Training and validation rows.
        backbone: Where every trial starts from.
        folder: Where the study and its tables go; nothing else is written there.
        space: What may vary.
        search: Objective, sampler, pruner and budget.
        training: How each trial is trained.
        startup: The first trials; by default those of `startup_points`.
        build_model: Makes the model of a candidate; the backbone under its mask by default.
        make_trainer: Called once with the arguments of `FairTrainer`; for one with a method of its own.
        on_candidate: Called with each trial's candidate before its model is built, on every process.
        show_progress: Draw a progress bar with the best value so far.

    Returns:
        The study; None on the processes that only help the first one to train.

    Raises:
        RuntimeError: Ten trials in a row failed.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    datasets = build_datasets(table, backbone, training)
    trainer = make_trainer(
        model_init=ModelInit(
            backbone,
            space,
            seed=training.seed,
            build_model=build_model,
            on_candidate=on_candidate,
        ),
        args=training.to_training_arguments(
            folder.path,
            learning_rate=space.learning_rate[0],
            seed=training.seed,
            evaluate_each_epoch=True,
        ),
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        compute_metrics=ComputeMetrics(group_names=table.groups),
        class_weights=class_weights(table, training),
    )
    study = None
    if trainer.is_world_process_zero():
        study = SearchStudy(
            folder, space, search, epochs=training.epochs, seed=training.seed, startup=startup
        )
    _run_trials(trainer, study, HpSpace(space), search, show_progress)
    return study


def _run_trials(
    trainer: FairTrainer,
    study: SearchStudy | None,
    space: HpSpace,
    search: SearchArguments,
    show_progress: bool,
) -> None:
    """Run trials until the budget is spent; the first process counts for all."""
    bar = _progress_bar(study, search, show_progress)
    while _agree(trainer, study is not None and study.finished() < search.trials):
        try:
            trainer.hyperparameter_search(
                hp_space=space,
                compute_objective=lambda metrics: metrics[f"eval_{search.objective}"],
                n_trials=1,
                direction="maximize",
                backend="optuna",
                hp_name=trial_name,
                **({} if study is None else study.create_study_arguments()),
            )
        except TRIAL_FAILURES as error:
            _record_failure(study, error)
        except ValueError as error:
            # Optuna asks for the best trial after each call and finds none while nothing has completed.
            if "No trials are completed yet" not in str(error):
                raise
        if study is not None:
            study.write_tables()
            _refresh(bar, study)
    bar.close()


def _agree(trainer: FairTrainer, go_on: bool) -> bool:
    """Let the first process decide whether there is another trial."""
    decision = [go_on]
    if trainer.args.world_size > 1:
        broadcast_object_list(decision, from_process=0)
    return decision[0]


def _record_failure(study: SearchStudy | None, error: BaseException) -> None:
    if study is None:
        raise error
    tail = [t.state for t in study.trials()[-_FAILURES_IN_A_ROW:]]
    if len(tail) == _FAILURES_IN_A_ROW and set(tail) == {TrialState.FAIL}:
        raise RuntimeError(
            f"{_FAILURES_IN_A_ROW} trials in a row failed, the last with {type(error).__name__}: {error}. The study is "
            "saved; choose a lower --learning-rate-max, a smaller --batch-size or --precision fp32."
        ) from error


def _progress_bar(study: SearchStudy | None, search: SearchArguments, show: bool) -> Any:
    done = 0 if study is None else study.finished()
    return tqdm(
        total=search.trials,
        initial=done,
        desc="search",
        unit="trial",
        disable=not (show and study),
    )


def _refresh(bar: Any, study: SearchStudy) -> None:
    best = study.best()
    if best is not None:
        pruned = len(study.trials(TrialState.PRUNED))
        bar.set_postfix_str(
            f"best {best.value:.4f} (trial {best.number}), {pruned} pruned", refresh=False
        )
    bar.n = study.finished()
    bar.refresh()
