"""The methods by name: which strategy, with which mask, chosen by which objective."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fairtune_hf.baselines.fairprune import FairPrune
from fairtune_hf.baselines.fscl import FSCL, FSCLPlus
from fairtune_hf.baselines.groupdro import GroupDRO
from fairtune_hf.baselines.lora import LoRA
from fairtune_hf.baselines.method import Method
from fairtune_hf.baselines.resampling import Resampling
from fairtune_hf.baselines.scratch import Scratch
from fairtune_hf.naming import closest_name


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One row of a comparison.

    Attributes:
        name: Name on the command line and in tables.
        method: What is done.
        mask: `free` (searched), `random` (drawn anew for each trial), or a preset of the tuner.
        layout: Meaning of the mask's bits.
        objective: What the search looks for; None is the comparison's own objective.
        cost: Rough cost of a training relative to full fine-tuning, to start long ones first.
    """

    name: str
    method: type[Method] = Method
    mask: str = "full"
    layout: str = "block3"
    objective: str | None = None
    cost: float = 1.0


METHODS: dict[str, MethodSpec] = {
    spec.name: spec
    for spec in (
        MethodSpec(name="scratch", method=Scratch, cost=1.2),
        MethodSpec(name="full"),
        MethodSpec(name="linear_readout", mask="linear_readout", cost=0.4),
        MethodSpec(name="attention_tuning", mask="attention_tuning", cost=0.9),
        MethodSpec(name="layernorm_tuning", mask="layernorm_tuning", cost=0.8),
        MethodSpec(name="bitfit", mask="bitfit", cost=0.9),
        MethodSpec(name="lora", method=LoRA, cost=0.9),
        MethodSpec(name="random_mask", mask="random", cost=0.9),
        MethodSpec(name="fairprune", method=FairPrune, cost=1.5),
        MethodSpec(name="fscl", method=FSCL, cost=1.5),
        MethodSpec(name="fscl_plus", method=FSCLPlus, cost=1.5),
        MethodSpec(name="resampling", method=Resampling),
        MethodSpec(name="groupdro", method=GroupDRO),
        MethodSpec(name="fairtune", mask="free", cost=0.9),
        MethodSpec(name="fairtune_overall", mask="free", objective="overall_auc", cost=0.9),
        MethodSpec(name="fairtune_attention", mask="free", layout="attention", cost=0.9),
        MethodSpec(name="fairtune_layernorm", mask="free", layout="layernorm", cost=0.8),
    )
}
"""Every method that `fairtune compare` lists, in the order of its tables."""

CONTROLS: dict[str, MethodSpec] = {
    "full_blocks": MethodSpec(name="full_blocks", mask="full_blocks"),
    "linear_readout": MethodSpec(name="linear_readout", mask="none"),
    "random_mask": METHODS["random_mask"],
}
"""What `fairtune search` sets its choice against, in the order of its tables."""


def method_spec(name: str) -> MethodSpec:
    """Find a method, or a method on another one's mask, written `groupdro+fairtune`.

    Raises:
        ValueError: No such method; the closest is offered.
    """
    strategy, plus, masked = name.partition("+")
    for part in (strategy, masked) if plus else (strategy,):
        if part not in METHODS:
            close = closest_name(part, METHODS)
            hint = f"Did you mean {close}?" if close else "See fairtune compare --list-methods."
            raise ValueError(
                f"--methods: expected names of methods, got {part!r}. {hint} A method on another one's mask is "
                "written groupdro+fairtune."
            )
    if not plus:
        return METHODS[strategy]
    return replace(METHODS[masked], name=name, method=METHODS[strategy].method)


def listed_place(name: str) -> int:
    """Return where a method stands among `METHODS`; combinations come after all of them."""
    return list(METHODS).index(name) if name in METHODS else len(METHODS)
