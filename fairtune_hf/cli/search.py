"""`fairtune search`: from pictures to the chosen mask and learning rate."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.inputs import (
    check_run,
    claim_run,
    load_model,
    load_table,
    open_run,
    place_data,
    resolve_config,
)
from fairtune_hf.cli.messages import command_line, is_first_process, say
from fairtune_hf.data import stratified_fraction
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.search.arguments import apply_policy, apply_protocol
from fairtune_hf.search.best import describe_damage
from fairtune_hf.search.objectives import ObjectiveMetrics, parse_objectives
from fairtune_hf.search.shared import check_shared
from fairtune_hf.search.soundness import check_study
from fairtune_hf.search.storage import open_storage, read_trials, without_password
from fairtune_hf.search.workers import WorkerPool, count_workers, is_worker, start_workers
from fairtune_hf.training import Backbone, RunFolder
from fairtune_hf.training.identity import MAY_CHANGE, identify
from fairtune_hf.tuner import FairMaskConfig, check_layout_of, count_trained

PARSER = PARSERS["search"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, load and check; return the search to run."""
    (data, options, model, search, training, output), given = PARSER.parse(arguments)
    place_data(data, given)
    search = apply_policy(apply_protocol(search, search.protocol, given), given)
    training = apply_protocol(training, search.protocol, given)
    if search.storage is None and "FAIRTUNE_STORAGE" in os.environ:
        # By the environment a password stays out of command lines and of config.yaml.
        shared = replace(search, storage=os.environ["FAIRTUNE_STORAGE"])
    else:
        shared = search
    output.out = output.out or f"runs/{data.dataset}"
    config = resolve_config(data, options, model, search, training)
    config.pop("storage", None)  # it may hold a password, and says nothing about the search itself
    search = _name_study(shared, config)
    if is_worker():  # whatever was there, the process that started this one has dealt with it
        output.overwrite = False
    folder = open_run(output, config)
    _check_storage(folder, search, begins_anew=bool(output.overwrite))
    # The workers' parent has looked.
    tables_are_whole = bool(output.overwrite) or is_worker() or check_study(folder, search)
    workers = 1 if is_worker() else count_workers(search.workers)
    if workers > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            f"--workers: expected 1 under accelerate launch, which puts several processes on one trial, got {search.workers}. "
            "Start `fairtune search --workers` by itself for one trial on each GPU."
        )
    backbone = load_model(model)
    say(_describe_model(backbone))
    check_layout_of(backbone.model, search.layout)
    table = load_table(data, options, training, backbone, splits=("train", "validation"))
    check_run(folder, output, table, backbone)
    if search.storage is not None:
        check_shared(search, identify(table, backbone, {}))
    if not output.overwrite and tables_are_whole and is_searched(folder, search):
        damage = describe_damage(folder.path)
        return lambda: say(
            f"{damage or ''}\n{folder.path}: the search is done; nothing to do.".strip()
        )
    whole, table = table, stratified_fraction(table, search.search_fraction, seed=training.seed)
    ObjectiveMetrics(parse_objectives(search.objective), table.subset("validation"))
    claim = nullcontext() if is_worker() else claim_run(folder, output, config, whole, backbone)

    def run() -> None:
        pool: AbstractContextManager[WorkerPool | None] = nullcontext()
        if workers > 1:
            pool = start_workers(["search", *arguments], workers, folder.path)
        with claim, pool as watched:
            show = not is_worker()
            search_masks(
                table, backbone, folder, search, training, pool=watched, show_progress=show
            )
        if not is_worker():
            _say_result(folder, backbone)

    return run


def _name_study(search: SearchArguments, config: Mapping[str, Any]) -> SearchArguments:
    """In a storage that searches share, name the study by what it searches: the same command finds it again."""
    if search.storage is None or search.study_name is not None:
        return search
    fixed = {name: value for name, value in config.items() if name not in MAY_CHANGE}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True, default=str).encode()).hexdigest()
    return replace(search, study_name=f"fairtune-{digest[:12]}")


def _check_storage(folder: RunFolder, search: SearchArguments, *, begins_anew: bool) -> None:
    """Refuse a storage that does not answer, and to go on somewhere else than where the trials are."""
    if search.storage is not None:
        open_storage(search.storage)
    if begins_anew:
        if search.storage is not None and folder.is_a_run():
            _require_no_trials(search.storage, str(search.study_name))
        return
    if search.storage is None and folder.trials_file.is_file() and not folder.study_file.is_file():
        raise ValueError(
            f"--storage: expected the storage of the earlier trials, which {folder.trials_file} lists and {folder.path} does "
            "not hold; none was given. Give the same --storage, or set FAIRTUNE_STORAGE, or choose another --out."
        )
    if search.storage is not None and folder.study_file.is_file():
        raise ValueError(
            f"--storage: expected none, since the trials of this search are in {folder.study_file}. Leave it out (and unset "
            "FAIRTUNE_STORAGE), or choose another --out."
        )


def _require_no_trials(storage: str, study_name: str) -> None:
    """Refuse to begin anew in a study that others may share, from which nothing is deleted."""
    trials = read_trials(storage, study_name)
    if trials:
        raise ValueError(
            f"--overwrite: expected a study without trials to begin anew in, and {study_name!r} in "
            f"{without_password(storage)} holds {len(trials)}, which other machines may share; only files in --out are ever "
            "deleted. Give another --study-name; or delete that study with `optuna delete-study --storage URL --study-name "
            f"{study_name}`; or leave --overwrite out to go on with it."
        )


def _describe_model(backbone: Backbone) -> str:
    """Say what the checkpoint was read as: a mistaken reading shows in the counts."""
    counts = backbone.count_parameters()
    parts = ", ".join(f"{part} {count:,}" for part, count in counts.items())
    return (
        f"Model {backbone.id}: {type(backbone.model).__name__}, {backbone.blocks} blocks, pictures of {backbone.image_size} px; "
        f"{sum(counts.values()):,} parameters ({parts})."
    )


def _say_result(folder: RunFolder, backbone: Backbone) -> None:
    if not is_first_process():
        return
    own = folder.read().own
    choice, search = own.choice, own.search
    config = FairMaskConfig(mask=choice.mask, layout=choice.layout)
    trained, every = count_trained(backbone.model, config)
    say(
        f"Chosen mask {choice.mask} at learning rate {choice.learning_rate:.2e}; trials in {folder.trials_file}.\n"
        f"It trains {trained:,} of {every:,} parameters.\n"
        f"The best of many noisy values is lucky: expect its validation {(search.objective or '').split(',')[0]} "
        f"to be too good by at most about {search.optimism:.3f} on average.\n"
        f"Chosen by: {choice.selected_by}.\n"
        f"Next: {command_line('finetune', folder.path)}"
    )


def is_searched(folder: RunFolder, search: SearchArguments) -> bool:
    """Whether the folder's search has made its choice after all that is now asked for."""
    record = folder.read_if_whole()
    if record is None and folder.record_file.is_file():
        say(f"{folder.record_file} is damaged and is written anew from the study.")
    if record is None or not record.own.search:
        return False
    done = record.own.search
    if done.ended >= search.trials:
        return True
    hours_over = search.hours is not None and (done.wall_seconds or 0) >= 3600 * search.hours
    epochs = search.trained_epochs
    return hours_over or (epochs is not None and (done.trained_epochs or 0) >= epochs)
