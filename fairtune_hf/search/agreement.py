"""What the processes that train together agree on: the first one's value."""

from __future__ import annotations

import os
from typing import TypeVar

_T = TypeVar("_T")


def of_first_process(value: _T) -> _T:
    """Return the first process's value on every process of the same training; called by all of them."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return value
    from accelerate.utils import broadcast_object_list

    shared = [value]
    broadcast_object_list(shared, from_process=0)
    return shared[0]
