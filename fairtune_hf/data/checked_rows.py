"""From a name and a folder to complete, checked rows with a split, before any picture is read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairtune_hf.data.attributes import JOINT, attribute_parts, intersect
from fairtune_hf.data.checks import (
    check_confounding,
    check_groups,
    check_label,
    check_patient_leak,
    check_row_ids,
    check_splits,
    check_test_groups,
)
from fairtune_hf.data.declaration import DatasetSpec, RawTable, ReadRequest
from fairtune_hf.data.folder_hf import is_hub_id
from fairtune_hf.data.prepared import is_prepared, prepared_options, read_prepared
from fairtune_hf.data.registry import DATASETS, dataset_spec
from fairtune_hf.data.splits import (
    complete_split,
    label_strata,
    missing_splits,
    published_split,
    read_split_file,
    stratified_folds,
    stratified_split,
)
from fairtune_hf.data.table import SPLITS
from fairtune_hf.naming import closest, flag_of, shortened

UNKNOWN = "unknown"
DEALT = " dealt out of train"


@dataclass
class CheckedRows:
    """Rows with splits of one data set, and what was decided on the way."""

    spec: DatasetSpec
    raw: RawTable
    request: ReadRequest
    sensitive: str | None = None
    groups: tuple[str, ...] = ()
    group_warnings: list[str] = field(default_factory=list)
    external: bool = False
    """Whether every row is for a test: nothing is trained or chosen on these rows."""

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as they stand."""
        return self.raw.frame

    def fork(self) -> CheckedRows:
        """Return rows that can be changed without changing this one."""
        raw = replace(self.raw, dropped=dict(self.raw.dropped), warnings=list(self.raw.warnings))
        return replace(self, raw=raw)

    def keep(self, rows: np.ndarray) -> None:
        """Keep the rows at these places, in this order; `position` still finds their pictures."""
        raw = self.raw
        sources = raw.sources
        self.raw = replace(
            raw,
            frame=raw.frame.iloc[rows].reset_index(drop=True),
            sources=None if sources is None else [sources[i] for i in rows],
        )

    def drop(self, where: np.ndarray, reason: str) -> None:
        """Leave out the rows of a mask, counted under `reason`."""
        count = int(where.sum())
        if count:
            self.raw.dropped[reason] = self.raw.dropped.get(reason, 0) + count
            self.keep(np.flatnonzero(~where))


def read_checked_rows(
    dataset: str,
    data_root: str | Path | None,
    request: ReadRequest,
    *,
    external: bool = False,
    needs_splits: bool = True,
) -> CheckedRows:
    """Read a data set's tables, split them and check what needs no picture.

    With `external` every row goes to the test split. Without `needs_splits` a split may be empty:
    the rows may be for a test elsewhere.

    Raises:
        ValueError: for an unknown name, column or option, or rows that cannot be used.
        FileNotFoundError: if the folder or a file of it is absent.
    """
    spec, resolved = check_request(dataset, data_root, request)
    root = _check_root(spec, data_root)
    given = {name: resolved[name] for name, value in request.options.items() if value is not None}
    request = replace(request, options=resolved)
    if data_root is not None and is_prepared(root):
        request = replace(request, options=prepared_options(root) | given)
        raw = read_prepared(root, spec, request, given)
    else:
        raw = spec.read(root, request)
    checked = CheckedRows(spec=spec, raw=raw, request=request, external=external)
    if "position" not in checked.frame.columns:
        raw.frame = checked.frame.assign(position=np.arange(len(checked.frame)))
    check_row_ids(checked.frame, checked.raw.origin)
    check_label(checked.frame, checked.raw.origin, checked.raw.label_names)
    _assign_splits(checked, request.seed)
    if needs_splits and not external:
        check_splits(checked.frame)
    check_patient_leak(checked.frame, checked.raw.origin)
    order = checked.frame["split"].map({s: i for i, s in enumerate(SPLITS)}).to_numpy()
    checked.keep(np.argsort(order, kind="stable"))
    if checked.frame["split"].nunique() > 1:
        checked.raw.warnings += check_confounding(checked.frame, list(checked.raw.groups))
    return checked


def check_request(
    dataset: str, data_root: str | Path | None, request: ReadRequest
) -> tuple[DatasetSpec, dict[str, Any]]:
    """Return a data set's declaration and every option of it, after the checks that need no file.

    Raises:
        ValueError: for an unknown name, option, value or attribute, or a folder that is not named.
    """
    spec = dataset_spec(dataset)
    resolved = spec.resolve_options(request.options)
    if spec.name != "folder":
        if request.columns:
            flags = ", ".join(map(flag_of, request.columns))
            raise ValueError(
                f"{flags} are for --dataset folder; {spec.name} knows its own columns. Leave them out "
                f"and choose with --sensitive: {', '.join(spec.attributes)}."
            )
        if request.sensitive:
            attribute_parts(request.sensitive, list(spec.attributes))
    if spec.needs_root and data_root is None:
        raise ValueError(f"{spec.name} needs --data-root, the folder with its files. {spec.steps}")
    return spec, resolved


def choose_groups(checked: CheckedRows, sensitive: str | None) -> None:
    """Take the groups from an attribute or an intersection and deal with unknown values.

    Raises:
        ValueError: if the attribute is unknown, has fewer than two groups, or has unknown values
            under `unknown=error`.
    """
    chosen = sensitive or checked.raw.default_sensitive or str(checked.spec.default_sensitive)
    parts = attribute_parts(chosen, list(checked.raw.groups))
    chosen = JOINT.join(parts)
    values, groups = intersect(checked.frame, parts, checked.raw.groups)
    if chosen not in checked.frame.columns:
        checked.raw.frame = checked.frame.assign(**{chosen: values})
    checked.sensitive = chosen
    _unknown_rows(checked, chosen)
    present = set(checked.frame[chosen])
    absent = [g for g in groups if g not in present]
    checked.groups = tuple(g for g in (*groups, UNKNOWN) if g in present)
    if absent:
        checked.raw.warnings.append(
            f"no row belongs to {', '.join(map(repr, absent))} of {chosen!r}"
        )
    if len(checked.groups) < 2:
        raise ValueError(
            f"a sensitive attribute must have two groups or more; {chosen!r} has "
            f"{', '.join(map(repr, checked.groups)) or 'none that is known'}. Choose another attribute."
        )


def check_rows(checked: CheckedRows) -> list[str]:
    """Run the checks that depend on the rows that are left and return their warnings."""
    check_label(checked.frame, checked.raw.origin, checked.raw.label_names)
    if checked.external:
        return check_test_groups(checked.frame, str(checked.sensitive), checked.groups)
    check_splits(checked.frame)
    return check_groups(checked.frame, str(checked.sensitive), checked.groups)


def drop_missing_files(checked: CheckedRows) -> list[str]:
    """Leave out, or refuse, rows whose picture is not there; return the others' signatures.

    Raises:
        FileNotFoundError: if pictures are missing and the set's rule does not drop them, or all
            are missing.
    """
    sources = checked.raw.sources or []
    signatures = [s.signature() for s in sources]
    missing = np.asarray([s.endswith(" missing") for s in signatures], dtype=bool)
    if not missing.any():
        return signatures
    allowed = checked.spec.missing_files == "drop" or checked.request.options["skip_corrupt"]
    if missing.all() or not allowed:
        names = [s.name for s, gone in zip(sources, missing, strict=True) if gone]
        raise FileNotFoundError(
            f"a picture was expected for every row of {checked.raw.origin} and {missing.sum()} of "
            f"{len(missing)} are not there: {shortened(names)}. {checked.spec.steps} To go on without "
            "the missing ones add --skip-corrupt."
        )
    checked.drop(missing, "picture missing")
    return [s for s, gone in zip(signatures, missing, strict=True) if not gone]


def _prepared_root(spec: DatasetSpec, data_root: str | Path | None) -> Path:
    """Return the folder of a set that needs none: only one that was prepared can be given."""
    if data_root is None:
        return Path()
    root = Path(data_root).expanduser()
    if is_prepared(root):
        return root
    raise ValueError(
        f"{spec.name} makes its own pictures and reads no folder; data_root={str(data_root)!r} came. "
        f"Name the data set that lies there with --dataset: one of {', '.join(DATASETS)}, where "
        "folder is any pictures with a metadata.csv."
    )


def _check_root(spec: DatasetSpec, data_root: str | Path | None) -> Path:
    if not spec.needs_root:
        return _prepared_root(spec, data_root)
    root = Path(str(data_root)).expanduser()
    if spec.name == "folder" and is_hub_id(str(data_root)):
        return root
    if not root.exists():
        near = ""
        if root.parent.is_dir():
            near = closest(root.name, [p.name for p in root.parent.iterdir() if p.is_dir()])
        raise FileNotFoundError(
            f"the data folder {root} was expected and does not exist.{near} {spec.steps}"
        )
    if not root.is_dir():
        raise FileNotFoundError(f"{root} was expected to be a folder and is a file. {spec.steps}")
    if next(root.iterdir(), None) is None:
        raise FileNotFoundError(f"the data folder {root} is empty. {spec.steps}")
    return root


def _assign_splits(checked: CheckedRows, seed: int) -> None:
    raw = checked.raw
    prepared = "split_rule" in raw.recorded
    split, rule = _split_rows(checked, seed, prepared)
    raw.frame = checked.frame.assign(split=split)
    used = seed if rule in ("stratified", "folds") or rule.endswith(DEALT) else None
    raw.recorded |= {"split_rule": rule, "split_seed": raw.recorded.get("split_seed", used)}
    if not checked.external and raw.recorded["split_seed"] not in (None, seed):
        raw.warnings.append(
            f"the split was made with seed {raw.recorded['split_seed']} when the folder was prepared; "
            f"seed {seed} does not change it. Prepare again with --seed {seed} for another split"
        )


def _split_rows(checked: CheckedRows, seed: int, prepared: bool) -> tuple[pd.Series, str]:
    frame, spec, raw = checked.frame, checked.spec, checked.raw
    if checked.external:  # nothing is trained or chosen on it
        return pd.Series("test", index=frame.index, dtype=object), "external"
    rule = checked.request.options["split_rule"]
    given, folds = (checked.request.options[name] for name in ("splits_file", "folds"))
    if given:
        return read_split_file(Path(given), frame["row_id"]), "file"
    if folds and not prepared:
        return _fold_rows(checked, folds, seed), "folds"
    if "split" in frame.columns:
        return _given_split(checked, seed)
    if rule == "published" and spec.split_seeds is not None:
        split = published_split(
            frame["patient_id"],
            seeds=spec.split_seeds,
            held_out=spec.held_out,
            test_share=spec.test_share,
        )
        return split, rule
    strata = label_strata(frame, _balanced(checked))
    split = stratified_split(frame["patient_id"], strata, seed=seed, fractions=spec.fractions)
    return split, raw.recorded.get("split_rule", "stratified" if rule == "given" else rule)


def _fold_rows(checked: CheckedRows, folds: int, seed: int) -> pd.Series:
    if "split" in checked.frame.columns:
        checked.raw.warnings.append(
            "folds deal out all rows, also those that the data set gives as test"
        )
    return stratified_folds(
        checked.frame["patient_id"],
        label_strata(checked.frame, _balanced(checked)),
        folds=folds,
        fold=checked.request.options["fold"],
        seed=seed,
    )


def _given_split(checked: CheckedRows, seed: int) -> tuple[pd.Series, str]:
    """Keep the splits that are given; deal the missing ones out of train, and say so."""
    frame, raw = checked.frame, checked.raw
    default = "column" if checked.spec.name == "folder" else checked.request.options["split_rule"]
    rule = raw.recorded.get("split_rule", default)
    missing = missing_splits(frame["split"])
    if not missing:
        return frame["split"], rule
    split = complete_split(
        frame["split"],
        frame["patient_id"],
        label_strata(frame, _balanced(checked)),
        seed=seed,
        fractions=checked.spec.fractions,
    )
    kept = " and ".join(s for s in SPLITS[1:] if s in set(frame["split"])) or "no other split"
    counts = " and ".join(f"{int((split == s).sum())} rows for {s}" for s in missing)
    raw.warnings.append(
        f"of splits the data set gives train and {kept}; {counts} were dealt out of train by "
        f"patient, with seed {seed}"
    )
    return split, f"{rule}, {' and '.join(missing)}{DEALT}"


def _balanced(checked: CheckedRows) -> tuple[str, ...]:
    """Return the attributes that a stratified split balances beside the label."""
    return checked.spec.stratify if checked.raw.stratify is None else checked.raw.stratify


def _unknown_rows(checked: CheckedRows, sensitive: str) -> None:
    unknown = (checked.frame[sensitive] == "").to_numpy()
    policy = checked.request.options["unknown"]
    if not unknown.any():
        return
    if policy == "error":
        raise ValueError(
            f"{sensitive!r} must be known in every row under unknown=error; {unknown.sum()} of "
            f"{len(unknown)} rows are unknown. Fill them in, or choose unknown=drop or group."
        )
    if policy == "group":
        renamed = checked.frame[sensitive].where(~unknown, UNKNOWN)
        checked.raw.frame = checked.frame.assign(**{sensitive: renamed})
        return
    checked.drop(unknown, f"{sensitive} unknown")
