"""The policy `shared`: one training under many masks ranks them, and the best few are really trained.

The training, the scores of all ranked masks on the validation rows and the ranking are kept in the run's
`shared/`; nothing of the shared weights is ever published. An interrupted one is begun anew from its seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from tqdm.auto import tqdm

from fairtune_hf.baselines.shared_masks import DENSITIES, SharedMasks
from fairtune_hf.data import ImageTable
from fairtune_hf.mask import LAYOUTS, PRESETS, Mask
from fairtune_hf.metrics.registry import METRICS, statistic
from fairtune_hf.metrics.resampled_table import ResampledTable
from fairtune_hf.search.agreement import of_first_process
from fairtune_hf.search.objectives import Objective, ObjectiveMetrics, Rows, parse_objectives
from fairtune_hf.search.ranking import (
    FloatArray,
    Ranking,
    draw_masks,
    pick_apart,
    rank_masks,
    split_half_reliability,
    standardise,
)
from fairtune_hf.search.sampling import StartupPoint
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.train import Training
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.tuner.switch import MaskSwitch
from fairtune_hf.whole_files import replacing, write_text

FOLDER = "shared"
RATES = (0.8, 0.6)
"""Places in the range of the learning rate (log scale): of the shared training the first, of the picks each."""
_PICKS = 2
_FEWEST, _MOST = 64, 300  # masks that are ranked
_DIVISIONS = 20
_FEW = 3.0  # times the epochs of a training: shorter, the values follow the number of trained parameters
_SMALL = (
    0.3  # a correlation with the number of trained parameters above this says that it was too short
)


def shared_points(plan: StudyPlan, training: Training, *, show: bool = True) -> list[StartupPoint]:
    """Return the trials that one shared training asks for, training it if the run has no ranking yet.

    Args:
        plan: The search.
        training: How its trials are trained, and on which rows.
        show: Say what is done and found.

    Raises:
        ValueError: Several objectives, or FSDP, which puts other parameters in the model's place.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true"):
        raise ValueError(
            "--policy: expected trials under FSDP, which shares parameters out that a shared training puts aside, got shared. "
            "Choose --policy trials, or plain distributed training."
        )
    file = plan.folder.path / FOLDER / "ranking.json"
    found = of_first_process(_read(file))
    if found is None:
        file.parent.mkdir(parents=True, exist_ok=True)
        first = int(os.environ.get("RANK", "0")) == 0
        with FileLock(file.with_suffix(".lock")) if first else contextlib.nullcontext():
            found = of_first_process(_read(file))
            if found is None:
                found = _train_and_rank(plan, training, file.parent, show and first)
    space = plan.space
    return [
        StartupPoint(
            params={
                **dict(zip(space.bit_names, map(int, pick["mask"]), strict=True)),
                "learning_rate": space.place(rate),
            },
            preset=None,
        )
        for rate in RATES
        for pick in found["picks"]
    ]


def describe_ranking(folder: Path) -> dict[str, Any] | None:
    """Return what run.json tells of a run's shared training; None where there was none."""
    return _read(folder / FOLDER / "ranking.json")


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found if found.get("picks") else None
    except (FileNotFoundError, ValueError):
        return None  # cut short by a full disk or a kill: made again, with the same result


def _train_and_rank(
    plan: StudyPlan, training: Training, folder: Path, show: bool
) -> dict[str, Any]:
    search, space = plan.search, plan.space
    epochs = search.shared_epochs or round(_FEW * training.arguments.epochs)
    (objective,) = parse_objectives(search.objective)
    count = _count_masks(training, epochs)
    rate, seed = space.place(RATES[0]), training.arguments.seed
    if show:
        _say(
            f"Shared training: {epochs} epochs, each step under a mask of its own; then {count} masks are scored."
        )
    trainer = _train(training.at(folder, method=SharedMasks, trainings=1), space, epochs, rate)
    switch = _switch_of(trainer)
    masks = draw_masks(
        _presets(space.layout, space.blocks),
        switch.n_bits,
        len(LAYOUTS[space.layout]),
        count,
        seed,
    )
    scores = _score(trainer, masks)
    trained = np.array([switch.count(mask) for mask in masks], dtype=np.float64)
    ranking = _rank(masks, scores, training.table, objective)
    picked = pick_apart(masks, ranking.estimates, _PICKS, apart=max(1, switch.n_bits // 7))
    follows = float(np.mean(standardise(ranking.estimates) * standardise(trained)))
    found = {
        "epochs": epochs,
        "learning_rate": rate,
        "seed": seed,
        "densities": list(DENSITIES),
        "masks": len(masks),
        "objective": objective.name,
        "reliability": round(ranking.reliability, 4),
        "explained_by_bits": round(ranking.explained, 4),
        "correlation_with_trained_parameters": round(follows, 4),
        "picks": [
            {"mask": "".join(map(str, masks[i])), "estimate": round(float(ranking.estimates[i]), 4)}
            for i in picked
        ],
        "cost": trainer.cost.record(),
    }
    if trainer.is_world_process_zero():
        with replacing(folder / "scores.npz") as partial, partial.open("wb") as file:
            np.savez_compressed(
                file, masks=masks.astype(np.int8), scores=scores.astype(np.float16),
                estimates=ranking.estimates,
            )  # fmt: skip
        write_text(folder / "ranking.json", json.dumps(found, indent=1) + "\n")
    if show:
        _say(_in_words(found))
    return found


def _train(training: Training, space: SearchSpace, epochs: int, rate: float) -> FairTrainer:
    arguments = dataclasses.replace(training.arguments, epochs=epochs)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Whatever a step's mask leaves out has no gradient to wait for.
        further = arguments.further_arguments() | {"ddp_find_unused_parameters": True}
        arguments = dataclasses.replace(arguments, training_arguments=json.dumps(further))
    return training.at(training.folder, arguments=arguments).train(
        Candidate(
            mask="1" * len(space.bit_names),
            layout=space.layout,
            learning_rate=rate,
            seed=arguments.seed,
            hyperparameters={"layout": space.layout, "seed": arguments.seed},
        )
    )


def _switch_of(trainer: FairTrainer) -> MaskSwitch:
    assert isinstance(trainer.method, SharedMasks)
    assert trainer.method.switch is not None
    return trainer.method.switch


def _count_masks(training: Training, epochs: int) -> int:
    """As many as are scored in the forward passes of twice the training, within limits."""
    rows = {split: len(training.datasets[split]) for split in ("train", "validation")}
    return int(np.clip(2 * epochs * rows["train"] / rows["validation"], _FEWEST, _MOST))


def _presets(layout: str, blocks: int) -> list[tuple[int, ...]]:
    found = []
    for preset in PRESETS:
        with contextlib.suppress(ValueError):  # a layout cannot express all of them
            found.append(Mask.parse(preset, layout=layout, blocks=blocks).bits)
    return found


def _score(trainer: FairTrainer, masks: np.ndarray) -> FloatArray:
    """Score the validation rows under each mask, `(masks, rows)`; several processes share the masks."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    rows: Any = trainer.eval_dataset
    switch = _switch_of(trainer)
    size, rank, world = (
        trainer.args.eval_batch_size,
        trainer.args.process_index,
        trainer.args.world_size,
    )
    batches = [
        rows.__getitems__(range(start, min(start + size, len(rows))))["pixel_values"]
        for start in range(0, len(rows), size)
    ]
    model.eval()
    own = {}
    with torch.no_grad(), trainer.compute_loss_context_manager():
        for place in range(rank, len(masks), world):
            with switch.under(masks[place].tolist()):
                logits = [model(pixel_values=batch).logits.double() for batch in batches]
            own[place] = torch.softmax(torch.cat(logits), dim=1)[:, 1].cpu().numpy()
    if world > 1:
        from accelerate.utils import gather_object

        own = dict(gather_object(list(own.items())))
    return np.stack([own[place] for place in range(len(masks))])


def _rank(
    masks: np.ndarray, scores: FloatArray, table: ImageTable, objective: Objective
) -> Ranking:
    """Rank by the objective and the overall AUC together: what is measured on few rows borrows from all."""
    metrics = ObjectiveMetrics([objective], table.subset("validation"))
    rows = [metrics.rows(row) for row in scores]
    halves = _halves(rows[0])
    whole, first, second = (
        np.stack(part, axis=-1)
        for part in zip(*(_values(r, objective, halves) for r in rows), strict=True)
    )
    if not np.isfinite(whole).all():
        raise ValueError(
            f"--objective: expected {objective.name} to be defined on the validation rows, and it is not. Choose another."
        )
    reliability = split_half_reliability(_joined(first), _joined(second))
    return rank_masks(masks, _joined(whole)[0], reliability)


def _joined(values: FloatArray) -> FloatArray:
    """Add the standardised values of objective and overall AUC, `(2, divisions, masks)`."""
    return standardise(values[0]) + standardise(values[1])


def _halves(rows: Rows) -> FloatArray:
    """Weights of the patients that leave one half of them out, `(divisions, patients)`, halved by label and group."""
    design = rows.design
    rng = np.random.default_rng(0)
    found = np.zeros((_DIVISIONS, design.n_clusters))
    for stratum in np.unique(design.strata):
        members = np.flatnonzero(design.strata == stratum)
        for division in found:
            division[rng.permutation(members)[: (members.size + int(rng.integers(2))) // 2]] = 1
    return found


def _values(rows: Rows, objective: Objective, halves: FloatArray) -> tuple[FloatArray, ...]:
    """Objective (large is good) and overall AUC of all rows, of first and of second halves, `(2, divisions)` each."""
    table = ResampledTable(rows.labels, rows.scores, rows.groups, rows.design)
    ones = np.ones((1, halves.shape[1]))
    overall = METRICS["overall_auc"]
    known = objective.function is None and not objective.is_bound
    known &= objective.metric in METRICS or objective.metric.startswith("auc_")
    if known:
        value = statistic(objective.metric, rows.groups)
        judged = [objective.sign * value(table, counts) for counts in (ones, halves, 1 - halves)]
    else:  # what only whole tables have is as reliable as the overall AUC
        judged = [np.array([objective.sign * rows.value(objective)])]
        judged += [overall(table, counts) for counts in (halves, 1 - halves)]
    with_overall = [overall(table, counts) for counts in (ones, halves, 1 - halves)]
    return tuple(np.stack(pair) for pair in zip(judged, with_overall, strict=True))


def _in_words(found: dict[str, Any]) -> str:
    picks = ", ".join(pick["mask"] for pick in found["picks"])
    words = (
        f"Shared training: {found['masks']} masks ranked; {100 * found['reliability']:.0f} % of what parts their values is "
        f"more than the validation sample's noise. To be trained: {picks}."
    )
    if found["correlation_with_trained_parameters"] > _SMALL:
        words += (
            f" The ranking follows the number of trained parameters (correlation "
            f"{found['correlation_with_trained_parameters']:.2f}), as short trainings do: try a larger --shared-epochs."
        )
    return words


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
