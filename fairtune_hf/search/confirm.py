"""The choice among the best trials, by trainings that the search did not pick them for.

The best of many noisy values is partly lucky. The first k are trained again with new seeds, in a study of
their own that resumes like any other, and judged by the mean of those values minus a multiple of its
standard error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.objectives import Objective
from fairtune_hf.search.sampling import StartupPoint
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import StudyPlan

NEW_SEEDS_FROM = 1000  # away from the seeds of the refits, which count up from the run's own


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A trial and what its repetitions gave."""

    trial: FrozenTrial
    values: tuple[float, ...]
    mean: float = field(metadata={"help": "Mean over the new seeds."})
    standard_error: float = field(metadata={"help": "Of the mean."})
    bound: float = field(
        metadata={"help": "Mean minus the multiple, or plus, of what is to be small."}
    )


def plan_confirmation(study: SearchStudy) -> StudyPlan | None:
    """Plan the repetitions of the best trials; None if none are wanted or nothing completed."""
    search, seed = study.arguments, study.plan.training.seed
    top = best_points(study)
    if not top:
        return None
    first = NEW_SEEDS_FROM + seed
    seeds = tuple(range(first, first + search.top_k_seeds))
    points = tuple(
        StartupPoint(params={**trial.params, "seed": new}, preset=None)
        for trial in top
        for new in seeds
    )
    text = json.dumps([point.params for point in points], sort_keys=True)
    return replace(
        study.plan,
        folder=RunFolder(study.folder.path / "confirm"),
        space=replace(study.space, seeds=seeds),
        search=replace(
            search,
            trials=len(points),
            sampler="random",
            pruner="none",
            hours=None,
            trained_epochs=None,
        ),
        startup=points,
        # Of its content: more trials may bring others to the top, whose repetitions are another study.
        name=f"{study.name}-confirm-{hashlib.sha256(text.encode()).hexdigest()[:10]}",
        storage=study.url,
        repeats=True,
    )


def best_points(study: SearchStudy) -> list[FrozenTrial]:
    """The best trials that differ in what they trained, as many as are trained again, best first."""
    found: list[FrozenTrial] = []
    for trial in study.top(len(study.trials())):
        if len(found) < study.arguments.top_k and trial.params not in [t.params for t in found]:
            found.append(trial)
    return found


def judge_repetitions(study: SearchStudy, repeated: SearchStudy) -> list[Judged]:
    """Judge the best trials of a search by their repetitions, best first.

    A trial with fewer than two values (its repetitions failed) cannot be judged and is left out.
    """
    search, objective = study.arguments, study.objectives[0]
    found = []
    for trial in best_points(study):
        values = tuple(
            float(t.values[0])
            for t in repeated.trials(TrialState.COMPLETE)
            if {k: v for k, v in t.params.items() if k != "seed"} == trial.params
        )
        if len(values) >= 2:
            found.append(_judge(trial, values, objective, search.se_multiple))
    return sorted(found, key=lambda judged: -objective.sign * judged.bound)


def _judge(
    trial: FrozenTrial, values: Sequence[float], objective: Objective, multiple: float
) -> Judged:
    mean = float(np.mean(values))
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return Judged(
        trial=trial,
        values=tuple(values),
        mean=mean,
        standard_error=error,
        bound=mean - objective.sign * multiple * error,
    )


def describe_confirmation(study: SearchStudy, judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the `confirmation` entry of run.json's search."""
    search = study.arguments
    return {
        "top_k": search.top_k,
        "seeds": search.top_k_seeds,
        "se_multiple": search.se_multiple,
        "candidates": [
            {
                "trial": one.trial.number,
                "mask": study.mask_of(one.trial),
                "learning_rate": one.trial.params["learning_rate"],
                "epochs": study.epochs_of(one.trial),
                "search_value": float(one.trial.values[0]),
                "values": list(one.values),
                "mean": one.mean,
                "standard_error": one.standard_error,
                "bound": one.bound,
            }
            for one in judged
        ],
    }
