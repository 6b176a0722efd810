"""`fairtune search`: from pictures to the chosen mask and learning rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairtune_hf.cli.arguments import DataArguments, DataOptions, ModelArguments, OutputArguments
from fairtune_hf.cli.inputs import (
    clear_if_asked,
    load_model,
    load_table,
    open_run,
    resolve_config,
)
from fairtune_hf.cli.messages import is_first_process, say
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.data import stratified_fraction
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.training import FitArguments, RunFolder

PARSER = RecipeParser(
    "search",
    "Search which blocks' LayerNorm, attention and MLP to fine-tune, and the learning rate, so that the "
    "worst group's validation AUC is highest. The same command on its own folder resumes.",
    "fairtune search --dataset nih_chestxray14 --data-root DIR --sensitive sex --trials 20 --out runs/nih",
    (DataArguments, DataOptions, ModelArguments, SearchArguments, FitArguments, OutputArguments),
)


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, load and check; return the search to run."""
    (data, options, model, search, training, output), _ = PARSER.parse(arguments)
    output.out = output.out or f"runs/{data.dataset}"
    config = resolve_config(data, options, model, search, training)
    folder = open_run(output, config)
    if not output.overwrite and is_searched(folder, search.trials):
        return lambda: say(f"{folder.path}: all {search.trials} trials are done; nothing to do.")
    backbone = load_model(model)
    table = load_table(data, options, training, backbone, splits=("train", "validation"))
    table = stratified_fraction(table, search.search_fraction, seed=training.seed)

    def run() -> None:
        clear_if_asked(folder, output)
        if is_first_process():
            folder.write_config(config)
        choice = search_masks(table, backbone, folder, search, training)
        optimism = folder.read()["search"]["optimism"]
        say(
            f"Chosen mask {choice.mask} at learning rate {choice.learning_rate:.2e}; trials in {folder.trials_file}.\n"
            f"The best of many noisy values is lucky: expect its validation {search.objective} to be {optimism:.3f} too high.\n"
            f"Next: fairtune finetune --run {folder.path}"
        )

    return run


def is_searched(folder: RunFolder, trials: int) -> bool:
    """Whether the folder's search has finished at least this many trials and made its choice."""
    if not folder.record_file.is_file():
        return False
    search = folder.read()["search"]
    return search is not None and search["completed"] + search["pruned"] >= trials
