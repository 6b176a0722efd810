"""The collector's time, and that it still does its work."""

from __future__ import annotations

import gc
import weakref

from fairtune_hf.training.garbage import quick_collections


class Knot:
    """An object that only the collector can free."""

    def __init__(self) -> None:
        self.self = self


def test_what_a_training_leaves_is_collected_and_the_rest_set_aside() -> None:
    with quick_collections() as settle:
        aside = gc.get_freeze_count()
        assert aside > 1000
        settle()
        knot = weakref.ref(Knot())
        gc.collect()
        assert knot() is None
        later = gc.get_freeze_count()
        kept = [Knot() for _ in range(1000)]  # which another freeze would set aside
        settle()
        # Of what is set aside some may be let go meanwhile, as by another thread.
        assert gc.get_freeze_count() <= later
        assert len(kept) == 1000
    assert gc.get_freeze_count() == 0
