"""What trainings cost, added up: of trials, of refits, of the methods of a run."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any


def add_costs(records: Iterable[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Add up cost entries, of trials or of refits; None if there are none.

    Trainings that ran side by side on several devices count once each, so the rate is that of one.
    """
    known = [record for record in records if record]
    if not known:
        return None
    if len(known) == 1:
        return dict(known[0])
    total = dict(known[0])
    for record in known[1:]:
        total["seconds"] = round(total["seconds"] + record["seconds"], 3)
        total["images"] += record["images"]
        total["by_part"] = {
            part: round(seconds + record["by_part"].get(part, 0.0), 3)
            for part, seconds in total["by_part"].items()
        }
        for name, join in (("operations", operator.add), ("peak_memory_gib", max)):
            both = (total[name], record[name])
            total[name] = None if None in both else join(*both)
        for name in ("device", "precision", "compiled", "processes", "peak_flops"):
            if total.get(name) != record.get(name):
                total[name] = _mixed(name, total.get(name), record.get(name))
    return with_rates(total)


def _mixed(name: str, first: Any, second: Any) -> Any:
    """Write what differs between two entries; a peak or a count of processes that differs is unknown."""
    if name in ("device", "precision"):
        return ", ".join(dict.fromkeys(f"{first}, {second}".split(", ")))
    return True if name == "compiled" else None


def with_rates(entry: dict[str, Any]) -> dict[str, Any]:
    """Add pictures a second and the share of the peak to a cost entry."""
    seconds, operations = entry["seconds"], entry["operations"]
    peak, processes = entry["peak_flops"], entry["processes"]
    known = seconds and operations and peak and processes
    return {
        **entry,
        "images_per_second": round(entry["images"] / seconds, 2) if seconds else None,
        "share_of_peak": round(operations / seconds / peak / processes, 4) if known else None,
    }
