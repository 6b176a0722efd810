"""The verdict: one sentence about the worst group, made from paired comparisons alone.

It says "within noise" when the interval of a difference covers 0, says when the chosen mask did
worse, and claims no more than what was measured: groups, split, seeds and intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .numbers import difference, fraction, is_number, signed_interval

METHOD_NAMES = {
    "fairtune": "chosen mask",
    "full_blocks": "full fine-tuning",
    "linear_readout": "linear readout",
    "random_masks": "random masks",
    "random_mask": "a random mask",
}
COLLAPSED_BELOW = 0.55


def method_name(name: str) -> str:
    """Return the words for a method's key."""
    return METHOD_NAMES.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class VerdictFlags:
    """What the sentence must warn of.

    Attributes:
        levelled_down: Methods beside which groups lost more than the worst-off one gained.
        collapsed: Methods (`fairtune` or a control) that rank hardly better than chance.
    """

    levelled_down: tuple[str, ...] = ()
    collapsed: tuple[str, ...] = ()


def verdict_flags(run: Mapping[str, Any], *, split: str = "test") -> VerdictFlags:
    """Find levelling-down and collapse in the results of a run.

    Levelling down beside a control: the comparison says so (see `metrics.is_levelling_down`), or the
    gap is smaller, the best group worse and the worst group no better than under that control. Collapse: in any
    refit, overall AUC below 0.55, or an interval whose lower end does not reach above 0.5.
    """
    own = run.get(split) or {}
    controls = run.get("controls") or {}
    said = {
        str(item.get("reference"))
        for item in run.get("comparisons") or []
        if item.get("levelling_down") and item.get("split", split) == split
    }
    seen = {
        name for name, control in controls.items() if _is_levelled_down(own, control.get(split))
    }
    return VerdictFlags(tuple(sorted(said | seen)), tuple(collapsed_refits(run, split=split)))


def collapsed_refits(run: Mapping[str, Any], *, split: str = "test") -> dict[str, tuple[int, int]]:
    """Count the collapsed refits, and all of them, of each method that has a collapsed one."""
    methods = {"fairtune": run, **(run.get("controls") or {})}
    found = {}
    for name, record in methods.items():
        results = _refits(record or {}, split)
        collapsed = sum(_is_collapsed(result) for result in results)
        if collapsed:
            found[name] = (collapsed, len(results))
    return found


def _refits(record: Mapping[str, Any], split: str) -> list[Mapping[str, Any]]:
    """Return the results of every refit of a method, or the one there is where no seeds were kept."""
    every = [(seed or {}).get(split) for seed in record.get("seeds") or []]
    return [result for result in every or [record.get(split)] if result]


def flag_words(run: Mapping[str, Any], *, split: str = "test") -> list[str]:
    """Say levelling-down and collapse in a sentence or two each, to stand below the verdict."""
    words = []
    down = [method_name(name) for name in verdict_flags(run, split=split).levelled_down]
    if down:
        words.append(
            f"Levelling down beside {_join(down)}: by the point estimates, groups lost more than "
            "the worst-off group gained. Read it beside the intervals."
        )
    for name, (number, every) in collapsed_refits(run, split=split).items():
        label = method_name(name)
        label = label[:1].upper() + label[1:]
        where, there = (f" in {number} of {every} refits", " there") if every > 1 else ("", "")
        words.append(
            f"{label} has collapsed{where}: it ranks patients hardly better than chance, so its "
            f"small gap{there} means nothing."
        )
    return words


def _is_levelled_down(own: Mapping[str, Any], control: Mapping[str, Any] | None) -> bool:
    keys = ("auc_gap", "max_auc", "min_auc")
    if not control or not all(is_number(part.get(k)) for part in (own, control) for k in keys):
        return False
    return bool(
        own["auc_gap"] < control["auc_gap"]
        and own["max_auc"] < control["max_auc"]
        and own["min_auc"] <= control["min_auc"]
    )


def _is_collapsed(result: Mapping[str, Any] | None) -> bool:
    if not result or not is_number(result.get("overall_auc")):
        return False
    low = (result.get("overall_auc_ci") or [None])[0]
    return bool(result["overall_auc"] < COLLAPSED_BELOW or (is_number(low) and low <= 0.5))


def verdict_sentence(
    comparisons: Sequence[Mapping[str, Any]],
    *,
    n_seeds: int,
    worst_group: str | None = None,
    worst_auc: float | None = None,
    split: str = "test",
    references: Sequence[str] = ("full_blocks", "linear_readout"),
    flags: VerdictFlags | None = None,
) -> str:
    """Make the one sentence a report opens with.

    Args:
        comparisons: The `comparisons` of `run.json`; only `min_auc` on `split` is read.
        n_seeds: Refits behind each mean.
        worst_group: Name of the group with the lowest AUC under the chosen mask, mean over the refits.
        worst_auc: The lowest AUC of a group, mean over the refits as the differences are.
        split: Split the comparisons were made on.
        references: Controls to speak of, in this order; others that were compared follow.
        flags: Levelling-down and collapse, from `verdict_flags`.

    Returns:
        One sentence that ends in a full stop.
    """
    found = {
        str(item.get("reference")): item
        for item in comparisons
        if item.get("metric", "min_auc") == "min_auc"
        and item.get("split", split) == split
        and item.get("method", "fairtune") == "fairtune"
    }
    if not found:
        return (
            f"No verdict yet: the chosen mask has not been compared with its controls on the "
            f"{split} set."
        )
    order = [*references, *sorted(name for name in found if name not in references)]
    clauses = _clauses(found, order)
    opening = _opening(worst_group, worst_auc, split)
    seeds = "1 seed" if n_seeds == 1 else f"means of {n_seeds} seeds"
    known = any(
        is_number(item.get("difference")) and signed_interval(item.get("ci"))
        for item in found.values()
    )
    method = ", 95\u202f% intervals paired by patient" if known else ""
    sentence = f"{opening} {_join(clauses)}; {seeds}{method}"
    warnings = _warnings(flags or VerdictFlags())
    return f"{sentence}{warnings}."


def _opening(worst_group: str | None, worst_auc: float | None, split: str) -> str:
    named = f", \u201c{worst_group}\u201d" if worst_group else ""
    value = f" at {fraction(worst_auc)}" if is_number(worst_auc) else ""
    closing = "," if named or value else ""
    return f"On the {split} set, the AUC of the worst-off group{named}{value}{closing} was"


def _clauses(found: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> list[str]:
    """Say each comparison; an interval whose end prints as 0.000 covers 0."""
    clauses = []
    for name in order:
        label = method_name(name)
        item = found.get(name)
        if item is None or not is_number(item.get("difference")):
            clauses.append(f"not compared with {label}")
            continue
        bounds = item.get("ci")
        shown = f"{difference(item['difference'])}"
        written = signed_interval(bounds)
        if bounds and item["difference"] == bounds[0] == bounds[1] == 0:
            clauses.append(f"that of {label}, which the search itself chose")
        elif not written or not bounds:
            clauses.append(f"not told apart from {label} ({shown}, no interval could be computed)")
        elif round(bounds[0], 3) > 0:
            clauses.append(f"higher than under {label} ({shown}, {written})")
        elif round(bounds[1], 3) < 0:
            clauses.append(f"worse than under {label} ({shown}, {written})")
        else:
            clauses.append(f"within noise of {label} ({shown}, {written})")
    return clauses


def _join(clauses: Sequence[str]) -> str:
    if len(clauses) < 2:
        return "".join(clauses)
    return ", ".join(clauses[:-1]) + " and " + clauses[-1]


def _warnings(flags: VerdictFlags) -> str:
    parts = []
    if flags.levelled_down:
        names = _join([method_name(name) for name in flags.levelled_down])
        parts.append(f"by the point estimates, levelling down beside {names}")
    if flags.collapsed:
        names = _join([method_name(name) for name in flags.collapsed])
        parts.append(f"{names} ranked hardly better than chance (collapsed)")
    return "".join(f"; {part}" for part in parts)


def worst_group(result: Mapping[str, Any] | None) -> str | None:
    """Name the group with the lowest AUC of a `validation` or `test` part, None if unknown."""
    groups = (result or {}).get("groups") or {}
    known: Iterable[tuple[float, str]] = (
        (float(row["auc"]), str(name)) for name, row in groups.items() if is_number(row.get("auc"))
    )
    return min(known, default=(0.0, None))[1]


def run_verdict(run: Mapping[str, Any]) -> str:
    """Return the verdict of a run: the one it carries, else one made from its comparisons."""
    carried = run.get("verdict")
    if isinstance(carried, str) and carried.strip():
        return carried.strip()
    refits = _refits(run, "test")
    return verdict_sentence(
        run.get("comparisons") or [],
        n_seeds=len(run.get("seeds") or []) or 1,
        worst_group=worst_group(_mean_groups(refits)),
        worst_auc=_mean([result.get("min_auc") for result in refits]),
        flags=verdict_flags(run),
    )


def _mean_groups(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean AUC of each group over several refits, laid out as the result of one."""
    names = dict.fromkeys(name for result in results for name in result.get("groups") or {})
    return {
        "groups": {
            name: {
                "auc": _mean([(r.get("groups") or {}).get(name, {}).get("auc") for r in results])
            }
            for name in names
        }
    }


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if is_number(value)]
    return sum(known) / len(known) if known and len(known) == len(values) else None
