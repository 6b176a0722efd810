"""One search: its study, the repetitions of its best trials, the controls' studies, and the choice."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import optuna
from tqdm.auto import tqdm

from fairtune_hf.data import ImageTable
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.best import KeepBest
from fairtune_hf.search.confirm import Judged, judge_repetitions, plan_confirmation
from fairtune_hf.search.controls import (
    SEARCHED,
    control_arguments,
    control_spaces,
    has_own_studies,
)
from fairtune_hf.search.hooks import BuildModel, HpSpace, ModelInit, build_masked_model
from fairtune_hf.search.interrupt import prompt_exit
from fairtune_hf.search.loop import run_trials
from fairtune_hf.search.objectives import ObjectiveMetrics, parse_objectives
from fairtune_hf.search.progress import Progress
from fairtune_hf.search.record import write_record
from fairtune_hf.search.samplers import SAMPLERS
from fairtune_hf.search.sampling import StartupPoint
from fairtune_hf.search.shared import join_shared
from fairtune_hf.search.space import Candidate, SearchSpace
from fairtune_hf.search.storage import read_trials, told_apart, without_password
from fairtune_hf.search.study import STUDY_NAME, SearchStudy
from fairtune_hf.search.study_file import set_aside
from fairtune_hf.search.tables import are_whole, noted_study, read_listed, require_trials
from fairtune_hf.search.workers import WorkerPool, is_worker
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.identity import identify, keep_identity
from fairtune_hf.training.refit import Choice, build_datasets, class_weights, compiling_pays
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.tuner import check_layout_of


def search_masks(
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    search: SearchArguments,
    training: FitArguments,
    *,
    pool: WorkerPool | None = None,
    show_progress: bool = True,
) -> Choice | None:
    """Search the mask and the learning rate, and write the run's tables and `run.json`.

    Args:
        table: Training and validation rows; a table that holds test rows is refused.
        backbone: Where every trial starts from.
        folder: Where the study and the tables go; a study found there is continued.
        search: What to look for and how many trials.
        training: How each trial is trained.
        pool: Workers that do the training, so that this process only watches.
        show_progress: Draw a progress bar with the best value so far.

    Returns:
        The choice written to run.json; None in a process that only helps another.

    Raises:
        ValueError: The table holds test rows; the layout has bits of parts that the model has not; or the
            folder's run is of other data, weights or settings.
        RuntimeError: No trial completed, ten in a row failed, or all workers ended.
    """
    if "test" in table.splits:
        raise ValueError(
            'table: expected training and validation rows only, got test rows too. Load it with splits=("train", "validation").'
        )
    check_layout_of(backbone.model, search.layout)
    training.join_processes()
    keep_identity(folder, table, backbone, search, training)
    if search.storage is not None and table.fingerprint is not None:
        join_shared(search, identify(table, backbone, {}))
    space = SearchSpace(
        blocks=backbone.blocks,
        layout=search.layout,
        learning_rate=(search.learning_rate_min, search.learning_rate_max),
        epochs=search.epoch_choices(),
        integer_bits=SAMPLERS[search.sampler].integer_bits,
    )
    do: Any
    if pool is None:  # the repetitions and the controls train on the same pictures
        do = functools.partial(run_study, datasets=build_datasets(table, backbone, training))
    else:
        do = functools.partial(_watch_study, pool=pool)
    run: Any = functools.partial(
        do,
        table,
        backbone,
        training=training,
        storage=search.storage or file_url(folder),
        show_progress=show_progress,
    )
    name = search.study_name or STUDY_NAME
    study = run(folder, space, search, name=name)
    judged, controls, repeated = _after_the_search(
        run, folder, study, space, search, training, name
    )
    if study is None or is_worker():
        return None
    return write_record(
        study,
        table,
        backbone,
        folder,
        training,
        judged=judged,
        control_studies=controls,
        repeated=repeated,
    )


def _after_the_search(
    run: Callable[..., SearchStudy | None],
    folder: RunFolder,
    study: SearchStudy | None,
    space: SearchSpace,
    search: SearchArguments,
    training: FitArguments,
    name: str,
) -> tuple[list[Judged], dict[str, SearchStudy], SearchStudy | None]:
    """Run the repetitions and the controls' studies; every process takes the same steps."""
    judged: list[Judged] = []
    repeated: SearchStudy | None = None
    plan = _share(None if study is None else plan_confirmation(study, seed=training.seed))
    if plan is not None:
        repeated = run(
            RunFolder(folder.path / "confirm"),
            plan.space,
            plan.search,
            startup=plan.startup,
            name=plan.name,
            failures_count=True,
            tables_may_differ=True,
            keep_best=False,
        )
        if study is not None and repeated is not None:
            judged = judge_repetitions(study, repeated)
    controls = {}
    if has_own_studies(search, space):
        for control, its_space in control_spaces(space).items():
            where = RunFolder(folder.path / "control_searches" / control)
            its_search = control_arguments(search)
            found = run(where, its_space, its_search, name=f"{name}-{control}", keep_best=False)
            if found is not None:
                controls[control] = found
    return judged, controls, repeated


def _share(plan: Any) -> Any:
    """Give the first process's plan to the others of the same trial."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate.utils import broadcast_object_list

        shared = [plan]
        broadcast_object_list(shared, from_process=0)
        return shared[0]
    return plan


def file_url(folder: RunFolder) -> str:
    """Return the URL of the file that a folder's study is kept in by default."""
    return f"sqlite:///{folder.study_file.resolve()}"


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
    datasets: dict[str, ImageDataset] | None = None,
    name: str = STUDY_NAME,
    storage: str | None = None,
    failures_count: bool = False,
    tables_may_differ: bool = False,
    keep_best: bool = True,
    show_progress: bool = True,
) -> SearchStudy | None:
    """Run, or go on with, the one study of a folder until its budget is spent; write its tables.

    Args:
        table: Training and validation rows.
        backbone: Where every trial starts from.
        folder: Where the study, its tables and its best trial go; nothing else is written there.
        space: What may vary.
        search: Objective, sampler, pruner and budget.
        training: How each trial is trained.
        startup: The first trials; by default those of `startup_points`.
        build_model: Makes the model of a candidate; the backbone under its mask by default.
        make_trainer: Called once with the arguments of `FairTrainer`; for one with a method of its own.
        on_candidate: Called with each trial's candidate before its model is built, on every process.
        datasets: The splits as model inputs, where they were built before.
        name: Name of the study in its storage.
        storage: SQLAlchemy URL of the storage; by default a file in the folder.
        failures_count: Whether a trial that failed counts against the budget.
        tables_may_differ: Whether the folder's tables may be of an earlier study of another name.
        keep_best: Save the adapter of the best trial whenever there is a better one.
        show_progress: Draw a progress bar with the best value so far.

    Returns:
        The study; None on the processes that only help the first one to train.

    Raises:
        RuntimeError: Ten trials in a row failed.
        ValueError: The study is damaged, or lost trials that its trials.csv lists.
        OSError: The disk is full, or the study may not be written.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    datasets = datasets or build_datasets(table, backbone, training)
    settings = training.to_training_arguments(
        folder.path,
        learning_rate=space.learning_rate[0],
        seed=training.seed,
        evaluation_rows=len(datasets["validation"]),
    )
    backbone.to(settings.device)  # so that a trial's model is copied there, not sent there
    longest = replace(training, epochs=max(space.epochs, default=training.epochs))
    metrics = ObjectiveMetrics(parse_objectives(search.objective), table.subset("validation"))
    trainer = make_trainer(
        model_init=ModelInit(
            backbone, space, seed=training.seed, build_model=build_model, on_candidate=on_candidate
        ),
        args=settings,
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        compute_metrics=metrics,
        class_weights=class_weights(table, training),
        compile_blocks=compiling_pays(longest, backbone, len(datasets["train"]), search.trials),
    )
    study = None
    if trainer.is_world_process_zero():
        study = SearchStudy(
            folder,
            space,
            search,
            **_how_trained(training),
            startup=startup,
            name=name,
            storage=storage,
            failures_count=failures_count,
            tables_may_differ=tables_may_differ,
        )
    if keep_best:
        objective = parse_objectives(search.objective)[0]
        trainer.add_callback(KeepBest(folder.path, trainer, metrics, objective))
    helper = study is None or is_worker()
    progress = Progress(study, show=show_progress and not helper)
    try:
        with prompt_exit(), told_apart(storage or file_url(folder)):
            if study is not None and not helper:
                study.write_tables()  # damaged ones are mended, whether or not a trial follows
            run_trials(
                trainer,
                study,
                HpSpace(space),
                search.objective,
                progress=progress,
                write_tables=not helper,
            )
    finally:
        progress.close()
    return study


def _watch_study(
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    space: SearchSpace,
    search: SearchArguments,
    training: FitArguments,
    *,
    pool: WorkerPool,
    name: str = STUDY_NAME,
    storage: str | None = None,
    keep_best: bool = True,
    show_progress: bool = True,
    **options: Any,
) -> SearchStudy:
    """Do what `run_study` does by watching workers do it; `options` are those of the study."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    options |= _how_trained(training)
    study = SearchStudy(folder, space, search, name=name, storage=storage, **options)
    progress = Progress(study, show=show_progress)
    try:
        with prompt_exit(), told_apart(study.url):
            pool.watch(study, progress)
    finally:
        progress.close()
    return study


def _how_trained(training: FitArguments) -> dict[str, Any]:
    """What a study has to know of how its trials are trained."""
    return {
        "epochs": training.epochs,
        "seed": training.seed,
        "warmup_fraction": training.warmup_fraction,
    }


def check_study(folder: RunFolder, search: SearchArguments) -> bool:
    """Look at a search's studies before anything is loaded; return whether its tables are whole too.

    Nothing is written where the study is in a file.

    Raises:
        ValueError: A study is damaged, or lost trials that a trials.csv lists.
    """
    url, name = search.storage or file_url(folder), search.study_name or STUDY_NAME
    names = {folder.path: name}
    for control in SEARCHED:
        names[folder.path / "control_searches" / control] = f"{name}-{control}"
    repetitions = RunFolder(folder.path / "confirm")
    if confirmed := noted_study(repetitions):
        names[repetitions.path] = confirmed
    whole = True
    for path, its_name in names.items():
        where = RunFolder(path)
        listed = read_listed(where, its_name)
        trials = read_trials(url, its_name)
        require_trials(where, listed, trials, without_password(url))
        whole &= not trials or are_whole(where, trials)
    return whole


def set_aside_if_damaged(folder: RunFolder) -> None:
    """Where a folder's own study is damaged or lost trials, give its files other names and say so: it begins anew."""
    try:
        check_study(folder, SearchArguments())
    except ValueError as error:
        moved = set_aside(folder.study_file, folder.trials_file, folder.curves_file)
        names = ", ".join(path.name for path in moved)
        tqdm.write(
            f"The search in {folder.path} begins anew, its files are now {names}. {error}",
            file=sys.stderr,
        )
