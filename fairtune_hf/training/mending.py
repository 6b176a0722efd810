"""Whether what was measured still holds after refits were trained again because files were damaged."""

from __future__ import annotations

from typing import Any

import pandas as pd

from fairtune_hf.metrics import evaluate_predictions
from fairtune_hf.metrics.registry import TABLE, shown_in
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import SPLITS, RunRecord, SeedRecord

# How far the last digits of a value may differ between versions of the sums behind it.
_SAME = 1e-12


class Measured:
    """What an evaluation is of: taken before refits are mended, and asked about after.

    Args:
        folder: The run.
        record: Its run.json.
    """

    def __init__(self, folder: RunFolder, record: RunRecord) -> None:
        self._record, self._refits = record, folder.refits(record)
        self._before = {
            name: where.read_whole_refits(method.choice)
            for name, (where, method) in self._refits.items()
        }

    def holds(self) -> bool:
        """Whether every refit that was measured has the scores, or gives the numbers, that it had."""
        return all(self._is_same(name) for name in self._refits)

    def _is_same(self, name: str) -> bool:
        where, method = self._refits[name]
        before, now = self._before[name], where.read_refits(method.choice)
        if now is None:
            return False
        if before is None:
            return self._gives(now, method.seeds)
        same = now[now["seed"].isin(before["seed"])].reset_index(drop=True)
        return same.equals(before[before["seed"].isin(same["seed"])].reset_index(drop=True))

    def _gives(self, now: pd.DataFrame, seeds: list[SeedRecord]) -> bool:
        """Whether predictions give the numbers of the refits that were measured."""
        sensitive = self._record.dataset.sensitive
        for item in seeds:
            for split in SPLITS:
                rows = now[(now["seed"] == item.seed) & now["split"].eq(split)]
                told = item.result(split).values
                if rows.empty:
                    return False
                found = evaluate_predictions(rows, sensitive=sensitive, n_resamples=100)
                known = [name for name in shown_in(TABLE) if name in told]
                if not known or any(not _is_equal(found[name], told[name]) for name in known):
                    return False
        return bool(seeds)


def _is_equal(found: float | None, told: Any) -> bool:
    if found is None or told is None:
        return found is told
    return abs(found - float(told)) <= _SAME
