"""One training under many masks: each step draws a mask and trains what it names.

Afterwards any mask is scored by forward passes alone, so that one training ranks them all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from fairtune_hf.baselines.method import Method
from fairtune_hf.tuner.switch import MaskSwitch

DENSITIES = (0.15, 0.35, 0.5, 0.7, 1.0)
"""Shares of bits that a step's mask may have on average, each as likely."""


class SharedMasks(Method):
    """Each step draws a density, then each bit with that chance; the head is trained in every step.

    What a step's mask leaves out stands at its pre-trained values in that step and gets neither gradient,
    nor decay, nor moment. Adapted from the single-path training of weight-sharing architecture search
    (Guo et al., ECCV 2020, section 3.3), where the drawn part of a network is what a step runs.

    Args:
        layout: Meaning of the bits.
        seed: Of the masks; the same on every process, so that they train the same ones.
    """

    source = "this package; single-path sampling as in Guo et al., ECCV 2020, section 3.3"

    def __init__(self, layout: str = "block3", seed: int = 0) -> None:
        self.layout, self.seed = layout, seed
        self.switch: MaskSwitch | None = None
        self._step = 0

    def start_stage(self, model: nn.Module) -> nn.Module:
        """Find what each bit stands for in the model."""
        self.switch, self._step = MaskSwitch(model, self.layout), 0
        return model

    def compute_gradients(self, model: nn.Module, backward: Callable[..., Tensor]) -> Tensor:
        """Run the step's batch under the step's mask."""
        assert self.switch is not None
        with self.switch.under(self.mask_of(self._step)):
            return backward()

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """Go on to the next mask."""
        self._step = step

    def mask_of(self, step: int) -> tuple[int, ...]:
        """Return the mask of a step, counted from 0."""
        assert self.switch is not None
        rng = np.random.default_rng([self.seed, step])
        density = rng.choice(DENSITIES)
        return tuple(int(bit) for bit in rng.random(self.switch.n_bits) < density)
