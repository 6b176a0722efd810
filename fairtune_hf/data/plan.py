"""From a name and a folder to complete, checked rows with a split, before any picture is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

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
from fairtune_hf.data.groups import JOINT, attribute_parts, intersect
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
from fairtune_hf.naming import closest, shortened

UNKNOWN = "unknown"
DEALT = " dealt out of train"


@dataclass
class Plan:
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

    def fork(self) -> Plan:
        """Return a plan that can be changed without changing this one."""
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


def make_plan(
    dataset: str,
    data_root: str | Path | None,
    *,
    options: Mapping[str, Any],
    columns: Mapping[str, str | None] | None = None,
    sensitive: str | None = None,
    seed: int = 0,
    image_size: int = 64,
    metadata_only: bool = False,
    external: bool = False,
    needs_splits: bool = True,
) -> Plan:
    """Read a data set's tables, split them and check what needs no picture.

    With `external` every row goes to the test split. Without `needs_splits` a split may be empty:
    the rows may be for a test elsewhere.

    Raises:
        ValueError: for an unknown name, column or option, or rows that cannot be used.
        FileNotFoundError: if the folder or a file of it is absent.
    """
    spec, resolved = check_request(
        dataset, data_root, options=options, columns=columns, sensitive=sensitive
    )
    named: dict[str, str] = {k: v for k, v in (columns or {}).items() if v}
    root = _check_root(spec, data_root)
    request = ReadRequest(
        options=resolved,
        sensitive=sensitive,
        metadata_only=metadata_only,
        seed=seed,
        image_size=image_size,
        **named,
    )
    if data_root is not None and is_prepared(root):
        request = replace(request, options=prepared_options(root) | _given(resolved, options))
        raw = read_prepared(root, spec, request, _given(resolved, options))
    else:
        raw = spec.read(root, request)
    plan = Plan(spec=spec, raw=raw, request=request, external=external)
    if "position" not in plan.frame.columns:
        raw.frame = plan.frame.assign(position=np.arange(len(plan.frame)))
    check_row_ids(plan.frame, plan.raw.origin)
    check_label(plan.frame, plan.raw.origin, plan.raw.label_names)
    _assign_splits(plan, seed)
    if needs_splits and not external:
        check_splits(plan.frame)
    check_patient_leak(plan.frame, plan.raw.origin)
    order = plan.frame["split"].map({s: i for i, s in enumerate(SPLITS)}).to_numpy()
    plan.keep(np.argsort(order, kind="stable"))
    if plan.frame["split"].nunique() > 1:
        plan.raw.warnings += check_confounding(plan.frame, list(plan.raw.groups))
    return plan


def check_request(
    dataset: str,
    data_root: str | Path | None,
    *,
    options: Mapping[str, Any],
    columns: Mapping[str, str | None] | None = None,
    sensitive: str | None = None,
) -> tuple[DatasetSpec, dict[str, Any]]:
    """Return a data set's declaration and every option of it, after the checks that need no file.

    Raises:
        ValueError: for an unknown name, option, value or attribute, or a folder that is not named.
    """
    spec = dataset_spec(dataset)
    resolved = spec.resolve_options(options)
    named = [name for name, value in (columns or {}).items() if value]
    if spec.name != "folder":
        if named:
            flags = ", ".join("--" + name.replace("_", "-") for name in named)
            raise ValueError(
                f"{flags} are for --dataset folder; {spec.name} knows its own columns. Leave them out "
                f"and choose with --sensitive: {', '.join(spec.attributes)}."
            )
        if sensitive:
            attribute_parts(sensitive, list(spec.attributes))
    if spec.needs_root and data_root is None:
        raise ValueError(f"{spec.name} needs --data-root, the folder with its files. {spec.steps}")
    return spec, resolved


def choose_groups(plan: Plan, sensitive: str | None) -> None:
    """Take the groups from an attribute or an intersection and deal with unknown values.

    Raises:
        ValueError: if the attribute is unknown, has fewer than two groups, or has unknown values
            under `unknown=error`.
    """
    chosen = sensitive or plan.raw.default_sensitive or str(plan.spec.default_sensitive)
    parts = attribute_parts(chosen, list(plan.raw.groups))
    chosen = JOINT.join(parts)
    values, groups = intersect(plan.frame, parts, plan.raw.groups)
    if chosen not in plan.frame.columns:
        plan.raw.frame = plan.frame.assign(**{chosen: values})
    plan.sensitive = chosen
    _unknown_rows(plan, chosen)
    present = set(plan.frame[chosen])
    absent = [g for g in groups if g not in present]
    plan.groups = tuple(g for g in (*groups, UNKNOWN) if g in present)
    if absent:
        plan.raw.warnings.append(f"no row belongs to {', '.join(map(repr, absent))} of {chosen!r}")
    if len(plan.groups) < 2:
        raise ValueError(
            f"a sensitive attribute must have two groups or more; {chosen!r} has "
            f"{', '.join(map(repr, plan.groups)) or 'none that is known'}. Choose another attribute."
        )


def check_rows(plan: Plan) -> list[str]:
    """Run the checks that depend on the rows that are left and return their warnings."""
    check_label(plan.frame, plan.raw.origin, plan.raw.label_names)
    if plan.external:
        return check_test_groups(plan.frame, str(plan.sensitive), plan.groups)
    check_splits(plan.frame)
    return check_groups(plan.frame, str(plan.sensitive), plan.groups)


def drop_missing_files(plan: Plan) -> list[str]:
    """Leave out, or refuse, rows whose picture is not there; return the others' signatures.

    Raises:
        FileNotFoundError: if pictures are missing and the set's rule does not drop them, or all
            are missing.
    """
    sources = plan.raw.sources or []
    signatures = [s.signature() for s in sources]
    missing = np.asarray([s.endswith(" missing") for s in signatures], dtype=bool)
    if not missing.any():
        return signatures
    allowed = plan.spec.missing_files == "drop" or plan.request.options["skip_corrupt"]
    if missing.all() or not allowed:
        names = [s.name for s, gone in zip(sources, missing, strict=True) if gone]
        raise FileNotFoundError(
            f"a picture was expected for every row of {plan.raw.origin} and {missing.sum()} of "
            f"{len(missing)} are not there: {shortened(names)}. {plan.spec.steps} To go on without "
            "the missing ones add --skip-corrupt."
        )
    plan.drop(missing, "picture missing")
    return [s for s, gone in zip(signatures, missing, strict=True) if not gone]


def _given(resolved: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: resolved[name] for name, value in options.items() if value is not None}


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


def _assign_splits(plan: Plan, seed: int) -> None:
    raw = plan.raw
    prepared = "split_rule" in raw.recorded
    split, rule = _external_split(plan) if plan.external else _split_rows(plan, seed, prepared)
    raw.frame = plan.frame.assign(split=split)
    used = seed if rule in ("stratified", "folds") or rule.endswith(DEALT) else None
    raw.recorded |= {"split_rule": rule, "split_seed": raw.recorded.get("split_seed", used)}
    if not plan.external and raw.recorded["split_seed"] not in (None, seed):
        raw.warnings.append(
            f"the split was made with seed {raw.recorded['split_seed']} when the folder was prepared; "
            f"seed {seed} does not change it. Prepare again with --seed {seed} for another split"
        )


def _external_split(plan: Plan) -> tuple[pd.Series, str]:
    """Put every row into the test split: nothing is trained or chosen on an external set."""
    return pd.Series("test", index=plan.frame.index, dtype=object), "external"


def _split_rows(plan: Plan, seed: int, prepared: bool) -> tuple[pd.Series, str]:
    frame, spec, raw = plan.frame, plan.spec, plan.raw
    rule = plan.request.options["split_rule"]
    given, folds = (plan.request.options[name] for name in ("splits_file", "folds"))
    if given:
        return read_split_file(Path(given), frame["row_id"]), "file"
    if folds and not prepared:
        return _fold_rows(plan, folds, seed), "folds"
    if "split" in frame.columns:
        return _given_split(plan, seed)
    if rule == "published" and spec.split_seeds is not None:
        split = published_split(
            frame["patient_id"],
            seeds=spec.split_seeds,
            held_out=spec.held_out,
            test_share=spec.test_share,
        )
        return split, rule
    strata = label_strata(frame, _balanced(plan))
    split = stratified_split(frame["patient_id"], strata, seed=seed, fractions=spec.fractions)
    return split, raw.recorded.get("split_rule", "stratified" if rule == "given" else rule)


def _fold_rows(plan: Plan, folds: int, seed: int) -> pd.Series:
    if "split" in plan.frame.columns:
        plan.raw.warnings.append(
            "folds deal out all rows, also those that the data set gives as test"
        )
    return stratified_folds(
        plan.frame["patient_id"],
        label_strata(plan.frame, _balanced(plan)),
        folds=folds,
        fold=plan.request.options["fold"],
        seed=seed,
    )


def _given_split(plan: Plan, seed: int) -> tuple[pd.Series, str]:
    """Keep the splits that are given; deal the missing ones out of train, and say so."""
    frame, raw = plan.frame, plan.raw
    default = "column" if plan.spec.name == "folder" else plan.request.options["split_rule"]
    rule = raw.recorded.get("split_rule", default)
    missing = missing_splits(frame["split"])
    if not missing:
        return frame["split"], rule
    split = complete_split(
        frame["split"],
        frame["patient_id"],
        label_strata(frame, _balanced(plan)),
        seed=seed,
        fractions=plan.spec.fractions,
    )
    kept = " and ".join(s for s in SPLITS[1:] if s in set(frame["split"])) or "no other split"
    counts = " and ".join(f"{int((split == s).sum())} rows for {s}" for s in missing)
    raw.warnings.append(
        f"of splits the data set gives train and {kept}; {counts} were dealt out of train by "
        f"patient, with seed {seed}"
    )
    return split, f"{rule}, {' and '.join(missing)}{DEALT}"


def _balanced(plan: Plan) -> tuple[str, ...]:
    """Return the attributes that a stratified split balances beside the label."""
    return plan.spec.stratify if plan.raw.stratify is None else plan.raw.stratify


def _unknown_rows(plan: Plan, sensitive: str) -> None:
    unknown = (plan.frame[sensitive] == "").to_numpy()
    policy = plan.request.options["unknown"]
    if not unknown.any():
        return
    if policy == "error":
        raise ValueError(
            f"{sensitive!r} must be known in every row under unknown=error; {unknown.sum()} of "
            f"{len(unknown)} rows are unknown. Fill them in, or choose unknown=drop or group."
        )
    if policy == "group":
        renamed = plan.frame[sensitive].where(~unknown, UNKNOWN)
        plan.raw.frame = plan.frame.assign(**{sensitive: renamed})
        return
    plan.drop(unknown, f"{sensitive} unknown")
