"""The cost of several trainings as one: of the processes of a search, of the refits of a run.

Seconds are added up over processes, so they are those of the devices and not of the clock on the wall.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def spread_cost(record: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """Return the cost of a training on several processes from the record of one: they do the same work."""
    spread = dict(record)
    for name in ("seconds", "images", "operations"):
        if spread.get(name) is not None:
            spread[name] = spread[name] * processes
    spread["by_part"] = {part: value * processes for part, value in record["by_part"].items()}
    return add_costs([spread]) or {}


def add_costs(records: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """Add up cost records (see `CostMeter.record`); None if there are none.

    What one of them does not know, the sum does not know either.
    """
    known = [record for record in records if record]
    if not known:
        return None
    seconds = sum(record["seconds"] for record in known)
    images = sum(record["images"] for record in known)
    operations = _sum_of_known([record["operations"] for record in known])
    possible = _sum_of_known(
        [r["peak_flops"] and r["peak_flops"] * r["seconds"] for r in known]  # None: no peak known
    )
    parts = dict.fromkeys(part for record in known for part in record["by_part"])
    return {
        "seconds": round(seconds, 3),
        "images": images,
        "images_per_second": round(images / seconds, 2) if seconds else None,
        "device": ", ".join(dict.fromkeys(record["device"] for record in known)),
        "peak_flops": possible / seconds if possible and seconds else None,
        "operations": operations,
        "share_of_peak": round(operations / possible, 4) if operations and possible else None,
        "by_part": {
            part: round(sum(record["by_part"].get(part, 0.0) for record in known), 3)
            for part in parts
        },
    }


def _sum_of_known(values: Sequence[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return float(sum(found)) if len(found) == len(values) else None
