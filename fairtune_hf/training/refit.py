"""Train a chosen mask again, several seeds, and keep its predictions and its adapter.

What is trained comes from the run's record: mask, learning rate, schedule and seed travel by file.
Validation and test rows are scored once, after the last epoch of each refit.
"""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import PartialState
from tqdm.auto import tqdm

from fairtune_hf.costs import add_costs
from fairtune_hf.data import ImageTable
from fairtune_hf.model_description import (
    ModelDescription,
    forget_measured,
    needs_description,
)
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import ChoiceRecord, RunRecord
from fairtune_hf.training.adapter import adapter_fault
from fairtune_hf.training.adapter_folder import (
    describe_adapter,
    save_adapter,
    write_description,
)
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.candidate import Candidate
from fairtune_hf.training.description import describe_dataset
from fairtune_hf.training.garbage import quick_collections
from fairtune_hf.training.identity import keep_identity
from fairtune_hf.training.mending import Measured
from fairtune_hf.training.train import Training
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.turn import FileTurn
from fairtune_hf.whole_files import replacing_folder

_SCORED_SPLITS = ("validation", "test")


def refit(
    training: Training,
    folder: RunFolder,
    choice: ChoiceRecord,
    *,
    seeds: Sequence[int],
    keep_seeds: bool = False,
    on_seed: Callable[[int], object] | None = None,
    on_cost: Callable[[dict[str, Any]], object] | None = None,
) -> pd.DataFrame:
    """Train a choice once a seed and write its predictions; the first seed's adapter is saved.

    Seeds whose predictions of this very choice are already in the folder are not trained again, so an
    interrupted refit goes on where it stopped. Predictions of another choice, left there by a shorter
    search, are replaced, and so are damaged ones; where the adapter is missing or damaged, the first seed
    is trained again.

    Args:
        training: How a candidate is trained, on a table of all three splits.
        folder: Receives `predictions.parquet` and `adapter/`.
        choice: What to train.
        seeds: One refit each; the adapter kept is that of the first.
        keep_seeds: Keep the adapters of the others too, in `seeds/`, and train again those that are not there.
        on_seed: Called with each seed once its predictions are in the folder.
        on_cost: Called with the cost entry of each training that was done.

    Returns:
        The predictions of all seeds: row_id, seed, split, label, score, patient and the attributes.
    """
    training, candidate = training.at(folder.path), Candidate.from_record(choice)
    done = read_done(folder, choice, seeds, keep_seeds=keep_seeds)
    if done is None and PartialState().is_main_process:
        shutil.rmtree(folder.path / "seeds", ignore_errors=True)  # of another choice
    adapter = None if done is None else folder.noted_adapter(done)
    frames = {} if done is None else {seed: done[done["seed"] == seed] for seed in seeds}
    frames = {seed: frame for seed, frame in frames.items() if len(frame)}
    for seed in seeds:
        if seed not in frames:
            further = folder.kept_adapter(seed) if keep_seeds else None
            save_to = folder.adapter if seed == seeds[0] else further
            trainer = training.train(replace(candidate, seed=seed))
            frames[seed] = _score_and_save(trainer, training, seed, save_to)
            if PartialState().is_main_process:
                if seed == seeds[0]:
                    adapter = folder.digest_adapter()
                folder.write_refits(_join(frames, seeds), choice, adapter)
            if on_cost is not None:
                on_cost(trainer.cost.record())
        if on_seed is not None:
            on_seed(seed)
    if PartialState().is_main_process and needs_description(folder.adapter):
        # Of an earlier release, or damaged; the weights are as they were.
        write_description(folder.adapter, _describe(training, seeds[0]))
    return _join(frames, seeds)


def _describe(training: Training, seed: int) -> ModelDescription:
    transforms = training.arguments.transforms
    return describe_adapter(training.table, training.backbone, transforms, seed)


def read_done(
    folder: RunFolder, choice: ChoiceRecord, seeds: Sequence[int], *, keep_seeds: bool = False
) -> pd.DataFrame | None:
    """Read the predictions of a choice that need not be made again; None where all have to be.

    Without a whole adapter of theirs, those of the first seed count as not there, and with `keep_seeds` those
    of the others without an adapter.
    """
    done = folder.read_whole_refits(choice)
    if done is None:
        return None
    again = [] if adapter_fault(folder, done) is None else [seeds[0]]
    if keep_seeds:
        again += sorted({*seeds[1:]} - {*folder.kept_seeds()})
    return done[~done["seed"].isin(again)] if again else done


def _join(frames: Mapping[int, pd.DataFrame], seeds: Sequence[int]) -> pd.DataFrame:
    return pd.concat([frames[seed] for seed in seeds if seed in frames], ignore_index=True)


def finetune(
    folder: RunFolder,
    table: ImageTable,
    backbone: Backbone,
    arguments: FitArguments,
    *,
    seeds: Sequence[int],
    keep_seeds: bool = False,
    show_progress: bool = True,
) -> None:
    """Train the run's choice and its controls at the same seeds, as run.json says.

    Args:
        folder: The run.
        table: Its rows, of all three splits.
        backbone: Its base model.
        arguments: How it trains.
        seeds: One refit each.
        keep_seeds: Keep the choice's adapter of every seed, not of the first alone.
        show_progress: Draw a bar.

    Raises:
        ValueError: The data or the weights are not those of the search.
    """
    state = arguments.join_processes()
    with _refits_alone(folder) if state.is_main_process else nullcontext():
        state.wait_for_everyone()  # what the first process wrote to the folder is there once all are here
        _finetune(folder, table, backbone, arguments, seeds, keep_seeds, show_progress)


def _refits_alone(folder: RunFolder) -> FileTurn:
    """Take the turn at a run's refits; who comes later waits, and finds them done."""
    turn = FileTurn(folder.path / "finetune.lock")
    if not turn.acquire_now():
        tqdm.write(
            f"Another process trains the refits in {folder.path}; this one waits for its end.",
            file=sys.stderr,
        )
        turn.acquire()
    return turn


def _finetune(
    folder: RunFolder,
    table: ImageTable,
    backbone: Backbone,
    arguments: FitArguments,
    seeds: Sequence[int],
    keep_seeds: bool,
    show_progress: bool,
) -> None:
    """Do what `finetune` says, alone in the folder."""
    record = folder.read_chosen()
    check_same_inputs(record, table, backbone)
    keep_identity(folder, table, backbone, arguments)
    methods = folder.refits(record)
    measured = Measured(folder, record) if record.own.result("test") else None
    training = Training(
        table=table,
        backbone=backbone,
        arguments=arguments,
        trainings=len(methods) * len(seeds),
    )
    with (
        quick_collections() as settle,
        tqdm(
            total=len(methods) * len(seeds),
            desc="refit",
            unit="model",
            disable=not show_progress,
        ) as bar,
    ):

        def end_seed(seed: int) -> None:
            bar.update()
            settle()

        trained: list[tuple[Candidate, RunFolder]] = []
        for name, (where, method) in methods.items():
            bar.set_postfix_str(name)
            candidate = Candidate.from_record(method.choice)
            for twin, its_folder in trained:
                if twin == candidate:  # the search chose a control itself: not trained twice
                    _take_refits(where, its_folder)
                    break
            trained.append((candidate, where))
            refit(
                training,
                where,
                method.choice,
                seeds=seeds,
                keep_seeds=keep_seeds and where is folder,
                on_seed=end_seed,
                on_cost=functools.partial(_add_refit_cost, folder, name),
            )
    if PartialState().is_main_process:
        with folder.editing() as found:
            if measured is not None and not measured.holds():
                found.forget_evaluation()
                forget_measured(folder.adapter)
            found.dataset = describe_dataset(table)
            found.warnings = list(dict.fromkeys([*found.warnings, *table.warnings]))
    PartialState().wait_for_everyone()


def _take_refits(folder: RunFolder, twin: RunFolder) -> None:
    """Copy a twin's refits on the first process, before any other looks for them."""
    if PartialState().is_main_process:
        folder.take_refits_of(twin)
    PartialState().wait_for_everyone()


def _add_refit_cost(folder: RunFolder, name: str, cost: dict[str, Any]) -> None:
    """Add a training to what a method's refits cost, at once, so that an interruption loses none."""
    if PartialState().is_main_process:
        with folder.editing() as record:
            held = record.methods[name].cost
            held["refit"] = add_costs([held.get("refit"), cost]) or {}


def check_same_inputs(record: RunRecord, table: ImageTable, backbone: Backbone) -> None:
    """Refuse to refit on other rows, another split or other weights than the search had.

    Raises:
        ValueError: The split hash or the hash of the weights differs from run.json's.
    """
    if record.dataset.split_hash != table.split_hash:
        raise ValueError(
            f"--data-root: expected the rows and the split of the search (split hash {record.dataset.split_hash[:12]}), "
            f"got {table.split_hash[:12]}. The data changed since the search: restore it, or search again into a new folder."
        )
    check_same_base(record, backbone)


def check_same_base(record: RunRecord, backbone: Backbone) -> None:
    """Refuse other weights than the run's.

    Raises:
        ValueError: The hash of the weights differs from run.json's.
    """
    if record.model.sha256 != backbone.sha256:
        raise ValueError(
            f"--model: expected the weights of the search (sha256 {record.model.sha256[:12]}), got "
            f"{backbone.sha256[:12]}. Restore the checkpoint, or search again into a new folder."
        )


def _score_and_save(
    trainer: FairTrainer, training: Training, seed: int, save_to: Path | None
) -> pd.DataFrame:
    """Score validation and test rows with a trained model, and keep its adapter where asked."""
    frames = [
        describe_predictions(
            training.table.subset(split),
            split,
            seed,
            trainer.predict_scores(training.datasets[split]),
        )
        for split in _SCORED_SPLITS
    ]
    if save_to is not None and trainer.is_world_process_zero():
        with replacing_folder(save_to) as partial:
            save_adapter(trainer.model, partial, _describe(training, seed))
    return pd.concat(frames, ignore_index=True)


def describe_predictions(
    table: ImageTable, split: str, seed: int, scores: np.ndarray
) -> pd.DataFrame:
    """Lay out the scores of one split and seed as rows of predictions.parquet.

    Raises:
        FloatingPointError: A score is not a number.
    """
    if not np.isfinite(scores).all():
        raise FloatingPointError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} {split} scores are not numbers (seed {seed}): the "
            "training diverged. Choose a smaller learning rate, or fp32 precision."
        )
    # Patients travel as anonymous numbers: intervals need to know who belongs together, nobody who it is.
    described = {"row_id", "patient_id", "label", "split"}
    attributes = [column for column in table.frame.columns if column not in described]
    frame = pd.DataFrame(
        {
            "row_id": table.frame["row_id"].to_numpy(),
            "seed": np.int64(seed),
            "split": split,
            "label": table.labels,
            "score": scores,
            "patient": table.patients,
        }
    )
    return pd.concat([frame, table.frame[attributes].reset_index(drop=True)], axis=1)
