"""What the chosen mask is set against: full fine-tuning, linear readout and random masks.

Taken from the search's own trials, or searched for beside it at a budget of their own, so that a report
can say what the search over masks added.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.trial import FrozenTrial

from fairtune_hf.baselines import CONTROLS
from fairtune_hf.run_record import ChoiceRecord
from fairtune_hf.search.space import RANDOM
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.tuner import Mask

# The controls that `--control-trials` gives studies of their own.
SEARCHED = ("full_blocks", "random_mask")


def describe_controls(
    study: SearchStudy,
    chosen: FrozenTrial,
    own: Mapping[str, SearchStudy],
    *,
    seed: int,
    warnings: list[str],
) -> dict[str, ChoiceRecord]:
    """Return the controls, each at the best learning rate known for it.

    Args:
        study: The search over masks.
        chosen: Its chosen trial.
        own: The controls' own studies, where they had any.
        seed: Seed of the random mask, where the search tried none.
        warnings: Receives what a reader should know.
    """
    found = {}
    for name, spec in CONTROLS.items():
        if spec.mask == RANDOM:
            found[name] = _random_mask(study, chosen, own.get(name), seed, warnings)
            continue
        preset = spec.mask
        layout = _layout_for(preset, study.space.layout)
        mask = str(Mask.parse(preset, layout=layout, blocks=study.space.blocks))
        if name in own:
            found[name] = _entry(own[name], own[name].best(), chosen, mask, layout)
        elif layout == study.space.layout:
            same = study.with_mask(mask)
            found[name] = _entry(study, same[0] if same else None, chosen, mask, layout)
            found[name].trials = len(same)
        else:
            found[name] = _entry(study, None, chosen, mask, layout)
        if found[name].trial is None:
            warnings.append(
                f"The search did not complete a trial of the control {name}; it is trained with the chosen mask's learning rate."
            )
    return found


def _random_mask(
    study: SearchStudy,
    chosen: FrozenTrial,
    own: SearchStudy | None,
    seed: int,
    warnings: list[str],
) -> ChoiceRecord:
    """The best of random masks: of its own study, else of the search's start-up, else one drawn now."""
    if own is not None and (best := own.best()) is not None:
        return _entry(own, best, chosen, own.mask_of(best), own.space.layout)
    random = [t for t in study.top(len(study.trials())) if t.user_attrs.get("random")]
    layout = study.space.layout
    if random:
        entry = _entry(study, random[0], chosen, study.mask_of(random[0]), layout)
        entry.trials = len(random)
        return entry
    warnings.append(
        "The search completed no trial of a random mask; the control random_mask is one drawn at random, trained with "
        "the chosen mask's learning rate."
    )
    bits = np.random.default_rng(seed).integers(0, 2, len(study.space.bit_names))
    return _entry(study, None, chosen, "".join(map(str, bits)), layout)


def _layout_for(preset: str, layout: str) -> str:
    """The search's layout if it can express the preset, so that its own trials count; else `block3`."""
    try:
        Mask.parse(preset, layout=layout)
    except ValueError:
        return "block3"
    return layout


def _entry(
    study: SearchStudy, trial: FrozenTrial | None, chosen: FrozenTrial, mask: str, layout: str
) -> ChoiceRecord:
    source = chosen if trial is None else trial
    return ChoiceRecord(
        mask=mask,
        layout=layout,
        learning_rate=source.params["learning_rate"],
        epochs=study.epochs_of(source),
        trial=None if trial is None else trial.number,
        study=study.name,
        trials=0 if trial is None else study.finished(),
    )
