"""Augmentation as data: what each preset does to a training picture.

A preset is a declaration only; the CPU path and the device path both implement it. Evaluation is
always a centre crop. Values of `paper` and `medfair`: the reference's `utilities/presets.py` and
MEDFAIR's `datasets/utils.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fairtune_hf.described import described


@dataclass(frozen=True)
class TransformPreset:
    """One way to augment training pictures."""

    name: str = field(metadata={"help": "the key in `TRANSFORM_PRESETS`"})
    random_resized_crop_scale: tuple[float, float] | None = described(
        None, "area share of the random crop that is resized, or None for no such"
    )
    random_resized_crop_ratio: tuple[float, float] = described(
        (3 / 4, 4 / 3), "width over height of the random crop"
    )
    horizontal_flip: float = described(0.0, "probability of a left-right flip")
    rotation_degrees: float = described(0.0, "rotate by an angle uniform in -x to +x degrees")
    random_crop: bool = described(
        False, "crop the model's side at a random place of the stored picture"
    )
    stored_over_model: float = described(1.0, "side of the stored picture over the model's side")

    def stored_side(self, model_side: int) -> int:
        """Return the side, in pixels, to store pictures at for a model of `model_side` pixels."""
        return round(model_side * self.stored_over_model)


_PAPER_RATIO = 256 / 224

TRANSFORM_PRESETS: dict[str, TransformPreset] = {
    preset.name: preset
    for preset in (
        TransformPreset(name="none"),
        TransformPreset(name="flip", horizontal_flip=0.5),
        TransformPreset(
            name="paper",
            random_resized_crop_scale=(0.08, 1.0),
            horizontal_flip=0.5,
            stored_over_model=_PAPER_RATIO,
        ),
        TransformPreset(
            name="medfair",
            horizontal_flip=0.5,
            rotation_degrees=15.0,
            random_crop=True,
            stored_over_model=_PAPER_RATIO,
        ),
    )
}
