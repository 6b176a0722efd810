"""What a search leaves in run.json: data, model, choice, cost, optimism, findings and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.costs import add_costs
from fairtune_hf.data import ImageTable
from fairtune_hf.metrics import selection_optimism
from fairtune_hf.metrics.planning import auc_standard_error
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import FAIRTUNE, ChoiceRecord, DatasetRecord, MethodRecord, SearchRecord
from fairtune_hf.search.best import read_best, read_best_scores
from fairtune_hf.search.budget import busy_seconds, count_epochs
from fairtune_hf.search.confirm import Judged, describe_confirmation
from fairtune_hf.search.controls import describe_controls
from fairtune_hf.search.importance import describe_frequency, describe_importance
from fairtune_hf.search.objectives import MAXIMIZE, ObjectiveMetrics
from fairtune_hf.search.one_training import describe_ranking
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.description import (
    describe_dataset,
    describe_hardware,
    describe_versions,
)
from fairtune_hf.training.trial_trainer import COST
from fairtune_hf.tuner import mask_bit_names


def write_record(
    study: SearchStudy,
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    training: FitArguments,
    *,
    judged: Sequence[Judged] = (),
    control_studies: Mapping[str, SearchStudy] | None = None,
    repeated: SearchStudy | None = None,
) -> Candidate:
    """Write what the search found, its choice and the controls' learning rates to run.json.

    Args:
        study: The finished search.
        table: Training and validation rows.
        backbone: Where every trial started.
        folder: The run.
        training: How each trial was trained.
        judged: The best trials by their repetitions, best first; empty where there were none.
        control_studies: The controls' own searches, where there were any.
        repeated: The study of the repetitions, where there was one.

    Raises:
        RuntimeError: No trial completed.
    """
    best = study.best()
    if best is None:
        raise RuntimeError(
            "No trial completed, so there is nothing to choose. The reasons are in trials.csv; "
            "run the same command with more --trials, --hours or --trained-epochs, or another learning rate."
        )
    chosen = judged[0].trial if judged else best
    search, warnings = study.arguments, list(table.warnings)
    if search.top_k and not judged:
        warnings.append(
            "The best trials could not be confirmed with new seeds: too few repetitions completed."
        )
    own = control_studies or {}
    controls = describe_controls(study, chosen, own, seed=training.seed, warnings=warnings)
    choice = describe_choice(
        mask=study.mask_of(chosen),
        layout=study.space.layout,
        learning_rate=chosen.params["learning_rate"],
        blocks=backbone.blocks,
        training=replace(training, epochs=study.epochs_of(chosen)),
        selected_by=selected_by(study, judged),
        trial=chosen.number,
    )
    with folder.editing() as record:
        earlier = record.methods
        # Refits of an earlier, shorter search stay counted, and measured where all are what they were.
        record.methods = {
            name: replace(earlier.get(name, MethodRecord()), choice=held)
            for name, held in {FAIRTUNE: choice, **controls}.items()
        }
        if _refits_of(earlier) != _refits_of(record.methods):
            record.forget_evaluation()
        record.dataset = _of_all_rows(record.dataset, describe_dataset(table))
        record.model = backbone.describe()
        record.own.search = _search_record(study, best, table, folder, judged)
        for name, method in record.methods.items():
            studies = (study, repeated) if name == FAIRTUNE else (own.get(name),)
            shared = describe_ranking(folder.path) if name == FAIRTUNE else None
            method.cost |= search_cost(*studies, more=shared and shared["cost"])
        record.versions, record.hardware = describe_versions(), describe_hardware()
        record.warnings = warnings
    return Candidate.from_record(choice)


def _of_all_rows(held: DatasetRecord, described: DatasetRecord) -> DatasetRecord:
    """Return what is known of the data: of the same data, refits have described the test rows too."""
    if held.split_hash != described.split_hash:
        return described
    return held if described.rows.keys() <= held.rows.keys() else described


def _refits_of(methods: Mapping[str, MethodRecord]) -> dict[str, Candidate]:
    """Return what is to be refitted."""
    found = {name: held.choice for name, held in methods.items() if held.choice}
    return {name: Candidate.from_record(choice) for name, choice in found.items()}


def search_cost(
    *studies: SearchStudy | None, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what all trials of some studies cost, and what came before them."""
    trials = [trial for study in studies if study is not None for trial in study.trials()]
    total = add_costs([more, *(trial.user_attrs.get(COST) for trial in trials)])
    return {} if total is None else {"search": total}


def describe_choice(
    *,
    mask: str,
    layout: str,
    learning_rate: float,
    blocks: int,
    training: FitArguments,
    selected_by: str,
    trial: int | None = None,
) -> ChoiceRecord:
    """Return all that a refit needs to know."""
    return ChoiceRecord(
        mask=mask,
        layout=layout,
        bit_names=mask_bit_names(layout, blocks),
        learning_rate=learning_rate,
        epochs=training.epochs,
        schedule=training.schedule,
        batch_size=training.batch_size,
        precision=training.resolved_precision(),
        seed=training.seed,
        selected_by=selected_by,
        trial=trial,
    )


def selected_by(study: SearchStudy, judged: Sequence[Judged] = ()) -> str:
    """Say by which value, and which way of it, a study's trial was chosen."""
    objective = study.objectives[0]
    extreme = "highest" if objective.direction == MAXIMIZE else "lowest"
    complete = len(study.trials(TrialState.COMPLETE))
    words = f"{extreme} validation {objective.name} of {complete} complete trials"
    if not judged:
        return words
    search = study.arguments
    sign = "minus" if objective.direction == MAXIMIZE else "plus"
    return (
        f"{extreme} mean {sign} {search.se_multiple:g} standard error of validation {objective.name} over "
        f"{search.top_k_seeds} new seeds, among the {len(judged)} best of {complete} complete trials"
    )


def describe_search(study: SearchStudy) -> SearchRecord:
    """Return what every study tells of itself: its settings, how its trials ended and what they took."""
    search, trials = study.arguments, study.trials()
    return SearchRecord(
        trials=search.trials,
        completed=len(study.trials(TrialState.COMPLETE)),
        pruned=len(study.trials(TrialState.PRUNED)),
        failed=len(study.trials(TrialState.FAIL)),
        trained_epochs=count_epochs(trials),
        seconds=round(sum(busy_seconds([t]) for t in trials), 3),
        sampler=search.sampler,
        pruner=search.pruner,
        judge_after=search.judge_after,
        objective=search.objective,
        directions={o.name: o.direction for o in study.objectives},
        learning_rate_range=[search.learning_rate_min, search.learning_rate_max],
    )


def _search_record(
    study: SearchStudy,
    best: FrozenTrial,
    table: ImageTable,
    folder: RunFolder,
    judged: Sequence[Judged],
) -> SearchRecord:
    search, trials = study.arguments, study.trials()
    complete = study.top(len(trials))
    values = [float(t.values[0]) for t in complete]
    masks = [study.mask_of(t) for t in complete]
    names = study.space.bit_names
    error = _standard_error(study, table, best, folder)
    # An upper estimate: no trial but the best keeps its scores, so the errors' correlation is not known.
    optimism = selection_optimism(values, error, direction=study.objectives[0].direction)
    return replace(
        describe_search(study),
        wall_seconds=round(busy_seconds(trials), 3),
        ended_by=study.spent_reason() or "trials",
        limits={"hours": search.hours, "trained_epochs": search.trained_epochs},
        protocol=search.protocol,
        policy=search.policy or "trials",
        shared=describe_ranking(folder.path),
        epoch_choices=list(study.space.epochs),
        best_trial=read_best(folder.path),
        pareto_front=_pareto_front(study),
        optimism=float(optimism),
        confirmation=describe_confirmation(study, judged) if judged else None,
        mask_frequency=describe_frequency(names, masks),
        importance=describe_importance(
            names, masks, values, [t.params["learning_rate"] for t in complete]
        ),
    )


def _pareto_front(study: SearchStudy) -> list[dict[str, Any]] | None:
    """The trials that no other beats in every objective, best first objective first; None with one objective."""
    if len(study.objectives) < 2:
        return None
    front = {t.number for t in study.study.best_trials}
    names = [o.name for o in study.objectives]
    return [
        {
            "trial": t.number,
            "mask": study.mask_of(t),
            "learning_rate": t.params["learning_rate"],
            **dict(zip(names, t.values, strict=True)),
        }
        for t in study.top(len(study.trials()))
        if t.number in front
    ]


def _standard_error(
    study: SearchStudy, table: ImageTable, best: FrozenTrial, folder: RunFolder
) -> float:
    """Standard error of the best value: of an AUC from counts, else from resampling the kept scores.

    The counts are patients, whose pictures say much the same: for the overall AUC all of them, else those of
    the group with the fewest of either class.
    """
    validation, objective = table.subset("validation"), study.objectives[0]
    scores = read_best_scores(folder.path)
    if objective.name not in ("min_auc", "overall_auc") and scores is not None:
        return ObjectiveMetrics([], validation).rows(scores).standard_error(objective)
    parts = [validation.group_codes == code for code in range(len(table.groups))]
    if objective.name == "overall_auc":
        parts = [np.ones(len(validation.labels), dtype=np.bool_)]
    counts = [
        [np.unique(validation.patients[part & (validation.labels == y)]).size for y in (1, 0)]
        for part in parts
    ]
    positives, negatives = min(counts, key=min)
    auc = float(best.values[0]) if objective.direction == MAXIMIZE else 0.5
    return auc_standard_error(positives, negatives, auc=min(max(auc, 0.5), 1.0))
