"""Garbage collection over many trainings in one process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def quick_collections() -> Iterator[Callable[[], None]]:
    """Keep the garbage collector away from the objects of the imported libraries.

    Accelerate collects several times a training, a third of a second each with all that Transformers,
    Optuna and their dependencies leave in memory. What is yielded is to be called after each training;
    after the first one it sets aside what was loaded meanwhile, later it does nothing. What a training
    leaves is collected as ever.
    """
    left = 2

    def settle() -> None:
        nonlocal left
        if left:
            left -= 1
            gc.collect()
            gc.freeze()

    settle()
    try:
        yield settle
    finally:
        gc.unfreeze()
