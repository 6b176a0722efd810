"""The flags that name data, model and folders; the rest come from the search and training packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fairtune_hf import data
from fairtune_hf.search.arguments import check_workers

_T = TypeVar("_T")


@dataclass(kw_only=True)
class DataArguments:
    """Which data set, where it lies, and what of it is read."""

    dataset: str = field(
        default="demo", metadata={"help": "Name of the data set, or `folder` for your own."}
    )
    data_root: str | None = field(default=None, metadata={"help": "Folder the data set lies in."})
    sensitive: str | None = field(
        default=None,
        metadata={"help": "Attribute whose groups are compared, e.g. sex, age, age+sex."},
    )
    label_column: str | None = field(
        default=None, metadata={"help": "Your own data: column of the label."}
    )
    sensitive_column: str | None = field(
        default=None, metadata={"help": "Your own data: column of the attribute."}
    )
    patient_column: str | None = field(
        default=None, metadata={"help": "Your own data: column of the patient."}
    )
    split_column: str | None = field(
        default=None, metadata={"help": "Your own data: column of the split."}
    )


@cache
def data_options() -> type:
    """Make a dataclass of every contested choice any data set has, by the declarations' own words."""
    found = {
        option.name: option
        for spec in data.dataset_specs().values()
        for option in spec.all_options.values()
    }
    fields: list[tuple[str, object, object]] = [
        (
            name,
            bool | None if isinstance(option.default, bool) else str | None,
            field(default=None, metadata={"help": f"{option.help.rstrip('.')}."}),
        )
        for name, option in sorted(found.items())
    ]
    return make_dataclass("DataOptions", fields, kw_only=True)  # type: ignore[arg-type]


if TYPE_CHECKING:
    DataOptions: type[Any]


def __getattr__(name: str) -> Any:
    """Make `DataOptions` on first use: the declarations of the data sets come with pandas."""
    if name == "DataOptions":
        return data_options()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(kw_only=True)
class ModelArguments:
    """What is fine-tuned."""

    rare: ClassVar[frozenset[str]] = frozenset({"block_pattern", "revision"})

    model: str | None = field(
        default=None,
        metadata={"help": "Checkpoint folder or Hub id; without it the demo backbone."},
    )
    revision: str | None = field(default=None, metadata={"help": "Revision of a Hub id."})
    block_pattern: str | None = field(
        default=None,
        metadata={
            "help": "Where an unknown model's blocks are: a glob such as trunk.cells.*, or JSON that names "
            "block, norm1, norm2, attention, mlp and head."
        },
    )


@dataclass(kw_only=True)
class PrepareArguments:
    """What to prepare."""

    list: bool = field(
        default=False, metadata={"help": "List the data sets, their options and how to get them."}
    )
    metadata_only: bool = field(
        default=False, metadata={"help": "Read no picture; write only table.csv."}
    )
    image_size: int = field(
        default=256, metadata={"help": "Side of the prepared pictures in pixels."}
    )
    seed: int = field(default=0, metadata={"help": "Seed of splits without published seeds."})


@dataclass(kw_only=True)
class OutputArguments:
    """Where a run is written."""

    out: str | None = field(default=None, metadata={"help": "Folder of the run."})
    overwrite: bool = field(
        default=False, metadata={"help": "Delete what the folder holds and start again."}
    )


@dataclass(kw_only=True)
class RefitArguments:
    """How often the choice and its controls are trained again."""

    seeds: int = field(default=3, metadata={"help": "Refits of the choice and of each control."})

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(
                f"--seeds: expected at least 1, got {self.seeds}. 3 or more show the spread."
            )


@dataclass(kw_only=True)
class MaskArguments:
    """A mask given by hand, for a refit without a search."""

    mask: str | None = field(
        default=None,
        metadata={"help": "Bits such as 0110..., or none, attention, layernorm, mlp, full_blocks."},
    )
    layout: str = field(default="block3", metadata={"help": "What a bit stands for."})
    learning_rate: float | None = field(
        default=None, metadata={"help": "Learning rate of the refit."}
    )


@dataclass(kw_only=True)
class RunArguments:
    """The folder of an earlier step."""

    run: str | None = field(default=None, metadata={"help": "Folder of an earlier step."})


@dataclass(kw_only=True)
class EvaluateArguments:
    """How the numbers are computed."""

    resamples: int = field(
        default=2000, metadata={"help": "Bootstrap resamples behind each interval."}
    )
    bootstrap_seed: int = field(default=0, metadata={"help": "Seed of the resampling."})


@dataclass(kw_only=True)
class AuditArguments:
    """Anybody's predictions, to be measured like our own."""

    predictions: str | None = field(
        default=None,
        metadata={"help": "CSV or parquet of any model's predictions, instead of --run."},
    )
    label_column: str | None = field(
        default=None,
        metadata={"help": "Column of the label: 0 and 1, or two words (see --positive-label)."},
    )
    score_column: str | None = field(
        default=None, metadata={"help": "Column of the score of label 1."}
    )
    sensitive_column: str | None = field(
        default=None,
        metadata={"help": "Column of the group; sex,age are two audits, sex+age crosses them."},
    )
    patient_column: str | None = field(default=None, metadata={"help": "Column of the patient."})
    threshold: float | None = field(
        default=None,
        metadata={
            "help": "With --predictions: a score from here on is a positive prediction; without it 0.5 "
            "for probabilities, none for other scores."
        },
    )
    reference: str | None = field(
        default=None, metadata={"help": "Another model's predictions of the same rows."}
    )
    out: str | None = field(
        default=None, metadata={"help": "JSON file (.json) for every number of --predictions."}
    )


@dataclass(kw_only=True)
class ExternalArguments:
    """Another data set for a run's adapter; columns of one's own data are named as for --predictions."""

    dataset: str | None = field(
        default=None, metadata={"help": "With --run: another data set to score."}
    )
    data_root: str | None = field(
        default=None, metadata={"help": "Folder the other data set lies in."}
    )
    sensitive: str | None = field(
        default=None, metadata={"help": "Attribute of the other data set."}
    )
    split_column: str | None = field(
        default=None, metadata={"help": "Your own data: column of the split."}
    )
    allow_overlap: bool = field(
        default=False,
        metadata={"help": "Score it though it shares pictures or patients with the run's own."},
    )


@dataclass(kw_only=True)
class ReportArguments:
    """Several runs in one report."""

    runs: list[str] | None = field(
        default=None, metadata={"help": "Folders of several runs to set side by side."}
    )
    out: str | None = field(
        default=None,
        metadata={
            "help": "With --runs: folder of the comparison; with --run: for the page, if not the run's own."
        },
    )


@dataclass(kw_only=True)
class CardArguments:
    """Where the card goes."""

    out: str | None = field(
        default=None, metadata={"help": "Folder for the card, if not the run's own."}
    )


@dataclass(kw_only=True)
class PushArguments:
    """Where a run is pushed."""

    repo_id: str | None = field(default=None, metadata={"help": "Repository on the Hub, ORG/NAME."})
    private: bool = field(default=False, metadata={"help": "Make the repository private."})
    dry_run: bool = field(
        default=False, metadata={"help": "List the files and bytes; send nothing."}
    )
    with_base: bool = field(
        default=False, metadata={"help": "Push the base model too, to NAME-base."}
    )
    base_dir: str | None = field(
        default=None, metadata={"help": "Folder of the base model, with --with-base."}
    )
    with_predictions: bool = field(
        default=False, metadata={"help": "Push the predictions too, without row ids."}
    )


@dataclass(kw_only=True)
class DemoArguments:
    """The few things a demo can be asked for."""

    out: str = field(default="runs/demo", metadata={"help": "Folder of the run."})
    trials: int = field(default=12, metadata={"help": "Finished trials in all."})
    epochs: int = field(default=3, metadata={"help": "Epochs of one training."})
    seeds: int = field(default=3, metadata={"help": "Refits of the choice and of each control."})
    seed: int = field(
        default=0, metadata={"help": "Seed of the demo set, the search and the first refit."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Delete what the folder holds and start again."}
    )


@dataclass(kw_only=True)
class CompareArguments:
    """Which methods, how often each is trained again, and in how many processes."""

    list_methods: bool = field(
        default=False, metadata={"help": "Print the methods, one a line, and end."}
    )
    methods: list[str] | None = field(
        default=None,
        metadata={
            "help": "Methods to compare; all without it. groupdro+fairtune is a method on another's mask."
        },
    )
    seeds: int = field(default=3, metadata={"help": "Refits of each method's choice."})
    workers: str = field(
        default="1",
        metadata={"help": "Processes sharing the methods: a number, or auto: one on each GPU."},
    )

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(
                f"--seeds: expected at least 1, got {self.seeds}. Give a whole number of 1 or more."
            )
        check_workers(self.workers)


@dataclass(kw_only=True)
class ProfileArguments:
    """What is measured."""

    mask: str = field(
        default="full_blocks",
        metadata={
            "help": "Bits such as 0110..., or none, attention, layernorm, mlp, full_blocks (the slowest)."
        },
    )
    steps: int = field(default=20, metadata={"help": "Steps that are measured, after a warm-up."})

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"--steps: expected at least 1, got {self.steps}. 20 are enough.")


def restore(kind: type[_T], config: Mapping[str, Any]) -> _T:
    """Build one of these dataclasses from the recorded configuration of a run."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in config.items() if name in names})
