from __future__ import annotations

import doctest

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from fairtune_hf import metrics
from fairtune_hf.data import (
    attributes,
    hash_split,
    load_dataset_table,
    published_split,
    splits,
    stratified_split,
)
from fairtune_hf.data.attributes import (
    attribute_parts,
    bin_values,
    parse_thresholds,
    read_ages,
    sex_groups,
    threshold_groups,
)
from fairtune_hf.data.checks import auc_half_width


@pytest.mark.parametrize("module", [attributes, splits])
def test_examples_run(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [("gt", ["<=60", "<=60", ">60", ">60", ""]), ("ge", ["<60", ">=60", ">=60", ">=60", ""])],
)
def test_age_60_falls_where_the_boundary_says(boundary, expected):
    ages = pd.Series([59.9, 60, 60.4, 61, np.nan])
    assert bin_values(ages, [60], boundary).tolist() == expected


def test_several_thresholds():
    ages = pd.Series([10.0, 40, 41, 60, 61, 80])
    assert bin_values(ages, [40, 60]).tolist() == [
        "<=40", "<=40", ">40 to 60", ">40 to 60", ">60", ">60",
    ]  # fmt: skip
    assert threshold_groups([40, 60]) == ("<=40", ">40 to 60", ">60")


@pytest.mark.parametrize("value", ["60,40", "", "x", "60,60", None, "nan"])
def test_bad_thresholds(value):
    with pytest.raises(ValueError, match="age_threshold must be a number or rising numbers"):
        parse_thresholds(value)


def test_thresholds_from_text_and_numbers():
    assert parse_thresholds("60") == parse_thresholds(60) == parse_thresholds([60.0]) == (60.0,)
    assert parse_thresholds("40, 60") == (40.0, 60.0)


def test_sexes_and_dicom_ages():
    assert sex_groups(pd.Series(["Male", "F", "unknown", None, " female "])).tolist() == [
        "M", "F", "", "", "F",
    ]  # fmt: skip
    ages, notes = read_ages(pd.Series(["058Y", "006M", "70", "", "unknown"]))
    assert ages.tolist()[:3] == [58.0, 0.5, 70.0]
    assert ages.isna().tolist() == [False, False, False, True, True]
    assert notes == []


def test_odd_ages_are_counted_and_not_quoted():
    """One of them may be a date of birth."""
    _, notes = read_ages(pd.Series(["1931-02-03", "44", "130"]))
    assert notes == ["2 ages are not a number of years between 0 and 120 and count as unknown"]


def test_intersections_name_each_attribute_once():
    with pytest.raises(ValueError, match="must name different attributes"):
        attribute_parts("age+age", ["age", "sex"])
    assert attribute_parts("age + sex", ["age", "sex"]) == ["age", "sex"]


def test_published_split_is_scikit_learns_on_sorted_ids():
    ids = [f"id{i:03d}" for i in np.random.default_rng(0).permutation(101)]
    split = published_split(pd.Series(ids * 2), seeds=(5, 6))
    train, rest = train_test_split(sorted(ids), test_size=0.2, random_state=5)
    validation, test = train_test_split(rest, test_size=0.5, random_state=6)
    by_id = dict(zip(ids * 2, split, strict=True))
    assert {i for i, s in by_id.items() if s == "train"} == set(train)
    assert {i for i, s in by_id.items() if s == "validation"} == set(validation)
    assert {i for i, s in by_id.items() if s == "test"} == set(test)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_split_keeps_patients_and_shares(seed):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(400), rng.integers(1, 12, 400))
    sex = np.asarray(["M", "F"])[rng.integers(0, 2, 400)][patient]
    sick = rng.random(len(patient)) < np.where(sex == "M", 0.1, 0.4)
    strata = pd.DataFrame({"label": sick.astype(str), "sex": np.char.add(sex, sick.astype(str))})
    split = stratified_split(pd.Series(patient), strata, seed=seed)
    assert split.groupby(patient).nunique().max() == 1
    shares = pd.crosstab(strata["sex"], split, normalize="index")
    assert (shares["train"] - 0.8).abs().max() < 0.03
    assert (shares["validation"] - 0.1).abs().max() < 0.03
    assert (shares["test"] - 0.1).abs().max() < 0.03


def test_stratified_split_does_not_depend_on_row_order():
    rng = np.random.default_rng(0)
    patients = pd.Series(rng.integers(0, 80, 300).astype(str))
    strata = pd.DataFrame({"label": rng.integers(0, 2, 300)})
    split = stratified_split(patients, strata, seed=0)
    order = rng.permutation(300)
    turned = stratified_split(patients.iloc[order], strata.iloc[order], seed=0)
    assert (turned.sort_index() == split).all()


def test_split_hash_ignores_order_and_sees_every_change():
    frame = pd.DataFrame({"row_id": ["b", "a"], "split": ["train", "test"]})
    assert hash_split(frame) == hash_split(frame.iloc[::-1])
    assert hash_split(frame) != hash_split(frame.assign(split="train"))


def test_interval_width_shrinks_with_patients_and_is_that_of_the_metrics():
    widths = [auc_half_width(n, n) for n in (2, 5, 10, 50, 500)]
    assert widths == sorted(widths, reverse=True)
    assert 0 < widths[-1] < 0.05 < widths[0] <= 0.5
    assert auc_half_width(40, 7) == pytest.approx(metrics.auc_half_width(7, 40), rel=1e-4)


def test_folds_put_each_patient_in_one_test_split(make_folder, columns, table_of):
    root = make_folder(table_of(100))
    tests = []
    for fold in range(5):
        table = load_dataset_table("folder", root, folds=5, fold=fold, image_size=8, **columns)
        assert table.frame.groupby("patient_id")["split"].nunique().max() == 1
        assert table.options["split_rule"] == "folds"
        tests.append(set(table.subset("test").frame["row_id"]))
        sizes = table.frame["split"].value_counts()
        assert abs(sizes["test"] - 40) <= 6
        assert abs(sizes["validation"] - 40) <= 6
    assert sum(len(t) for t in tests) == len(set.union(*tests)) == 200
    with pytest.raises(ValueError, match=r"folds must be 3 or more .* folds=5 and fold=5 came"):
        load_dataset_table("folder", root, folds=5, fold=5, **columns)
