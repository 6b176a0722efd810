"""What a whole search costs at the paper's sizes, on generated pictures.

    python recipes/benchmarks/search_cost.py --size papila --json papila.json            # all 100 trials
    python recipes/benchmarks/search_cost.py --size fitzpatrick --run-trials 4 --run-epochs 4
    python recipes/benchmarks/search_cost.py --tiny                                       # does it run?

The search is the package's own (`search_masks`: study file, sampler, Trainer, evaluation and metrics of
every epoch, best adapter, tables, run.json), in this process, with ViT-B/16 from its config. Two policies:
`paper` (univariate TPE, 30 epochs, nothing pruned, no repetitions) and `default` (presets first, halving,
the three best trained again with two seeds each).

What is too long to run in full is run for `--run-trials` trials of `--run-epochs` epochs (random masks,
under the paper's policy), and the whole is extrapolated: trials x (start + time between trials) + epochs
x an epoch + what is done once; means (of the start: the median) over the trials measured, the first left
out if there are others, since it warms up. How many epochs the default policy trains is then counted in a
search of the same trials and epochs with a tiny model on few pictures, whose values are noise as the
generated ones are. Every line says what was measured and what was computed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from generated_data import MODELS, describe_machine, make_backbone, make_table
from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.data import ImageTable
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.search.arguments import apply_protocol
from fairtune_hf.search.study_plan import STUDY_NAME
from fairtune_hf.training import Backbone, FitArguments, RunFolder
from fairtune_hf.training.cost import measure_peak
from fairtune_hf.training.train import compiling_pays

# Training rows, validation rows and trials of the paper's searches.
SIZES = {
    "papila": (294, 42, 100),
    "papila_all": (420, 60, 100),
    "ol3i": (5227, 1303, 40),
    "fitzpatrick": (12809, 1601, 40),
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="papila")
    parser.add_argument("--rows", type=int, help="instead of the size's")
    parser.add_argument("--validation-rows", type=int, help="instead of the size's")
    parser.add_argument("--trials", type=int, help="instead of the size's")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--run-trials", type=int, help="trials that are run; all without it")
    parser.add_argument("--run-epochs", type=int, help="epochs of those; all without it")
    parser.add_argument("--policies", nargs="+", default=["paper", "default"])
    parser.add_argument("--model", choices=MODELS, default="base")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", choices=["auto", "on", "off"], help="auto, for the whole search's length")  # fmt: skip
    parser.add_argument("--tiny", action="store_true", help="a few rows and a tiny model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, validation_rows, trials = SIZES[options.size]
    if options.tiny:
        rows, validation_rows, trials = 48, 24, 6
        options.model, options.image_size, options.batch_size = "tiny", 32, 16
        options.epochs = min(options.epochs, 5)
    options.rows = options.rows or rows
    options.validation_rows = options.validation_rows or validation_rows
    options.trials = options.trials or trials
    options.run_trials = options.run_trials or options.trials
    options.run_epochs = options.run_epochs or options.epochs
    return options


def settings(
    policy: str, trials: int, epochs: int, options: argparse.Namespace, compile: str
) -> tuple[SearchArguments, FitArguments]:
    """Return the arguments of a search under a policy; both train as the paper does."""
    cpu = '{"use_cpu": true}' if options.device == "cpu" else None
    training = apply_protocol(
        FitArguments(
            epochs=epochs,
            batch_size=options.batch_size,
            compile=compile,  # type: ignore[arg-type]
            training_arguments=cpu,
        ),
        "paper",
        {"epochs", "batch_size"},
    )
    search = SearchArguments(trials=trials)
    if policy == "paper":
        search = apply_protocol(SearchArguments(trials=trials, pruner="none"), "paper", {"pruner"})
    return search, training


def run_search(
    table: ImageTable, backbone: Backbone, search: SearchArguments, training: FitArguments
) -> dict[str, Any]:
    """Run a search and return its wall seconds, and what its trials took."""
    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(path)
        start = time.perf_counter()
        search_masks(table, backbone, folder, search, training, show_progress=False)
        seconds = time.perf_counter() - start
        record = folder.read()
        trials, repetitions = _read_trials(folder.study_file)
    return {
        "wall_seconds": round(seconds, 2),
        "trials": len(trials),
        "pruned": sum(t.state == TrialState.PRUNED for t in trials),
        "repetitions": len(repetitions),
        "epochs": sum(len(_curve(t)) for t in [*trials, *repetitions]),
        "cost": record.cost.get("search"),
        **_mean_times(trials),
    }


def _read_trials(file: Path) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Return the finished trials of the search, and those of the repetitions."""
    storage = f"sqlite:///{file}"
    found: tuple[list[FrozenTrial], list[FrozenTrial]] = ([], [])
    for name in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=name, storage=storage)
        found[name != STUDY_NAME].extend(t for t in study.get_trials() if t.state.is_finished())
    return found


def _curve(trial: FrozenTrial) -> list[dict[str, Any]]:
    return list(trial.user_attrs.get("curve", []))


def _mean_times(trials: list[FrozenTrial]) -> dict[str, Any]:
    """Start of a trial, an epoch, and the time from one trial to the next: means and medians."""
    later = trials[1:] or trials
    starts, epochs, gaps = [], [], []
    for trial in later:
        times = [row["seconds"] for row in _curve(trial)]
        between = [b - a for a, b in itertools.pairwise(times)]
        if not between:
            continue
        epochs.append(statistics.mean(between))
        # From the trial's first moment to the end of its first epoch, less an epoch.
        starts.append(max(0.0, times[0] - epochs[-1]))
    for before, after in itertools.pairwise(trials):
        if before.datetime_complete and after.datetime_start:
            gaps.append((after.datetime_start - before.datetime_complete).total_seconds())
    names = {"start_seconds": starts, "epoch_seconds": epochs, "between_seconds": gaps}
    found: dict[str, Any] = {}
    for name, values in names.items():
        found[name] = round(statistics.mean(values), 4) if values else 0.0
        found[f"median_{name}"] = round(statistics.median(values), 4) if values else 0.0
    return found


def count_policy_epochs(policy: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run the search's trials and epochs with a tiny model on few pictures, and count what is trained."""
    search, training = settings(policy, options.trials, options.epochs, options, "off")
    training.batch_size = 64
    backbone = make_backbone("tiny", 32)
    table = make_table(64, 64, image_size=32, transforms="paper")
    found = run_search(table, backbone, search, training)
    return {name: found[name] for name in ("trials", "pruned", "repetitions", "epochs")}


def measure_in_full(
    policy: str, options: argparse.Namespace, table: ImageTable, backbone: Backbone
) -> dict[str, Any]:
    """Run the whole search."""
    compile = planned_compile(options, backbone)
    search, training = settings(policy, options.trials, options.epochs, options, compile)
    ran = run_search(table, backbone, search, training)
    found = {"policy": policy, "measured": ran, "compile": compile, "in_full": True}
    return {**found, "seconds": ran["wall_seconds"], "counted": ran}


def measure_part(
    options: argparse.Namespace, table: ImageTable, backbone: Backbone
) -> dict[str, Any]:
    """Run some trials of random masks, none pruned, as the whole search would run them."""
    compile = planned_compile(options, backbone)
    run = (options.run_trials, options.run_epochs)
    search, training = settings("paper", *run, options, compile)
    ran = run_search(table, backbone, search, training)
    return {"measured": ran, "compile": compile, "in_full": False}


def compute_whole(policy: str, part: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Compute a whole search from a part of it."""
    ran = part["measured"]
    if policy == "default":
        counted = count_policy_epochs(policy, options)
    else:
        counted = {"trials": options.trials, "repetitions": 0, "pruned": 0}
        counted["epochs"] = options.trials * options.epochs
    # A kind of block that a later trial met first was compiled in its first epoch: the median start
    # leaves that out, and what is done once has it.
    around = ran["median_start_seconds"] + ran["between_seconds"]
    trainings = counted["trials"] + counted["repetitions"]
    # What a search does once: data to the device, warm-up and compilation, tables, run.json.
    once = ran["wall_seconds"] - ran["trials"] * around - ran["epochs"] * ran["epoch_seconds"]
    seconds = trainings * around + counted["epochs"] * ran["epoch_seconds"] + max(0.0, once)
    found = {"policy": policy, "counted": counted, **part}
    return {**found, "once_seconds": round(once, 1), "seconds": round(seconds, 1)}


def planned_compile(options: argparse.Namespace, backbone: Backbone) -> str:
    """Whether to compile: as asked, else as the package decides for the whole search on a GPU."""
    if options.compile in ("on", "off"):
        return str(options.compile)
    if options.device != "cuda":
        return "off"
    whole = FitArguments(epochs=options.epochs, batch_size=options.batch_size)
    return "on" if compiling_pays(whole, backbone, options.rows, options.trials) else "off"


def print_result(found: dict[str, Any], options: argparse.Namespace) -> None:
    ran, counted = found["measured"], found["counted"]
    rate = ran["cost"]["images_per_second"] if ran["cost"] else 0.0
    print(
        f"\n{found['policy']}: {options.rows} training rows, {options.trials} trials x "
        f"{options.epochs} epochs\n"
        f"  measured: {ran['trials']} trials of up to {options.run_epochs} epochs, {ran['epochs']} "
        f"epochs, {ran['pruned']} pruned, {ran['repetitions']} repetitions, in "
        f"{ran['wall_seconds']:.1f} s; {rate:,.0f} images/s in training and evaluation\n"
        f"  a trial: start {ran['median_start_seconds']:.3f} s, an epoch "
        f"{ran['median_epoch_seconds']:.3f} s, to the next trial "
        f"{ran['median_between_seconds']:.3f} s (medians); compile {found['compile']}"
    )
    if found["in_full"]:
        print(f"  the whole search, run in full: {found['seconds'] / 60:.2f} minutes")
        return
    how = "counted with a tiny model" if found["policy"] == "default" else "all trials x all epochs"
    print(
        f"  the whole search, computed: {found['seconds'] / 60:.1f} minutes = "
        f"{counted['trials'] + counted['repetitions']} trainings x "
        f"{ran['median_start_seconds'] + ran['between_seconds']:.3f} s + {counted['epochs']} epochs "
        f"({how}) x {ran['epoch_seconds']:.3f} s + {found['once_seconds']:.1f} s once"
    )


def main() -> None:
    options = parse()
    if options.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    backbone = make_backbone(options.model, options.image_size)
    table = make_table(
        options.rows, options.validation_rows, image_size=options.image_size, transforms="paper"
    )
    record: dict[str, Any] = {**describe_machine(), "peak_flops": measure_peak(options.device)}
    record |= {"options": {k: str(v) for k, v in vars(options).items()}, "policies": []}
    print(json.dumps({k: v for k, v in record.items() if k not in ("options", "policies")}))
    whole = options.run_trials >= options.trials and options.run_epochs >= options.epochs
    part = {} if whole else measure_part(options, table, backbone)
    for policy in options.policies:
        found = (
            measure_in_full(policy, options, table, backbone)
            if whole
            else compute_whole(policy, part, options)
        )
        record["policies"].append(found)
        print_result(found, options)
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
