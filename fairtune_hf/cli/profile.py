"""`fairtune profile`: where the time of a recipe's training goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.inputs import load_model, load_table, place_data
from fairtune_hf.cli.messages import is_first_process
from fairtune_hf.search.arguments import apply_protocol
from fairtune_hf.training import build_datasets
from fairtune_hf.training.clock import PARTS
from fairtune_hf.training.profile import Profile, advise, profile_training
from fairtune_hf.training.train import compiling_pays
from fairtune_hf.tuner import FairMaskConfig, Mask

PARSER = PARSERS["profile"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, load and check; return the measurement."""
    (measured, data, options, model, training, search, _), given = PARSER.parse(arguments)
    place_data(data, given)
    search = apply_protocol(search, search.protocol, given)
    training = apply_protocol(training, search.protocol, given)
    # Of lengths that are searched, the longest: what a search takes at most.
    training = replace(training, epochs=max(search.epoch_choices(), default=training.epochs))
    backbone = load_model(model)
    try:
        mask = Mask.parse(measured.mask, layout=search.layout, blocks=backbone.blocks)
    except ValueError as error:
        raise ValueError(f"--mask: {error}") from error
    table = load_table(data, options, training, backbone, splits=("train", "validation"))

    def execute() -> None:
        datasets = build_datasets(table, backbone, training)
        rows = len(datasets["train"])
        profile = profile_training(
            datasets,
            backbone,
            training,
            FairMaskConfig(mask=str(mask), layout=search.layout),
            steps=measured.steps,
            compile_blocks=compiling_pays(training, backbone, rows, search.trials),
        )
        if is_first_process():
            print(format_profile(profile, epochs=training.epochs, trials=search.trials))
            automatic = replace(training, compile="auto")
            pays = compiling_pays(automatic, backbone, rows, search.trials)
            for sentence in advise(profile, compiling_pays=pays) or ["Nothing stands out."]:
                print(f"- {sentence}")

    return execute


def format_profile(profile: Profile, *, epochs: int, trials: int) -> str:
    """Lay out a profile as text: the head, a line a part, and what a search would take."""
    cost = profile.cost
    how = f"{cost['precision']}{', compiled blocks' if cost['compiled'] else ''}"
    lines = [
        f"{cost['device']}, {how}, batch size {profile.batch_size}; {profile.rows:,} training rows, "
        f"{profile.steps_an_epoch} steps an epoch, {profile.steps} of them measured",
        "",
        f"{'part':<12}{'s an epoch':>12}{'share':>8}",
        *(f"{part:<12}{profile.seconds[part]:>12.3f}{profile.share(part):>8.1%}" for part in PARTS),
        f"{'all':<12}{profile.total:>12.3f}",
        "",
        f"{profile.images_per_second:,.1f} training pictures a second",
    ]
    if cost["share_of_peak"] is not None:
        lines.append(
            f"{cost['share_of_peak']:.1%} of the {cost['peak_flops'] / 1e12:,.0f} TFLOP/s that a large bf16 "
            "matrix product reaches on this device"
        )
    if cost["peak_memory_gib"] is not None:
        lines.append(f"{cost['peak_memory_gib']:.1f} of {profile.memory_gib:.1f} GiB used")
    one = epochs * profile.total
    lines += [
        f"A training of {epochs} epochs takes about {one:,.0f} s, {trials} of them "
        f"{trials * one / 3600:,.2f} h if none is pruned or shorter.",
        "",
    ]
    return "\n".join(lines)
