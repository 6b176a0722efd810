from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import ImageTable, load_dataset_table


def test_folder_gives_rows_groups_and_pictures(make_folder, columns, table_of):
    root = make_folder()
    table = load_dataset_table("folder", root, image_size=16, **columns)
    assert isinstance(table, ImageTable)
    assert table.groups == ("F", "M")
    assert table.label_names == ("benign", "malignant")
    assert table.attributes == ("sex", "age")
    assert set(table.frame["age"]) == {"<=60", ">60"}
    assert table.images.shape == (120, 16, 16, 3)
    assert table.images.dtype == np.uint8
    source = table_of().set_index("file_name")
    for row in (0, 50, 119):
        told = source.loc[table.frame["row_id"][row]]
        assert table.labels[row] == (told["diagnosis"] == "malignant")
        assert table.group_names[row] == told["sex"]
        assert table.groups[table.group_codes[row]] == told["sex"]


def test_pictures_belong_to_their_rows(make_folder, columns, table_of, picture):
    root = make_folder()
    table = load_dataset_table("folder", root, image_size=20, **columns)
    files = list(table_of()["file_name"])
    for row, name in enumerate(table.frame["row_id"]):
        # 24 x 20 pixels: the centre 20 columns, no resizing.
        expected = np.asarray(picture(files.index(name)))[:, 2:22]
        np.testing.assert_array_equal(table.images[row], expected)


def test_patients_never_cross_splits_and_seed_decides(make_folder, columns):
    root = make_folder()
    first = load_dataset_table("folder", root, **columns)
    again = load_dataset_table("folder", root, **columns)
    other = load_dataset_table("folder", root, seed=1, **columns)
    assert first.frame.groupby("patient_id")["split"].nunique().max() == 1
    assert first.split_hash == again.split_hash != other.split_hash
    lines = sorted(
        f"{r} {s}" for r, s in zip(first.frame["row_id"], first.frame["split"], strict=True)
    )
    assert first.split_hash == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def mapped_bytes(images):
    while isinstance(images, np.ndarray) and images.base is not None:
        images = images.base
    return images.nbytes if isinstance(images, np.ndarray) else len(images)


def test_only_asked_splits_are_held(make_folder, columns):
    root = make_folder()
    whole = load_dataset_table("folder", root, **columns)
    table = load_dataset_table("folder", root, splits=("train", "validation"), **columns)
    assert table.splits == ("train", "validation")
    assert "test" not in set(table.frame["split"])
    assert table.split_hash == whole.split_hash
    assert type(table.images) is np.ndarray
    assert mapped_bytes(table.images) < 0.95 * mapped_bytes(whole.images)
    held = whole.frame["split"] != "test"
    np.testing.assert_array_equal(table.images, whole.images[held.to_numpy()])
    np.testing.assert_array_equal(table.patients, whole.patients[held.to_numpy()])


def test_a_left_out_split_is_still_verified(make_folder, columns):
    root = make_folder()
    whole = load_dataset_table("folder", root, **columns)
    name = whole.subset("test").frame["row_id"][0]
    (root / name).write_text("not a picture")
    with pytest.raises(ValueError, match=name):
        load_dataset_table("folder", root, splits=("train", "validation"), **columns)


def test_subset_keeps_codes_and_hash(make_folder, columns):
    table = load_dataset_table("folder", make_folder(), **columns)
    part = table.subset("validation")
    assert part.splits == ("validation",)
    assert part.split_hash == table.split_hash
    assert set(part.patients) <= set(table.patients)
    assert not set(part.patients) & set(table.subset("test").patients)
    with pytest.raises(ValueError, match=r"split 'validaton' is not known.*'validation'"):
        table.subset("validaton")


def test_counts_adds_up(make_folder, columns):
    table = load_dataset_table("folder", make_folder(), **columns)
    counts = table.counts()
    assert list(counts.columns) == ["split", "group", "label", "rows", "patients"]
    assert len(counts) == 3 * 2 * 2
    assert counts["rows"].sum() == 120
    assert counts["patients"].sum() == 60


def test_intersection_order_is_the_papers(make_folder, columns, table_of):
    columns["sensitive"] = "age+sex"
    table = load_dataset_table("folder", make_folder(table_of(240)), **columns)
    assert table.sensitive == "age+sex"
    assert table.groups == ("<=60+F", ">60+F", "<=60+M", ">60+M")
    joined = table.frame["age"] + "+" + table.frame["sex"]
    assert (joined == table.frame["age+sex"]).all()


def test_unknown_values_are_dropped_grouped_or_refused(make_folder, columns, table_of):
    source = table_of()
    source.loc[source["person"].isin(["p000", "p001"]), "sex"] = None
    root = make_folder(source)
    dropped = load_dataset_table("folder", root, **columns)
    assert dropped.dropped == {"sex unknown": 4}
    assert len(dropped) == 116
    with pytest.raises(ValueError, match=r"4 of 120 rows are unknown"):
        load_dataset_table("folder", root, unknown="error", **columns)
    source.loc[source["person"] < "p020", "sex"] = None
    root = make_folder(source, "grouped")
    grouped = load_dataset_table("folder", root, unknown="group", **columns)
    assert grouped.groups == ("F", "M", "unknown")
    assert grouped.dropped == {}


def test_options_are_recorded(make_folder, columns):
    table = load_dataset_table("folder", make_folder(), age_boundary="ge", **columns)
    assert table.options["age_boundary"] == "ge"
    assert table.options["label_column"] == "diagnosis"
    assert table.options["split_seed"] == 0
    assert set(table.frame["age"]) == {"<60", ">=60"}


def test_own_split_column(make_folder, columns, table_of):
    source = table_of()
    number = source["person"].str[1:].astype(int)
    source["part"] = number.map(lambda n: "train" if n < 40 else "val" if n < 50 else "Test")
    table = load_dataset_table("folder", make_folder(source), split_column="part", **columns)
    assert table.frame["split"].value_counts().to_dict() == {
        "train": 80,
        "validation": 20,
        "test": 20,
    }
    assert table.options["split_rule"] == "column"


def test_few_positives_and_one_class_in_test_are_warnings(make_folder, columns, table_of):
    source = table_of(120)
    number = source["person"].str[1:].astype(int)
    source["part"] = number.map(lambda n: "train" if n < 80 else "val" if n < 100 else "test")
    source.loc[(source["part"] == "test") & (source["sex"] == "F"), "diagnosis"] = "benign"
    table = load_dataset_table("folder", make_folder(source), split_column="part", **columns)
    text = "\n".join(table.warnings)
    assert (
        "group 'F' has one class only in test: its AUC there is undefined and given as null" in text
    )
    assert "group 'M' has fewer than 10 patients with or without the label in validation" in text


def test_pictures_of_one_patient_count_once_in_what_is_expected(make_folder, columns, table_of):
    """Twenty pictures each of few patients say as little as one picture of each."""
    source = table_of(60)
    more = pd.concat([source] * 10, ignore_index=True)
    more["file_name"] = [f"images/{i:04d}.png" for i in range(len(more))]
    texts = []
    for name, rows in (("few", source), ("many", more)):
        table = load_dataset_table("folder", make_folder(rows, name), image_size=8, **columns)
        texts.append([w for w in table.warnings if "fewer than 10 patients" in w])
    assert texts[0] == texts[1] != []


def test_demo_has_its_own_splits():
    table = load_dataset_table("demo", image_size=32)
    assert table.splits == ("train", "validation", "test")
    assert table.sensitive == "skin_type"
    assert table.groups == ("I-III", "IV-VI")
    assert table.images.shape[1:] == (32, 32, 3)
    assert not table.warnings


def test_nih_real(real_data):
    table = load_dataset_table("nih_chestxray14", real_data / "nih1000_64", sensitive="sex")
    assert len(table) == 1000
    assert table.labels.sum() == 501
    assert pd.Series(table.group_names).value_counts().to_dict() == {"F": 509, "M": 491}
    assert table.frame["patient_id"].nunique() == 264
    assert table.frame.groupby("patient_id")["split"].nunique().max() == 1
    ages = table.frame.groupby("age")["label"].agg(["sum", "size"])
    assert ages.loc["<=60"].tolist() == [241, 506]
    assert ages.loc[">60"].tolist() == [260, 494]
    smallest = table.counts()["rows"].min()
    assert smallest >= 15
