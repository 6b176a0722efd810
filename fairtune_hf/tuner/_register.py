"""Makes PEFT know the method FAIRMASK. The only place that touches PEFT's registries.

`PeftType` is a closed enum without an entry point for methods from outside, so a member is made the
way `EnumType` makes one. Importing this twice, or reloading it, leaves one member and the newest
classes.
"""

from __future__ import annotations

from peft.utils.peft_types import PeftType, register_peft_method

NAME = "FAIRMASK"
PREFIX = "fairmask_"


def add_peft_type() -> PeftType:
    """Add the member `FAIRMASK` to `PeftType`, once, and return it."""
    if NAME in PeftType.__members__:
        return PeftType[NAME]
    member = str.__new__(PeftType, NAME)
    member._name_ = NAME
    member._value_ = NAME
    member._sort_order_ = len(PeftType.__members__)
    member.__objclass__ = PeftType
    type.__setattr__(PeftType, NAME, member)
    PeftType._member_names_.append(NAME)
    PeftType._member_map_[NAME] = member
    PeftType._value2member_map_[NAME] = member
    return member


def register(config_cls: type, model_cls: type) -> None:
    """Enter the method's classes in PEFT's mappings, in place of earlier ones after a reload."""
    from peft import mapping

    peft_type = add_peft_type()
    for registry in (
        mapping.PEFT_TYPE_TO_CONFIG_MAPPING,
        mapping.PEFT_TYPE_TO_TUNER_MAPPING,
        mapping.PEFT_TYPE_TO_PREFIX_MAPPING,
    ):
        registry.pop(peft_type, None)
    register_peft_method(
        name=NAME.lower(), config_cls=config_cls, model_cls=model_cls, prefix=PREFIX
    )


add_peft_type()
