"""What `run.json` holds, as dataclasses: the record of a run, its methods and what was found of them.

A run has methods of one shape: what a search chose, its controls, or all methods of a comparison. What
readers of the file may rely on at its top level (`choice`, `validation`, `test`, `seeds`, `controls` and
the like) is a summary made of the methods where the file is written, and checked where it is read.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from fairtune_hf.costs import add_costs
from fairtune_hf.plain_data import FLAT, REQUIRED, REST, Part, to_plain

SCHEMA_VERSION = 2
FAIRTUNE = "fairtune"  # the method that searches masks
SPLITS = ("validation", "test")
STEPS = ("search", "refit")  # of a cost
_HEAD = ("schema_version", "dataset", "model")  # written first, before the summary
_OF_METHOD = ("source", "tunes", "trainable_parameters", "failure", "refit_seconds")


@dataclass(kw_only=True)
class GroupCounts(Part):
    """Pictures, positive ones and patients of one group of a split."""

    n: Any = None
    positives: Any = None
    n_patients: Any = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(kw_only=True)
class DatasetRecord(Part):
    """The data: what they are called, their rows by split, their groups.

    Attributes:
        external: Title of a data set that the run's adapter was only tested on.
    """

    name: str | None = None
    sensitive: str = field(default="", metadata=REQUIRED)
    rows: dict[str, Any] = field(default_factory=dict)
    n_patients: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, dict[str, GroupCounts]] = field(default_factory=dict)
    split_hash: str = field(default="", metadata=REQUIRED)
    groups: list[Any] = field(default_factory=list)
    label_names: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    dropped: dict[str, Any] = field(default_factory=dict)
    external: str | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(kw_only=True)
class ModelRecord(Part):
    """The base model."""

    id: str | None = None
    revision: str | None = None
    sha256: str = field(default="", metadata=REQUIRED)
    input: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(kw_only=True)
class ChoiceRecord(Part):
    """All that a refit needs to know, and where it comes from.

    Attributes:
        trial: Number of the trial it was; None for one that no search tried.
        study: The study of that trial.
        trials: Trials it is the best of, where these are not all of the search.
    """

    mask: str = field(default="", metadata=REQUIRED)
    layout: str = field(default="", metadata=REQUIRED)
    bit_names: list[Any] | None = None
    learning_rate: float = field(default=math.nan, metadata=REQUIRED)
    epochs: int | None = None
    schedule: str | None = None
    batch_size: int | None = None
    precision: str | None = None
    seed: int | None = None
    selected_by: str | None = None
    trial: int | None = None
    preset: str | None = None
    train_also: list[str] | None = None
    hyperparameters: dict[str, Any] | None = None
    study: str | None = None
    trials: int | None = None

    def __bool__(self) -> bool:
        return bool(self.mask)


@dataclass(kw_only=True)
class SearchRecord(Part):
    """What a search did, and what it found beside its choice.

    Attributes:
        shared: The shared training that named the trials, where there was one; its epochs are not in `trained_epochs`.
    """

    trials: int | None = None
    completed: int | None = None
    pruned: int | None = None
    failed: int | None = None
    trained_epochs: float | None = None
    seconds: float | None = None
    wall_seconds: float | None = None
    ended_by: str | None = None
    limits: dict[str, Any] | None = None
    sampler: str | None = None
    pruner: str | None = None
    protocol: str | None = None
    policy: str | None = None
    shared: dict[str, Any] | None = None
    judge_after: float | None = None
    objective: str | None = None
    directions: dict[str, str] | None = None
    learning_rate_range: list[float] | None = None
    epoch_choices: list[Any] | None = None
    best_value: float | None = None
    best_trial: dict[str, Any] | None = None
    pareto_front: list[dict[str, Any]] | None = None
    optimism: Any = None
    confirmation: dict[str, Any] | None = None
    mask_frequency: dict[str, Any] | None = None
    importance: dict[str, Any] | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)

    @property
    def ended(self) -> int:
        """Number of trials that ended as they should."""
        return (self.completed or 0) + (self.pruned or 0)


@dataclass(kw_only=True)
class GroupResult(Part):
    """One group of a split, measured."""

    n: Any = None
    positives: Any = None
    auc: float | None = None
    auc_ci: list[float | None] | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(kw_only=True)
class Result(Part):
    """One refit measured on one split.

    Attributes:
        groups: The groups by name.
        values: Every metric by its name and its interval by the name with `_ci`, and what else an
            evaluation told.
    """

    groups: dict[str, GroupResult] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict, metadata=REST)

    def value(self, metric: str) -> float | None:
        """Return a metric, None where it is undefined."""
        found = self.values.get(metric)
        if isinstance(found, bool) or not isinstance(found, int | float):
            return None
        return found if math.isfinite(found) else None

    def interval(self, metric: str) -> list[float] | None:
        """Return the interval of a metric, None where there is none."""
        bounds: list[float] = self.values.get(f"{metric}_ci") or []
        return None if None in bounds else bounds or None


@dataclass(kw_only=True)
class SeedRecord(Part):
    """A refit measured; without a seed where the results are of no refit of this folder."""

    seed: int | None = None
    validation: Result = field(default_factory=Result)
    test: Result = field(default_factory=Result)

    def result(self, split: str) -> Result:
        """Return what was measured on a split."""
        found: Result = getattr(self, split)
        return found


@dataclass(kw_only=True)
class MethodRecord(Part):
    """One method of a run: its search, its choice, its refits.

    Attributes:
        source: Where the method comes from.
        tunes: What its search varied.
        failure: Why it has no results, None where nothing failed.
        cost: Entries `search` and `refit` of what its trainings cost.
        seeds: Its refits as measured, the one whose adapter is kept first.
    """

    choice: ChoiceRecord = field(default_factory=ChoiceRecord, metadata=FLAT)
    source: str | None = None
    tunes: list[str] | None = None
    trainable_parameters: int | None = None
    failure: str | None = None
    search: SearchRecord = field(default_factory=SearchRecord)
    cost: dict[str, dict[str, Any]] = field(default_factory=dict)
    refit_seconds: float | None = None
    seeds: list[SeedRecord] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)

    def refit(self) -> SeedRecord:
        """Return the refit that results are told of: that with the choice's seed, else the first; an empty one if none."""
        own = (entry for entry in self.seeds if entry.seed == self.choice.seed)
        return next(own, self.seeds[0] if self.seeds else SeedRecord())

    def result(self, split: str) -> Result:
        """Return the results of `refit` on a split."""
        return self.refit().result(split)

    def results(self, split: str) -> list[Result]:
        """Return the results of every refit that was measured on a split."""
        return [entry.result(split) for entry in self.seeds if entry.result(split)]

    @property
    def n_seeds(self) -> int:
        """Number of refits that were measured."""
        return sum(entry.seed is not None for entry in self.seeds)


@dataclass(kw_only=True)
class ComparisonRecord(Part):
    """A paired difference of a metric: method minus reference on the same patients."""

    method: str = FAIRTUNE
    reference: str = field(default="", metadata=REQUIRED)
    split: str = field(default="", metadata=REQUIRED)
    metric: str = field(default="", metadata=REQUIRED)
    difference: float | None = None
    ci: list[float | None] | None = None
    p_value: float | None = None
    n_seeds: int | None = None
    n_patients: int | None = None
    levelling_down: bool | None = None
    group_differences: dict[str, Any] | None = None
    p_value_holm: float | None = None
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)


@dataclass(kw_only=True)
class RunRecord(Part):
    """The record of a run.

    Attributes:
        chosen: The method the folder's own files are of; None for a comparison, whose methods have folders.
        reference: The method that the others are compared with.
        methods: What the methods are, by name, the chosen one first.
        warnings: What a reader should know.
    """

    schema_version: int = SCHEMA_VERSION
    dataset: DatasetRecord = field(default_factory=DatasetRecord)
    model: ModelRecord = field(default_factory=ModelRecord)
    chosen: str | None = FAIRTUNE
    reference: str | None = None
    methods: dict[str, MethodRecord] = field(default_factory=dict)
    comparisons: list[ComparisonRecord] = field(default_factory=list)
    verdict: str | None = None
    versions: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict, metadata=REST)

    @property
    def own(self) -> MethodRecord:
        """The chosen method; an empty one where none is known yet."""
        return self.methods.get(self.chosen or "") or MethodRecord()

    @property
    def choice(self) -> ChoiceRecord:
        """What the chosen method chose."""
        return self.own.choice

    @property
    def controls(self) -> dict[str, MethodRecord]:
        """The methods that the chosen one is set against."""
        return {name: held for name, held in self.methods.items() if name != self.chosen}

    @property
    def cost(self) -> dict[str, dict[str, Any]]:
        """What the searches and the refits of all methods cost, by step."""
        entries = [method.cost for method in self.methods.values()]
        sums = {step: add_costs(entry.get(step) for entry in entries) for step in STEPS}
        return {step: total for step, total in sums.items() if total is not None}

    def put(self, name: str, **values: Any) -> None:
        """Set entries of a method, which is added where it is not there."""
        held = self.methods.setdefault(name, MethodRecord())
        self.methods[name] = dataclasses.replace(held, **values)

    def forget_evaluation(self) -> None:
        """Drop what an evaluation found, which is not true of another choice or control."""
        for method in self.methods.values():
            method.seeds = []
        self.comparisons, self.verdict = [], None

    def to_json(self) -> dict[str, Any]:
        """Return what is written to run.json: the record, and the summary at its top level."""
        plain = to_plain(self) | {"schema_version": SCHEMA_VERSION}
        return {**{name: plain[name] for name in _HEAD}, **summarize(self), **plain}


def summarize(record: RunRecord) -> dict[str, Any]:
    """Return the chosen method's entries and the controls as they stand at the top level of run.json."""
    own = record.own
    plain = to_plain(own)
    identity = {name: plain[name] for name in _OF_METHOD}
    controls = {name: to_plain(held) | _results(held) for name, held in record.controls.items()}
    return {
        "choice": to_plain(own.choice) if own.choice else None,
        "method": {"name": record.chosen, **identity} if own.source or own.failure else None,
        "search": plain["search"],
        "cost": record.cost or None,
        **_results(own),
        "seeds": [item for item in plain["seeds"] if item["seed"] is not None] or None,
        "controls": controls if record.chosen is not None else {},
    }


def _results(method: MethodRecord) -> dict[str, Any]:
    found = {split: method.result(split) for split in SPLITS}
    return {split: to_plain(result) if result else None for split, result in found.items()}
