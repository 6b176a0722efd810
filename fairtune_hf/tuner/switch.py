"""One model under any mask, from one step to the next: what a mask leaves out runs with its pre-trained values.

The model carries one adapter that trains everything a mask can name. Under a mask, the parameters of the bits
that are 0 are put aside and the frozen ones of the wrapped modules stand in their place, so that they take part in
neither the forward pass nor the backward pass, and an optimizer that skips parameters without a gradient leaves
value and moments as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from peft import PeftModel
from torch import nn

from fairtune_hf.mask import LAYOUTS, UNITS, Mask

from .anatomy import Leaf, describe
from .layer import FairMaskLayer
from .names import plain_name


@dataclass(frozen=True)
class _Place:
    """Where a parameter stands in the copy that runs, its own value and the pre-trained one."""

    owner: nn.Module
    name: str
    own: nn.Parameter
    base: nn.Parameter


class MaskSwitch:
    """Puts a model that trains all bits of a layout under any mask of that layout.

    Args:
        model: A model with a FairMask adapter that trains every bit of the layout.
        layout: Meaning of the bits, one of `LAYOUTS`.
        adapter_name: The adapter.

    Raises:
        ValueError: The adapter does not train a bit's parameters.
    """

    def __init__(
        self, model: nn.Module, layout: str = "block3", adapter_name: str = "default"
    ) -> None:
        bare = model.get_base_model() if isinstance(model, PeftModel) else model
        layers = {
            plain_name(name): module
            for name, module in bare.named_modules()
            if isinstance(module, FairMaskLayer)
        }
        anatomy = describe(bare)
        self.layout, self.blocks = layout, len(anatomy.blocks)
        self._bits = [
            [
                _place(layers, leaf, adapter_name)
                for leaf in anatomy.leaves
                if leaf.block == block and any(map(leaf.in_unit, UNITS.get(part, (part,))))
            ]
            for block in range(self.blocks)
            for part in LAYOUTS[layout]
        ]

    @property
    def n_bits(self) -> int:
        """Length of a mask."""
        return len(self._bits)

    def count(self, mask: Sequence[int]) -> int:
        """Count the parameters that a mask trains in the blocks; those of the head come on top."""
        pairs = zip(mask, self._bits, strict=True)
        return sum(place.own.numel() for bit, places in pairs if bit for place in places)

    @contextmanager
    def under(self, mask: Mask | Sequence[int]) -> Iterator[None]:
        """Run and train the model under a mask for a while; then all of it as before."""
        bits = tuple(mask.bits if isinstance(mask, Mask) else mask)
        if len(bits) != self.n_bits:
            raise ValueError(
                f"mask: expected {self.n_bits} bits, as the layout {self.layout} has for {self.blocks} blocks, got "
                f"{len(bits)}."
            )
        pairs = zip(bits, self._bits, strict=True)
        aside = [place for bit, places in pairs if not bit for place in places]
        try:
            for place in aside:
                place.owner._parameters[place.name] = place.base
            yield
        finally:
            for place in aside:
                place.owner._parameters[place.name] = place.own


def _place(layers: dict[str, FairMaskLayer], leaf: Leaf, adapter_name: str) -> _Place:
    layer, name = layers.get(leaf.anchor), leaf.relative_name
    if layer is None or name not in layer.tuned.get(adapter_name, {}):
        raise ValueError(
            f"model: expected an adapter {adapter_name!r} that trains every bit, and {leaf.name} is not trained. "
            "Build it from FairMaskConfig with a mask of ones."
        )
    owner, _, last = name.rpartition(".")
    copied = layer.fairmask_copies[adapter_name].get_submodule(owner)
    return _Place(copied, last, copied.get_parameter(last), layer.base_layer.get_parameter(name))
