"""What a data set is, as data: source, licence, rules, options. One `DatasetSpec` per file.

A spec's `read` turns the folder as downloaded into a `RawTable`; everything after that (splits,
groups, checks, decoding) is common to all sets. Each set's file says where its rules come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairtune_hf.data.image_source import ImageSource
from fairtune_hf.described import described
from fairtune_hf.naming import unknown_name

TRUE_WORDS = ("1", "true", "yes", "on")
FALSE_WORDS = ("0", "false", "no", "off")
COLUMNS = ("label_column", "sensitive_column", "patient_column", "split_column")


@dataclass(frozen=True)
class OptionSpec:
    """One contested choice of a data set that the user may make."""

    name: str = field(metadata={"help": "name in Python; the flag is the same with hyphens"})
    default: Any = field(metadata={"help": "the recommended choice"})
    help: str = field(metadata={"help": "what it decides, and why there is a choice"})
    choices: tuple[str, ...] = described((), "valid values, if a fixed list")

    def parse(self, value: Any) -> Any:
        """Convert a value given in Python or on the command line.

        Raises:
            ValueError: if the value is none of the choices, or of the wrong kind.
        """
        if value is None:
            return self.default
        if self.choices and value not in self.choices:
            raise unknown_name(f"{self.name}: the choice", str(value), self.choices)
        if isinstance(self.default, bool):
            return self._parse_bool(value)
        if isinstance(self.default, int | float):
            return self._parse_number(value, type(self.default))
        return value

    def _parse_bool(self, value: Any) -> bool:
        word = str(value).lower()
        if word in TRUE_WORDS or word in FALSE_WORDS:
            return word in TRUE_WORDS
        raise ValueError(f"{self.name} must be true or false; {value!r} came.")

    def _parse_number(self, value: Any, kind: type) -> int | float:
        try:
            return int(value) if kind is int else float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.name} must be a number; {value!r} came.") from error


@dataclass(frozen=True)
class ReadRequest:
    """What the user asked a reader for."""

    options: Mapping[str, Any] = field(
        metadata={"help": "options as given; all of them, resolved, once it comes to a reader"}
    )
    sensitive: str | None = described(None, "attribute or intersection")
    label_column: str | None = described(None, "`folder` only")
    sensitive_column: str | None = described(None, "`folder` only")
    patient_column: str | None = described(None, "`folder` only")
    split_column: str | None = described(None, "`folder` only")
    metadata_only: bool = described(False, "look for no picture")
    seed: int = described(0, "seed of splits without published seeds")
    image_size: int = described(64, "side of the stored pictures")

    @classmethod
    def of(cls, choices: Mapping[str, Any], **settings: Any) -> ReadRequest:
        """Make a request from named columns and options together, of which empty columns are left out."""
        columns = {name: choices[name] for name in COLUMNS if choices.get(name)}
        options = {name: value for name, value in choices.items() if name not in COLUMNS}
        return cls(options=options, **columns, **settings)

    @property
    def columns(self) -> list[str]:
        """Which columns were named."""
        return [name for name in COLUMNS if getattr(self, name)]


class Pictures(Protocol):
    """Square uint8 pictures that are decoded already, in memory or on disk."""

    @property
    def digests(self) -> npt.NDArray[np.uint8] | None:
        """(n, 32) digests of the pictures' bytes, None where copies were checked before."""

    @property
    def failures(self) -> dict[int, str]:
        """Row -> why its picture is unusable."""

    @property
    def notes(self) -> dict[int, str]:
        """Row -> what was noted on a picture that is used."""

    def rows(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return (len(index), side, side, 3) pictures, holding no other row."""


@dataclass(frozen=True)
class MemoryPictures:
    """Pictures held in memory."""

    images: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.uint8] | None = None
    failures: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)

    def rows(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return a copy of some rows, or all as they are."""
        if np.array_equal(index, np.arange(len(self.images))):
            return self.images
        return self.images[index]


@dataclass
class RawTable:
    """What a reader returns: complete rows, before unknown groups are dropped.

    Pictures come as `sources`, one per row, or as `pictures` that are decoded already.

    `frame` has row_id, patient_id, label, one column of group names per attribute, source_row (the
    line of the metadata file, for messages) and, where the reader knows it, split. Of a folder that
    `prepare` wrote, `prepared_side` is the side of its pictures and `originals` what it says of their files.
    """

    frame: pd.DataFrame
    groups: dict[str, tuple[str, ...]]
    label_names: tuple[str, str]
    sources: Sequence[ImageSource] | None = None
    pictures: Pictures | None = None
    origin: str = "metadata.csv"
    dropped: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    recorded: dict[str, Any] = field(default_factory=dict)
    stratify: tuple[str, ...] | None = None
    default_sensitive: str | None = None
    prepared_side: int | None = None
    originals: dict[str, Any] | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """Declaration of one data set."""

    name: str = field(metadata={"help": "the name for --dataset"})
    title: str = field(metadata={"help": "what it is, in a line"})
    source: str = field(metadata={"help": "where it comes from"})
    licence: str = field(metadata={"help": "terms of use"})
    steps: str = field(metadata={"help": "how to obtain it and the folder expected"})
    label_rule: str = field(metadata={"help": "what label 1 means"})
    attributes: Mapping[str, str] = field(metadata={"help": "attribute -> its rule"})
    default_sensitive: str | None = field(metadata={"help": "attribute used when none is named"})
    read: Callable[[Path, ReadRequest], RawTable] = field(
        repr=False, metadata={"help": "reader of the folder as downloaded"}
    )
    filters: str = described("none", "rows left out, and why")
    split_unit: str = described("patient", "what never crosses splits")
    split_rules: tuple[str, ...] = described(
        ("stratified",), "ways to split, the default first: published, official, stratified"
    )
    split_seeds: tuple[int, int] | None = described(None, "the two published seeds")
    held_out: float = described(0.2, "share of units outside training in the published recipe")
    test_share: float = described(0.5, "share of the held-out units that are for the test")
    fractions: tuple[float, float, float] = described(
        (0.8, 0.1, 0.1), "train, validation, test of a stratified split"
    )
    stratify: tuple[str, ...] = described(
        (), "attributes balanced, beside the label, in such a split"
    )
    expected_counts: Mapping[str, int] = field(
        default_factory=dict, metadata={"help": "published counts, compared and reported"}
    )
    preprocessing: str = described(
        "RGB; shorter side resized (bilinear), centre crop", "from the file to the stored picture"
    )
    class_weight: str | None = described(None, "recommended weighting of the loss")
    search_fraction: float = described(1.0, "share of the training rows to search on")
    options: tuple[OptionSpec, ...] = described((), "contested choices of this set")
    missing_files: str = described(
        "error", "error, or drop (counted) where pictures are not shipped"
    )
    needs_root: bool = described(True, "whether --data-root is needed")

    @property
    def all_options(self) -> dict[str, OptionSpec]:
        """The common options and this set's own, which take precedence."""
        split = OptionSpec(
            "split_rule",
            self.split_rules[0],
            "published: the seeds of the paper or MEDFAIR; official: as shipped; given: as a column, "
            "folders or the data set tell, what is missing dealt out of train; stratified: "
            "grouped by patient, balanced by label and attributes, seeded",
            self.split_rules,
        )
        merged = {o.name: o for o in (*COMMON_OPTIONS, split)}
        return merged | {o.name: o for o in self.options}

    @property
    def rules(self) -> dict[str, str]:
        """Where it comes from and what its labels and groups mean, by what each is called."""
        attributes = {f"attribute {name}": rule for name, rule in self.attributes.items()}
        return {
            "source": self.source,
            "licence": self.licence,
            "label": self.label_rule,
        } | attributes

    def resolve_options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in defaults and check what was given.

        Raises:
            ValueError: for an option this set does not have, the closest one offered.
        """
        known = self.all_options
        for name in given:
            if name not in known:
                raise unknown_name(f"{self.name}: the option", name, list(known))
        return {name: option.parse(given.get(name)) for name, option in known.items()}


COMMON_OPTIONS = (
    OptionSpec(
        "unknown",
        "drop",
        "rows whose sensitive attribute is unknown: dropped and counted, a group of their own, "
        "or an error",
        ("drop", "group", "error"),
    ),
    OptionSpec(
        "age_threshold", "60", "cut of the age groups; several, as in 40,60, make more groups"
    ),
    OptionSpec(
        "age_boundary",
        "gt",
        "gt: an age equal to the threshold is in the lower group (paper's tables); ge: upper",
        ("gt", "ge"),
    ),
    OptionSpec(
        "duplicates",
        "error",
        "the same picture in two splits: an error, or the copies outside the test and then the "
        "validation split are dropped and counted",
        ("error", "drop"),
    ),
    OptionSpec("skip_corrupt", False, "go on without pictures that cannot be decoded; counted"),
    OptionSpec(
        "depth16",
        "minmax",
        "pictures of more than 8 bits a channel: each scaled from its own range (all channels "
        "alike), or from 0..65535",
        ("minmax", "full"),
    ),
    OptionSpec("folds", 0, "3 or more: split patients into so many stratified folds; see fold"),
    OptionSpec("fold", 0, "which fold, from 0, is the test split; the next one is for validation"),
    OptionSpec("splits_file", "", "a table with row_id and split to use instead of the rule"),
)
