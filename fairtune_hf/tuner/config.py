"""The configuration that is saved with an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft.config import PeftConfig
from peft.utils import PeftType

from fairtune_hf.described import described
from fairtune_hf.mask import (
    PRESETS,
    TRAIN_ALSO,
    Mask,
    check_layout,
    infer_blocks,
    is_bits,
    preset_mask,
    suggest_name,
)


@dataclass
class FairMaskConfig(PeftConfig):
    """Configuration of a [`FairMaskModel`]: which parts of which transformer blocks are trained.

    The classification head is always trained. Everything else keeps the values of the base model
    unless the mask or `train_also` selects it.

    Examples:
        >>> config = FairMaskConfig(mask={"attention": [0, 0, 1, 1]})
        >>> config.mask
        {'layernorm': '0000', 'attention': '0011', 'mlp': '0000'}
    """

    mask: Any = described(
        None,
        "Which parts of which blocks are trained: bits (a list, or a string such as "
        "'010110'), a mapping from a part to its bits over the blocks, or the name of a preset "
        "(none, attention, layernorm, mlp, full_blocks, full, linear_readout, attention_tuning, "
        "layernorm_tuning, bitfit). Kept and saved as a mapping from part to a string of bits.",
    )
    layout: str = described(
        "block3",
        "What the bits of a block switch: block3 (both norms, attention, MLP), block4 "
        "(norm1, attention, norm2, MLP), block, attention, layernorm, mlp or attention_params.",
    )
    train_also: Sequence[str] | str = described(
        (),
        "What is trained beside the mask and the head: any of position_embeddings, "
        "cls_token, patch_embeddings, final_norm, biases (all of the model) and everything_else "
        "(whatever no mask can name).",
    )
    block_pattern: Any = described(
        None,
        "Where the blocks of an unknown architecture are: a glob such as "
        "'trunk.cells.*', or a mapping with that glob under 'block' and the names of the "
        "children under norm1, norm2, attention, mlp and head.",
    )
    id2label: dict[str, str] | None = described(
        None,
        "Names of the classes by their number, which the model's own config is given when the "
        "adapter is loaded.",
    )
    target_modules: list[str] | str | None = described(
        None,
        "Instead of a mask: the modules to train, by the end of their name or by a "
        "regular expression, for models that are not vision transformers.",
    )
    exclude_modules: list[str] | str | None = described(
        None, "Modules that `target_modules` matches but that are not to be trained."
    )
    modules_to_save: list[str] | None = described(
        None,
        "Further modules to train and save whole. The head of a known architecture must "
        "not be among them, as it is trained anyway.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.FAIRMASK
        if self.mask is not None and self.target_modules is not None:
            raise ValueError(
                "FairMaskConfig: expected either mask or target_modules, got both. Use mask= for a "
                "vision transformer and target_modules= for any other model."
            )
        check_layout(self.layout)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]
        self.train_also = self._read_train_also()
        self._read_mask()

    def resolve_mask(self, blocks: int) -> Mask:
        """Read the mask for a model with so many blocks, and keep it in its canonical form.

        Raises:
            ValueError: If the mask is for another number of blocks.
        """
        if self.mask is None:
            raise ValueError(
                "FairMaskConfig: expected a mask for this vision transformer, got none. Pass for "
                f"example mask='attention', or bits in layout {self.layout!r} for {blocks} blocks."
            )
        mask = Mask.parse(self.mask, self.layout, blocks)
        self.mask = mask.to_dict()
        return mask

    def _read_train_also(self) -> list[str]:
        given = [self.train_also] if isinstance(self.train_also, str) else list(self.train_also)
        for name in given:
            if name not in TRAIN_ALSO:
                raise ValueError(
                    f"train_also: {name!r} is not a part of the model. "
                    f"{suggest_name(str(name), TRAIN_ALSO)}"
                )
        return [name for name in TRAIN_ALSO if name in given]

    def _read_mask(self) -> None:
        """Expand a method's preset; bring bits that say how many blocks they are for to canonical form."""
        if isinstance(self.mask, Mask):
            self.layout = self.mask.layout
        if isinstance(self.mask, str) and not is_bits(self.mask):
            preset_mask(self.mask, self.layout, blocks=0)  # raises if there is no such preset
            also = {*self.train_also, *PRESETS[self.mask].train_also}
            self.train_also = [name for name in TRAIN_ALSO if name in also]
        elif (blocks := infer_blocks(self.mask, self.layout)) is not None:
            self.mask = Mask.parse(self.mask, self.layout, blocks).to_dict()
