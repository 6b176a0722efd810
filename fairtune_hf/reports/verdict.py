"""The verdict: one sentence about the worst group, made from paired comparisons alone.

It says "within noise" when the interval of a difference covers 0, says when the chosen mask did
worse, and claims no more than what was measured: groups, split, seeds and intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fairtune_hf.metrics.flags import collapse_flag
from fairtune_hf.run_record import FAIRTUNE, ComparisonRecord, GroupResult, Result, RunRecord

from .numbers import difference, fraction, is_number, signed_interval

METHOD_NAMES = {
    FAIRTUNE: "chosen mask",
    "full": "full fine-tuning",
    "full_blocks": "full fine-tuning",
    "linear_readout": "linear readout",
    "random_masks": "random masks",
    "random_mask": "a random mask",
}
SMALL_GAP = 0.05
_SAME_TRAINING = ("mask", "layout", "learning_rate", "epochs")


def method_name(name: str) -> str:
    """Return the words for a method's key."""
    return METHOD_NAMES.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class VerdictFlags:
    """What the sentence must warn of.

    Attributes:
        levelled_down: Methods beside which groups lost more than the worst-off one gained.
        collapsed: Methods (`fairtune` or a control) with a refit that ranks hardly better than chance.
        uncertain: Methods with a refit that does better, but cannot be told from chance.
    """

    levelled_down: tuple[str, ...] = ()
    collapsed: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()


def verdict_flags(run: RunRecord, *, split: str = "test") -> VerdictFlags:
    """Find levelling-down and collapse in the results of a run.

    Levelling down beside a control: the comparison says so (see `metrics.is_levelling_down`), or the
    gap is smaller, the best group worse and the worst group no better than under that control. Collapse, and what
    cannot be told from chance, in any refit: see `metrics.collapse_flag`.
    """
    own = run.own.result(split)
    said = {
        item.reference for item in run.comparisons if item.levelling_down and item.split == split
    }
    seen = {n for n, held in run.controls.items() if _is_levelled_down(own, held.result(split))}
    return VerdictFlags(
        tuple(sorted(said | seen)),
        tuple(_flagged_refits(run, split, collapsed=True)),
        tuple(_flagged_refits(run, split, collapsed=False)),
    )


def _flagged_refits(
    run: RunRecord, split: str, *, collapsed: bool
) -> dict[str, tuple[list[Result], int]]:
    """Return the refits that collapsed (or that chance may explain), and the number of all, by method."""
    found = {}
    for name, method in run.methods.items():
        results = method.results(split)
        held = [r for r in results if (flag := _flag(r)) and flag["collapsed"] == collapsed]
        if held:
            found[name] = (held, len(results))
    return found


def _flag(result: Result) -> Mapping[str, Any] | None:
    """Return the flag that the evaluation gave; of results that carry none, the one by their AUC."""
    if "collapse" in result.values:
        carried: Mapping[str, Any] | None = result.values["collapse"]
        return carried
    flag = collapse_flag(result.value("overall_auc"), result.interval("overall_auc"))
    return None if flag is None else asdict(flag)


def flag_words(run: RunRecord, *, split: str = "test") -> list[str]:
    """Say levelling-down, collapse and what chance may explain in a sentence or two each, for below the verdict."""
    words = []
    down = [method_name(name) for name in verdict_flags(run, split=split).levelled_down]
    if down:
        words.append(
            f"Levelling down beside {_join(down)}: by the point estimates, groups lost more than "
            "the worst-off group gained. Read it beside the intervals."
        )
    for collapsed in (True, False):
        for name, (held, every) in _flagged_refits(run, split, collapsed=collapsed).items():
            words.append(_collapse_words(name, held, every, collapsed=collapsed))
    return words


def _collapse_words(name: str, held: Sequence[Result], every: int, *, collapsed: bool) -> str:
    label = method_name(name)
    seen = "has collapsed" if collapsed else "cannot be told from chance"
    where = f" in {len(held)} of {every} refits" if every > 1 else ""
    reason = (_flag(held[0]) or {})["reason"]
    first = " in the first of them" if len(held) > 1 else ""
    words = f"{label[:1].upper()}{label[1:]} {seen}{where} ({reason}{first})."
    small = [g for r in held if (g := r.value("auc_gap")) is not None and g < SMALL_GAP]
    if small:
        there = " there" if every > 1 else ""
        means = "means nothing" if collapsed else "may come of that alone"
        words += f" A gap as small as {fraction(min(small))}{there} {means}."
    return words


def _is_levelled_down(own: Result, control: Result) -> bool:
    pairs = [(own.value(k), control.value(k)) for k in ("auc_gap", "max_auc", "min_auc")]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    if len(known) < len(pairs):
        return False
    gap, highest, lowest = known
    return gap[0] < gap[1] and highest[0] < highest[1] and lowest[0] <= lowest[1]


def verdict_sentence(
    comparisons: Sequence[ComparisonRecord],
    *,
    n_seeds: int,
    worst_group: str | None = None,
    worst_auc: float | None = None,
    split: str = "test",
    references: Sequence[str] = ("full_blocks", "linear_readout"),
    flags: VerdictFlags | None = None,
    same: Sequence[str] = (),
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
        same: Controls that are the chosen training itself, from `same_trainings`.

    Returns:
        One sentence that ends in a full stop.
    """
    found = {
        item.reference: item
        for item in comparisons
        if (item.metric, item.split, item.method) == ("min_auc", split, FAIRTUNE)
    }
    if not found:
        return (
            f"No verdict yet: the chosen mask has not been compared with its controls on the "
            f"{split} set."
        )
    order = [*references, *sorted(name for name in found if name not in references)]
    clauses = [_clause(method_name(name), found.get(name), name in same) for name in order]
    opening = _opening(worst_group, worst_auc, split)
    seeds = "1 seed" if n_seeds == 1 else f"means of {n_seeds} seeds"
    known = any(is_number(i.difference) and signed_interval(i.ci) for i in found.values())
    method = ", 95\u202f% intervals paired by patient" if known else ""
    if len(found) > 1 and any(is_number(item.p_value_holm) for item in found.values()):
        method += f", tests corrected by Holm for {len(found)} controls"
    sentence = f"{opening} {_join(clauses)}; {seeds}{method}"
    warnings = _warnings(flags or VerdictFlags())
    return f"{sentence}{warnings}."


def _opening(worst_group: str | None, worst_auc: float | None, split: str) -> str:
    named = f", \u201c{worst_group}\u201d" if worst_group else ""
    value = f" at {fraction(worst_auc)}" if is_number(worst_auc) else ""
    closing = "," if named or value else ""
    return f"On the {split} set, the AUC of the worst-off group{named}{value}{closing} was"


def same_trainings(run: RunRecord) -> tuple[str, ...]:
    """Name the controls with the choice's own mask, layout, learning rate and epochs."""
    return tuple(
        name
        for name, control in run.controls.items()
        if all(
            getattr(run.choice, key) not in (None, "")
            and getattr(control.choice, key) == getattr(run.choice, key)
            for key in _SAME_TRAINING
        )
    )


def _clause(label: str, item: ComparisonRecord | None, is_same: bool) -> str:
    """Say a comparison; an interval whose end prints as 0.000 covers 0."""
    if item is None or not is_number(item.difference):
        return f"not compared with {label}"
    bounds, shown, written = item.ci, difference(item.difference), signed_interval(item.ci)
    if bounds and item.difference == bounds[0] == bounds[1] == 0:
        if is_same:
            return f"that of {label}, which the search itself chose"
        return f"within noise of {label} (no difference seen)"
    low, high = (bounds or (None, None))[:2]
    if not written or low is None or high is None:
        return f"not told apart from {label} ({shown}, no interval could be computed)"
    if round(low, 3) <= 0 <= round(high, 3):
        return f"within noise of {label} ({shown}, {written})"
    seen = "higher than" if item.difference > 0 else "worse than"
    corrected = item.p_value_holm
    if is_number(corrected) and corrected > 0.05:
        return (
            f"{seen} under {label} by its own interval but not after Holm's correction "
            f"({shown}, {written}, corrected p {corrected:.2g})"
        )
    return f"{seen} under {label} ({shown}, {written})"


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
    uncertain = [name for name in flags.uncertain if name not in flags.collapsed]
    if uncertain:
        names = _join([method_name(name) for name in uncertain])
        parts.append(f"{names} could not be told from chance")
    return "".join(f"; {part}" for part in parts)


def worst_group(result: Result) -> str | None:
    """Name the group with the lowest AUC of a `validation` or `test` part, None if unknown."""
    known = {name: row.auc for name, row in result.groups.items()}
    return _lowest(known)


def _lowest(aucs: Mapping[str, float | None]) -> str | None:
    known = ((float(auc), name) for name, auc in aucs.items() if is_number(auc))
    return min(known, default=(0.0, None))[1]


def run_verdict(run: RunRecord) -> str:
    """Return the verdict of a run: the one it carries, else one made from its comparisons."""
    if run.verdict and run.verdict.strip():
        return run.verdict.strip()
    refits = run.own.results("test")
    names = dict.fromkeys(name for result in refits for name in result.groups)
    none = GroupResult()
    aucs = {name: _mean([r.groups.get(name, none).auc for r in refits]) for name in names}
    return verdict_sentence(
        run.comparisons,
        n_seeds=run.own.n_seeds or 1,
        worst_group=_lowest(aucs),
        worst_auc=_mean([result.value("min_auc") for result in refits]),
        flags=verdict_flags(run),
        same=same_trainings(run),
    )


def _mean(values: Sequence[Any]) -> float | None:
    known = [float(value) for value in values if is_number(value)]
    return sum(known) / len(known) if known and len(known) == len(values) else None
