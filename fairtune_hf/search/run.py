"""One search: its study, the repetitions of its best trials, the controls' studies, and the choice."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fairtune_hf.baselines import CONTROLS, METHODS
from fairtune_hf.data import ImageTable
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.agreement import of_first_process
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.confirm import Judged, judge_repetitions, plan_confirmation
from fairtune_hf.search.controls import SEARCHED
from fairtune_hf.search.loop import run_study
from fairtune_hf.search.methods import MethodRun, refuse_test_rows
from fairtune_hf.search.one_training import shared_points
from fairtune_hf.search.record import write_record
from fairtune_hf.search.shared import join_shared
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import STUDY_NAME, file_url
from fairtune_hf.search.workers import WorkerPool, is_worker
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.identity import identify, keep_identity
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
    refuse_test_rows(table)
    check_layout_of(backbone.model, search.layout)
    training.join_processes()
    keep_identity(folder, table, backbone, search, training)
    if search.storage is not None and table.fingerprint is not None:
        join_shared(search, identify(table, backbone, {}))
    own = MethodRun(
        spec=replace(METHODS["fairtune"], layout=search.layout),
        backbone=backbone,
        folder=folder,
        search=search,
        training=training,
        study_name=search.study_name or STUDY_NAME,
        storage=search.storage or file_url(folder),
    )
    # The repetitions and the controls train on the same pictures.
    trains = own.training_on(table)
    run: Any = functools.partial(run_study, training=trains, pool=pool, show_progress=show_progress)
    plan = own.plan
    if search.policy == "shared":
        plan = replace(plan, startup=tuple(shared_points(plan, trains, show=show_progress)))
    study = run(plan)
    judged, repeated = _repeat_best(study, run)
    controls = {name: run(it.plan, keep_best=False) for name, it in _control_runs(own).items()}
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


def _repeat_best(
    study: SearchStudy | None, run: Callable[..., SearchStudy | None]
) -> tuple[list[Judged], SearchStudy | None]:
    """Train the best trials again with new seeds, if that is wanted; judge them, and return what they are judged by."""
    # From here on every process takes the same steps.
    repetitions = of_first_process(None if study is None else plan_confirmation(study))
    if repetitions is None:
        return [], None
    repeated = run(repetitions, keep_best=False)
    if study is None or repeated is None:
        return [], repeated
    return judge_repetitions(study, repeated), repeated


def _control_runs(own: MethodRun) -> dict[str, MethodRun]:
    """Return the controls that have studies of their own; the others' learning rates come from the search."""
    search = own.search
    if not search.control_trials:
        return {}
    budget = replace(search, trials=search.control_trials, hours=None, trained_epochs=None)
    layouts = {"full_blocks": "block3"}  # the one that every preset has
    return {
        name: replace(
            own,
            spec=replace(CONTROLS[name], layout=layouts.get(name, search.layout)),
            folder=RunFolder(own.folder.path / "control_searches" / name),
            search=budget,
            study_name=f"{own.study_name}-{name}",
        )
        for name in SEARCHED
    }
