"""Train a chosen mask again, several seeds, and keep its predictions and its adapter.

What is trained comes from the run's record: mask, learning rate, schedule and seed travel by file.
Validation and test rows are scored once, after the last epoch of each refit.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import PartialState
from peft import get_peft_model
from tqdm.auto import tqdm
from transformers import set_seed

from fairtune_hf.data import ImageTable
from fairtune_hf.run_folder import EVALUATED, RunFolder
from fairtune_hf.training.adapter import adapter_fault
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.cost import add_costs, expected_operations
from fairtune_hf.training.dataset import ImageDataset
from fairtune_hf.training.description import describe_dataset
from fairtune_hf.training.garbage import quick_collections
from fairtune_hf.training.identity import keep_identity
from fairtune_hf.training.mending import Measured
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.tuner import FairMaskConfig
from fairtune_hf.turn import FileTurn
from fairtune_hf.whole_files import replacing_folder

_SCORED_SPLITS = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A mask and what is needed to train it: the unit that travels between the steps."""

    mask: str
    layout: str
    learning_rate: float
    epochs: int | None = None  # None: as many as the run's arguments say

    @classmethod
    def from_record(cls, record: dict[str, Any], layout: str) -> Choice:
        """Read a choice from run.json's `choice` or a control's entry."""
        return cls(
            mask=record["mask"],
            layout=layout,
            learning_rate=record["learning_rate"],
            epochs=record.get("epochs"),
        )

    def config(self) -> FairMaskConfig:
        """Return the tuner's configuration of this choice."""
        return FairMaskConfig(mask=self.mask, layout=self.layout)


def build_datasets(
    table: ImageTable, backbone: Backbone, arguments: FitArguments
) -> dict[str, ImageDataset]:
    """Turn each split that the table holds into model inputs; only training rows are augmented."""
    return {
        split: ImageDataset(
            table.subset(split),
            image_mean=backbone.image_mean,
            image_std=backbone.image_std,
            image_size=backbone.image_size,
            transforms=arguments.transforms if split == "train" else None,
            placement=arguments.images_on,
        )
        for split in table.splits
    }


def class_weights(table: ImageTable, arguments: FitArguments) -> tuple[float, float] | None:
    """Weight of each class, 1 - its share of the training rows, or None where classes weigh the same."""
    if arguments.class_weight == "none":
        return None
    positive_share = float(np.mean(table.subset("train").labels))
    return positive_share, 1.0 - positive_share


def compiling_pays(arguments: FitArguments, backbone: Backbone, rows: int, trainings: int) -> bool:
    """Whether to compile the blocks for so many trainings on so many rows in this process."""
    pictures = rows * arguments.epochs * trainings
    return arguments.compiles(expected_operations(backbone.model, pictures))


def refit(
    choice: Choice,
    table: ImageTable,
    backbone: Backbone,
    folder: RunFolder,
    arguments: FitArguments,
    *,
    seeds: Sequence[int],
    datasets: dict[str, ImageDataset] | None = None,
    on_seed: Callable[[int], object] | None = None,
    on_cost: Callable[[dict[str, Any]], object] | None = None,
    train: Callable[[int, dict[str, ImageDataset]], FairTrainer] | None = None,
    trainings: int | None = None,
    entry: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Train a choice once a seed and write its predictions; the first seed's adapter is saved.

    Seeds whose predictions of this very choice are already in the folder are not trained again, so an
    interrupted refit goes on where it stopped. Predictions of another choice, left there by a shorter
    search, are replaced, and so are damaged ones; where the adapter is missing or damaged, the first seed
    is trained again.

    Args:
        choice: What to train.
        table: All three splits.
        backbone: Where every refit starts from.
        folder: Receives `predictions.parquet` and `adapter/`.
        arguments: Epochs, batch size and the rest, as in the search.
        seeds: One refit each; the adapter kept is that of the first.
        datasets: The splits as model inputs, where they were built before.
        on_seed: Called with each seed once its predictions are in the folder.
        on_cost: Called with the cost entry of each training that was done.
        train: Trains at a seed and returns the Trainer with the trained model, for a method of its
            own; by default the choice's mask is fine-tuned.
        trainings: How many such trainings the process does in all, if it is more than one a seed.
        entry: The choice as run.json has it, where mask, layout, learning rate and epochs do not say all.

    Returns:
        The predictions of all seeds: row_id, seed, split, label, score, patient and the attributes.
    """
    datasets = datasets or build_datasets(table, backbone, arguments)
    if train is None:
        compiled = compiling_pays(
            arguments, backbone, len(datasets["train"]), trainings or len(seeds)
        )
        train = functools.partial(_train, choice, table, backbone, arguments, folder.path, compiled)
    entry = entry or asdict(choice)
    done = read_done(folder, entry, seeds)
    adapter = None if done is None else folder.noted_adapter(done)
    frames = {} if done is None else {seed: done[done["seed"] == seed] for seed in seeds}
    frames = {seed: frame for seed, frame in frames.items() if len(frame)}
    for seed in seeds:
        if seed not in frames:
            save_to = folder if seed == seeds[0] else None
            trainer = train(seed, datasets)
            frames[seed] = _score_and_save(trainer, table, seed, datasets, save_to)
            if PartialState().is_main_process:
                if save_to is not None:
                    adapter = folder.digest_adapter()
                folder.write_refits(_join(frames, seeds), entry, adapter)
            if on_cost is not None:
                on_cost(trainer.cost.record())
        if on_seed is not None:
            on_seed(seed)
    return _join(frames, seeds)


def read_done(
    folder: RunFolder, entry: Mapping[str, Any], seeds: Sequence[int]
) -> pd.DataFrame | None:
    """Read the predictions of a choice that need not be made again; None where all have to be.

    Without a whole adapter of theirs, those of the first seed count as not there.
    """
    done = folder.read_whole_refits(entry)
    if done is None or adapter_fault(folder, done) is None:
        return done
    return done[done["seed"] != seeds[0]]


def _join(frames: Mapping[int, pd.DataFrame], seeds: Sequence[int]) -> pd.DataFrame:
    return pd.concat([frames[seed] for seed in seeds if seed in frames], ignore_index=True)


def finetune(
    folder: RunFolder,
    table: ImageTable,
    backbone: Backbone,
    arguments: FitArguments,
    *,
    seeds: Sequence[int],
    show_progress: bool = True,
) -> None:
    """Train the run's choice and its controls at the same seeds, as run.json says.

    Raises:
        ValueError: The data or the weights are not those of the search.
    """
    state = arguments.join_processes()
    with _refits_alone(folder) if state.is_main_process else nullcontext():
        state.wait_for_everyone()  # what the first process wrote to the folder is there once all are here
        _finetune(folder, table, backbone, arguments, seeds, show_progress)


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
    show_progress: bool,
) -> None:
    """Do what `finetune` says, alone in the folder."""
    record = folder.read_chosen()
    check_same_inputs(record, table, backbone)
    keep_identity(folder, table, backbone, arguments)
    methods = folder.refits(record)
    measured = Measured(folder, record) if record["test"] is not None else None
    datasets = build_datasets(table, backbone, arguments)
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

        trained: dict[Choice, RunFolder] = {}
        for name, (where, entry) in methods.items():
            bar.set_postfix_str(name)
            choice = Choice.from_record(entry, entry["layout"])
            if choice in trained:  # the search chose a control itself: not trained twice
                _take_refits(where, trained[choice])
            trained.setdefault(choice, where)
            refit(
                choice,
                table,
                backbone,
                where,
                arguments,
                seeds=seeds,
                datasets=datasets,
                on_seed=end_seed,
                on_cost=functools.partial(_add_refit_cost, folder),
                trainings=len(methods) * len(seeds),
            )
    if PartialState().is_main_process:
        is_other = measured is not None and not measured.holds()
        folder.update(
            **(_without_evaluation(record) if is_other else {}),
            dataset=describe_dataset(table),
            warnings=list(dict.fromkeys([*(record["warnings"] or []), *table.warnings])),
        )
    PartialState().wait_for_everyone()


def _without_evaluation(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of run.json that an evaluation fills, of the choice and of each control, as before it."""
    controls = {
        name: {key: value for key, value in entry.items() if key not in EVALUATED}
        for name, entry in (record["controls"] or {}).items()
    }
    return {**dict.fromkeys(EVALUATED), "controls": controls}


def _take_refits(folder: RunFolder, twin: RunFolder) -> None:
    """Copy a twin's refits on the first process, before any other looks for them."""
    if PartialState().is_main_process:
        folder.take_refits_of(twin)
    PartialState().wait_for_everyone()


def _add_refit_cost(folder: RunFolder, cost: dict[str, Any]) -> None:
    """Add a training to the refits' entry of run.json, at once, so that an interruption loses none."""
    if PartialState().is_main_process:
        held = folder.read()["cost"]
        before = held if isinstance(held, dict) else {}
        folder.update(cost={**before, "refit": add_costs([before.get("refit"), cost])})


def check_same_inputs(record: dict[str, Any], table: ImageTable, backbone: Backbone) -> None:
    """Refuse to refit on other rows, another split or other weights than the search had.

    Raises:
        ValueError: The split hash or the hash of the weights differs from run.json's.
    """
    if record["dataset"]["split_hash"] != table.split_hash:
        raise ValueError(
            f"--data-root: expected the rows and the split of the search (split hash {record['dataset']['split_hash'][:12]}), "
            f"got {table.split_hash[:12]}. The data changed since the search: restore it, or search again into a new folder."
        )
    check_same_base(record, backbone)


def check_same_base(record: dict[str, Any], backbone: Backbone) -> None:
    """Refuse other weights than the run's.

    Raises:
        ValueError: The hash of the weights differs from run.json's.
    """
    if record["model"]["sha256"] != backbone.sha256:
        raise ValueError(
            f"--model: expected the weights of the search (sha256 {record['model']['sha256'][:12]}), got "
            f"{backbone.sha256[:12]}. Restore the checkpoint, or search again into a new folder."
        )


def _train(
    choice: Choice,
    table: ImageTable,
    backbone: Backbone,
    arguments: FitArguments,
    folder: Path,
    compile_blocks: bool,
    seed: int,
    datasets: dict[str, ImageDataset],
) -> FairTrainer:
    """Fine-tune a choice's mask at one seed."""
    if choice.epochs is not None:
        arguments = replace(arguments, epochs=choice.epochs)
    set_seed(seed)
    trainer = FairTrainer(
        model=get_peft_model(backbone.copy_with_new_head(), choice.config()),
        args=arguments.to_training_arguments(
            folder,
            learning_rate=choice.learning_rate,
            seed=seed,
            run_name=f"{folder.resolve().name}-seed-{seed}",
        ),
        train_dataset=datasets["train"],
        class_weights=class_weights(table, arguments),
        compile_blocks=compile_blocks,
    )
    trainer.train()
    return trainer


def _score_and_save(
    trainer: FairTrainer,
    table: ImageTable,
    seed: int,
    datasets: dict[str, ImageDataset],
    save_to: RunFolder | None,
) -> pd.DataFrame:
    """Score validation and test rows with a trained model, and keep its adapter where asked."""
    frames = [
        describe_predictions(
            table.subset(split), split, seed, trainer.predict_scores(datasets[split])
        )
        for split in _SCORED_SPLITS
    ]
    if save_to is not None and trainer.is_world_process_zero():
        model: Any = trainer.model
        with replacing_folder(save_to.adapter) as partial:
            model.save_pretrained(str(partial))
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
