"""One search: its study, the repetitions of its best trials, the controls' studies, and the choice."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
from torch import nn
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
from fairtune_hf.search.hooks import HpSpace, ModelInit
from fairtune_hf.search.interrupt import prompt_exit
from fairtune_hf.search.loop import run_trials
from fairtune_hf.search.objectives import ObjectiveMetrics, parse_objectives
from fairtune_hf.search.progress import Progress
from fairtune_hf.search.record import write_record
from fairtune_hf.search.samplers import SAMPLERS
from fairtune_hf.search.shared import join_shared
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.storage import read_trials, told_apart, without_password
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_file import set_aside
from fairtune_hf.search.study_plan import STUDY_NAME, StudyPlan, file_url
from fairtune_hf.search.tables import are_whole, noted_study, read_listed, require_trials
from fairtune_hf.search.workers import WorkerPool, is_worker
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.identity import identify, keep_identity
from fairtune_hf.training.train import Training
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
) -> Candidate | None:
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
    name, url = search.study_name or STUDY_NAME, search.storage or file_url(folder)
    plan = StudyPlan(folder, space, search, training, name=name, storage=url)
    # The repetitions and the controls train on the same pictures.
    how = Training(table=table, backbone=backbone, arguments=training)
    run: Any = functools.partial(run_study, training=how, pool=pool, show_progress=show_progress)
    study = run(plan)
    judged, controls, repeated = _after_the_search(run, plan, study)
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
    run: Callable[..., SearchStudy | None], plan: StudyPlan, study: SearchStudy | None
) -> tuple[list[Judged], dict[str, SearchStudy], SearchStudy | None]:
    """Run the repetitions and the controls' studies; every process takes the same steps."""
    judged: list[Judged] = []
    repeated: SearchStudy | None = None
    repetitions = _share(None if study is None else plan_confirmation(study))
    if repetitions is not None:
        repeated = run(repetitions, keep_best=False)
        if study is not None and repeated is not None:
            judged = judge_repetitions(study, repeated)
    controls = {}
    if has_own_studies(plan.search, plan.space):
        for control, its_space in control_spaces(plan.space).items():
            its_plan = replace(
                plan,
                folder=RunFolder(plan.folder.path / "control_searches" / control),
                space=its_space,
                search=control_arguments(plan.search),
                name=f"{plan.name}-{control}",
            )
            found = run(its_plan, keep_best=False)
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
        work: Callable[[Progress], None] = functools.partial(pool.watch, watched)
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
