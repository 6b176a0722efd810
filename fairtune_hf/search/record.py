"""What a search leaves in run.json: data, model, choice, cost, optimism and the controls."""

from __future__ import annotations

from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.data import ImageTable
from fairtune_hf.metrics import selection_optimism
from fairtune_hf.metrics.planning import auc_standard_error
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.refit import Choice
from fairtune_hf.training.run_folder import (
    RunFolder,
    describe_dataset,
    describe_hardware,
    describe_versions,
)
from fairtune_hf.tuner import Mask, mask_bit_names

CONTROLS = {"full_blocks": "full_blocks", "linear_readout": "none"}


def write_record(
    study: SearchStudy,
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    search: SearchArguments,
    training: FitArguments,
) -> Choice:
    """Write what the search found, its choice and the controls' learning rates to run.json.

    Raises:
        RuntimeError: No trial completed.
    """
    best = study.best()
    if best is None:
        raise RuntimeError(
            "No trial completed, so there is nothing to choose. The reasons are in trials.csv; "
            "run the same command with more --trials or another learning rate."
        )
    warnings = list(table.warnings)
    controls = _control_records(study, best, backbone, search, warnings)
    record = folder.update(
        dataset=describe_dataset(table),
        model=backbone.describe(),
        choice=describe_choice(
            mask=study.mask_of(best),
            layout=search.layout,
            learning_rate=best.params["learning_rate"],
            blocks=backbone.blocks,
            training=training,
            selected_by=f"highest validation {search.objective} of {len(study.trials(TrialState.COMPLETE))} complete trials",
            trial=best.number,
        ),
        search=_search_record(study, best, table, search, training),
        controls=controls,
        versions=describe_versions(),
        hardware=describe_hardware(),
        warnings=warnings,
    )
    return Choice.from_record(record["choice"], search.layout)


def describe_choice(
    *,
    mask: str,
    layout: str,
    learning_rate: float,
    blocks: int,
    training: FitArguments,
    selected_by: str,
    trial: int | None = None,
) -> dict[str, Any]:
    """Return the `choice` entry of run.json: all that a refit needs to know."""
    return {
        "mask": mask,
        "layout": layout,
        "bit_names": mask_bit_names(layout, blocks),
        "learning_rate": learning_rate,
        "epochs": training.epochs,
        "schedule": training.schedule,
        "batch_size": training.batch_size,
        "precision": training.resolved_precision(),
        "seed": training.seed,
        "selected_by": selected_by,
        "trial": trial,
    }


def _search_record(
    study: SearchStudy,
    best: FrozenTrial,
    table: ImageTable,
    search: SearchArguments,
    training: FitArguments,
) -> dict[str, Any]:
    trials = study.trials()
    values = [float(t.value) for t in study.trials(TrialState.COMPLETE) if t.value is not None]
    return {
        "trials": search.trials,
        "completed": len(values),
        "pruned": len(study.trials(TrialState.PRUNED)),
        "failed": len(study.trials(TrialState.FAIL)),
        "trained_epochs": sum(len(t.user_attrs.get("curve", [])) for t in trials),
        "seconds": round(sum(t.duration.total_seconds() for t in trials if t.duration), 3),
        "sampler": search.sampler,
        "pruner": search.pruner,
        "judge_after": search.judge_after,
        "objective": search.objective,
        "learning_rate_range": [search.learning_rate_min, search.learning_rate_max],
        "optimism": float(selection_optimism(values, _standard_error(table, best))),
    }


def _standard_error(table: ImageTable, best: FrozenTrial) -> float:
    """Standard error of the best value, from the counts of the group with the fewest of either class."""
    validation = table.subset("validation")
    counts = []
    for code in range(len(table.groups)):
        labels = validation.labels[validation.group_codes == code]
        counts.append((int(labels.sum()), int((1 - labels).sum())))
    positives, negatives = min(counts, key=min)
    return auc_standard_error(positives, negatives, auc=max(float(best.value or 0.5), 0.5))


def _control_records(
    study: SearchStudy,
    best: FrozenTrial,
    backbone: Backbone,
    search: SearchArguments,
    warnings: list[str],
) -> dict[str, Any]:
    """Each control at the best learning rate the search saw for it."""
    records = {}
    for name, preset in CONTROLS.items():
        mask = str(Mask.parse(preset, layout="block3", blocks=backbone.blocks))
        trial = study.best_with_mask(mask) if search.layout == "block3" else None
        if trial is None:
            warnings.append(
                f"The search did not complete a trial of the control {name}; it is trained with the chosen mask's learning rate."
            )
        source = best if trial is None else trial
        records[name] = {
            "mask": mask,
            "layout": "block3",
            "learning_rate": source.params["learning_rate"],
            "trial": None if trial is None else trial.number,
        }
    return records
