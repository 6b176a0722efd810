"""The flags that name data, model and folders; the rest come from the search and training packages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from fairtune_hf import data
from fairtune_hf.described import described
from fairtune_hf.search.arguments import check_workers

_T = TypeVar("_T")


@dataclass(kw_only=True)
class DataArguments:
    """Which data set, where it lies, and what of it is read."""

    dataset: str = described("demo", "Name of the data set, or `folder` for your own.")
    data_root: str | None = described(None, "Folder the data set lies in.")
    sensitive: str | None = described(
        None, "Attribute whose groups are compared, e.g. sex, age, age+sex."
    )
    label_column: str | None = described(None, "Your own data: column of the label.")
    sensitive_column: str | None = described(None, "Your own data: column of the attribute.")
    patient_column: str | None = described(None, "Your own data: column of the patient.")
    split_column: str | None = described(None, "Your own data: column of the split.")


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

    model: str | None = described(
        None, "Checkpoint folder or Hub id; without it the demo backbone."
    )
    revision: str | None = described(None, "Revision of a Hub id.")
    block_pattern: str | None = described(
        None,
        "Where an unknown model's blocks are: a glob such as trunk.cells.*, or JSON that names "
        "block, norm1, norm2, attention, mlp and head.",
    )


@dataclass(kw_only=True)
class PrepareArguments:
    """What to prepare."""

    list: bool = described(False, "List the data sets, their options and how to get them.")
    metadata_only: bool = described(False, "Read no picture; write only table.csv.")
    image_size: int = described(256, "Side of the prepared pictures in pixels.")
    seed: int = described(0, "Seed of splits without published seeds.")


@dataclass(kw_only=True)
class OutputArguments:
    """Where a run is written."""

    out: str | None = described(None, "Folder of the run.")
    overwrite: bool = described(False, "Delete what the folder holds and start again.")


@dataclass(kw_only=True)
class RefitArguments:
    """How often the choice and its controls are trained again."""

    seeds: int = described(3, "Refits of the choice and of each control.")
    keep_seeds: bool = described(
        False,
        "Keep the adapter of each of the choice's refits; predict gives their mean and spread.",
    )

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(
                f"--seeds: expected at least 1, got {self.seeds}. 3 or more show the spread."
            )


@dataclass(kw_only=True)
class MaskArguments:
    """A mask given by hand, for a refit without a search."""

    mask: str | None = described(
        None, "Bits such as 0110..., or none, attention, layernorm, mlp, full_blocks."
    )
    layout: str = described("block3", "What a bit stands for.")
    learning_rate: float | None = described(None, "Learning rate of the refit.")


@dataclass(kw_only=True)
class RunArguments:
    """The folder of an earlier step."""

    run: str | None = described(None, "Folder of an earlier step.")


@dataclass(kw_only=True)
class EvaluateArguments:
    """How the numbers are computed."""

    resamples: int = described(2000, "Bootstrap resamples behind each interval.")
    bootstrap_seed: int = described(0, "Seed of the resampling.")


@dataclass(kw_only=True)
class AuditArguments:
    """Anybody's predictions, to be measured like our own."""

    predictions: str | None = described(
        None, "CSV or parquet of any model's predictions, instead of --run."
    )
    label_column: str | None = described(
        None, "Column of the label: 0 and 1, or two words (see --positive-label)."
    )
    score_column: str | None = described(None, "Column of the score of label 1.")
    sensitive_column: str | None = described(
        None, "Column of the group; sex,age are two audits, sex+age crosses them."
    )
    patient_column: str | None = described(None, "Column of the patient.")
    threshold: float | None = described(
        None,
        "With --predictions: a score from here on is a positive prediction; without it 0.5 "
        "for probabilities, none for other scores.",
    )
    reference: str | None = described(None, "Another model's predictions of the same rows.")
    out: str | None = described(None, "JSON file (.json) for every number of --predictions.")


@dataclass(kw_only=True)
class ExternalArguments:
    """Another data set for a run's adapter; columns of one's own data are named as for --predictions."""

    dataset: str | None = described(None, "With --run: another data set to score.")
    data_root: str | None = described(None, "Folder the other data set lies in.")
    sensitive: str | None = described(None, "Attribute of the other data set.")
    split_column: str | None = described(None, "Your own data: column of the split.")
    allow_overlap: bool = described(
        False, "Score it though it shares pictures or patients with the run's own."
    )


@dataclass(kw_only=True)
class PredictArguments:
    """Which pictures are scored, by which model, and where the scores go."""

    rare: ClassVar[frozenset[str]] = frozenset({"base_model", "workers", "device", "batch_size"})

    pictures: list[str] | None = field(
        default=None,
        metadata={
            "help": "Files and folders of pictures (JPEG, PNG, TIFF, DICOM, ...); the flag may be left out.",
            "words": True,
        },
    )
    model: str | None = described(
        None, "Instead of --run: an adapter's folder, or a Hub id that was pushed to."
    )
    table: str | None = described(
        None, "A table of pictures: CSV, TSV, XLSX, JSONL or Parquet; its columns are kept."
    )
    image_column: str = described(
        "file_name", "Its column of files, relative to the table's folder."
    )
    out: str | None = described(
        None,
        "File for the scores: .csv, .tsv, .parquet or .json; without it, CSV is printed.",
    )
    threshold: float | None = described(
        None, "A score from here on is label 1; without it the model's operating point."
    )
    strict: bool = described(
        False, "Write nothing and end with exit code 2 if a picture cannot be read."
    )
    base_model: str | None = described(None, "The base model, if it is not where the adapter says.")
    batch_size: int = described(64, "Pictures the model is given at once.")
    workers: int | None = described(None, "Threads that decode; one for each core without it.")
    device: str | None = described(None, "cpu, cuda, ...; without it a GPU where there is one.")

    def __post_init__(self) -> None:
        for name in ("batch_size", "workers"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ValueError(f"--{name.replace('_', '-')}: expected 1 or more, got {given}.")


@dataclass(kw_only=True)
class ReportArguments:
    """Several runs in one report."""

    runs: list[str] | None = described(None, "Folders of several runs to set side by side.")
    out: str | None = described(
        None,
        "With --runs: folder of the comparison; with --run: for the page, if not the run's own.",
    )


@dataclass(kw_only=True)
class CardArguments:
    """Where the card goes."""

    out: str | None = described(None, "Folder for the card, if not the run's own.")


@dataclass(kw_only=True)
class ExportArguments:
    """What is exported, and how much a group may lose to fewer bits."""

    rare: ClassVar[frozenset[str]] = frozenset(
        {"base_model", "max_auc_loss", "max_shift", "max_calibration_loss", "max_turned"}
    )

    out: str | None = described(None, "Folder to write.")
    format: str = described("transformers", "transformers, onnx or torch.")
    int8: bool = described(
        False, "With onnx: weights of 8 bits; refused if a group loses more than the bounds."
    )
    half: str | None = described(
        None, "With transformers: store weights as float16 or bfloat16, with the same bounds."
    )
    batch_size: int = described(
        1, "With --int8: pictures that will be scored at once; scores depend on it."
    )
    data_root: str | None = described(None, "Folder the run's data lie in now, if they moved.")
    base_model: str | None = described(None, "The base model, if it is not where the adapter says.")
    max_auc_loss: float = described(0.01, "Most that a group's AUC may lose.")
    max_shift: float = described(
        0.02, "Most that a group's mean score may move, or two groups' apart."
    )
    max_calibration_loss: float = described(
        0.02, "Most that a group's expected calibration error may rise."
    )
    max_turned: float = described(
        0.02, "Largest share of a group's decisions that may turn at the operating point."
    )
    overwrite: bool = described(False, "Replace an export that is there.")


@dataclass(kw_only=True)
class PushArguments:
    """Where a run is pushed."""

    repo_id: str | None = described(None, "Repository on the Hub, ORG/NAME.")
    private: bool = described(False, "Make the repository private; so it is without --public.")
    public: bool = described(False, "Let everybody see the repository.")
    dry_run: bool = described(False, "List the files and bytes; send nothing.")
    with_base: bool = described(False, "Push the base model too, to NAME-base.")
    base_dir: str | None = described(None, "Folder of the base model, with --with-base.")
    with_predictions: bool = described(False, "Push the predictions too, without row ids.")

    def __post_init__(self) -> None:
        if self.private and self.public:
            raise ValueError(
                "--private, --public: expected one of them, got both. Without either it is private."
            )


@dataclass(kw_only=True)
class ServeArguments:
    """Which model is served, and where."""

    run: str | None = described(None, "Folder of a run.")
    model: str | None = described(None, "Instead of --run: an adapter's folder, or a Hub id.")
    base_model: str | None = described(None, "The base model, if it is not where the adapter says.")
    host: str = described(
        "127.0.0.1", "Address to bind to; any other than this machine's own lets others in."
    )
    port: int = described(7860, "Port; 0 takes any that is free.")
    max_upload_mb: float = described(50.0, "Size in MB of the largest picture that is taken.")
    device: str | None = described(
        None, "Where the model computes, e.g. cpu or cuda; a GPU where there is one."
    )

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ValueError(
                f"--port: expected 0 to 65535, got {self.port}. 0 takes any that is free."
            )
        if not self.max_upload_mb > 0:
            raise ValueError(
                f"--max-upload-mb: expected more than 0, got {self.max_upload_mb}. 50 is the default."
            )


@dataclass(kw_only=True)
class DemoArguments:
    """The few things a demo can be asked for."""

    out: str = described("runs/demo", "Folder of the run.")
    trials: int = described(12, "Finished trials in all.")
    epochs: int = described(3, "Epochs of one training.")
    seeds: int = described(3, "Refits of the choice and of each control.")
    seed: int = described(0, "Seed of the demo set, the search and the first refit.")
    overwrite: bool = described(False, "Delete what the folder holds and start again.")


@dataclass(kw_only=True)
class CompareArguments:
    """Which methods, how often each is trained again, and in how many processes."""

    list_methods: bool = described(False, "Print the methods, one a line, and end.")
    methods: list[str] | None = described(
        None, "Methods to compare; all without it. groupdro+fairtune is a method on another's mask."
    )
    seeds: int = described(3, "Refits of each method's choice.")
    workers: str = described(
        "1", "Processes sharing the methods: a number, or auto: one on each GPU."
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

    mask: str = described(
        "full_blocks",
        "Bits such as 0110..., or none, attention, layernorm, mlp, full_blocks (the slowest).",
    )
    steps: int = described(20, "Steps that are measured, after a warm-up.")

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"--steps: expected at least 1, got {self.steps}. 20 are enough.")


def restore(kind: type[_T], config: Mapping[str, Any]) -> _T:
    """Build one of these dataclasses from the recorded configuration of a run."""
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in config.items() if name in names})
