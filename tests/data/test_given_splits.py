"""What a data set gives as train, validation and test stays; only what is missing is dealt."""

from __future__ import annotations

import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table, prepare

datasets = pytest.importorskip("datasets")

COLUMNS = {"label_column": "diagnosis", "sensitive_column": "sex", "patient_column": "person"}
HF_COLUMNS = {"label_column": "label", "sensitive_column": "sex", "patient_column": "patient_id"}


@pytest.fixture
def rows(table_of):
    return table_of(160).drop(columns="age")


def parted(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Give patients one of the names in turns of eight, so that each has all groups and labels."""
    number = rows["person"].str[1:].astype(int) // 8
    return rows.assign(part=[names[n % len(names)] for n in number])


def load(root, **more):
    return load_dataset_table("folder", root, image_size=20, progress=False, **more)


def assert_kept(found, source: pd.DataFrame, official: str, ours: str) -> None:
    """The rows that the source calls `official`, and no others of it, are our split `ours`."""
    split = found.frame.set_index("row_id")["split"]
    given = source.set_index("file_name")["part"]
    assert set(split.index[split == ours]) == set(given.index[given == official])


@pytest.mark.parametrize(
    ("names", "official", "kept", "dealt"),
    [
        (["train"] * 4 + ["test"], "test", "test", "validation"),
        (["Training"] * 4 + ["Testing"], "Testing", "test", "validation"),
        (["trn"] * 3 + ["tst"], "tst", "test", "validation"),
        (["train"] * 4 + ["val"], "val", "validation", "test"),
        (["train"] * 4 + ["dev"], "dev", "validation", "test"),
        (["train"] * 4 + ["eval"], "eval", "test", "validation"),
    ],
)
def test_a_split_column_without_one_split(rows, make_folder, names, official, kept, dealt):
    source = parted(rows, names)
    found = load(make_folder(source), split_column="part", **COLUMNS)
    assert_kept(found, source, official, kept)
    assert found.frame.groupby("patient_id")["split"].nunique().max() == 1
    sizes = found.frame["split"].value_counts()
    outside = len(source) - sizes[kept]
    assert sizes[dealt] == pytest.approx(outside / 9, abs=4)
    both = found.frame.groupby(["split", "sex"])["label"].nunique()
    assert (both == 2).all()
    assert any(f"rows for {dealt} were dealt out of train by patient" in w for w in found.warnings)
    assert found.options["split_rule"] == f"column, {dealt} dealt out of train"
    assert found.options["split_seed"] == 0


def test_the_seed_deals_the_missing_split_and_leaves_the_given_one(rows, make_folder):
    source = parted(rows, ["train"] * 4 + ["test"])
    root = make_folder(source)
    first, second = (load(root, split_column="part", seed=s, **COLUMNS) for s in (0, 1))
    again = load(root, split_column="part", seed=0, **COLUMNS)
    assert first.split_hash == again.split_hash != second.split_hash
    for found in (first, second):
        assert_kept(found, source, "test", "test")


def save(rows: pd.DataFrame, make_folder, place, names: dict[str, str]):
    """Save the folder's rows by `datasets`, each part under its name."""
    table = load(make_folder(rows, f"{place.name}-source"), **COLUMNS)
    whole = datasets.concatenate_datasets(list(table.to_dataset_dict().values()))
    given = rows.set_index("file_name")["part"]
    part_of = [given[row] for row in whole["row_id"]]
    parts = {
        name: whole.select([i for i, p in enumerate(part_of) if p == part])
        for part, name in names.items()
    }
    datasets.DatasetDict(parts).save_to_disk(str(place))
    return {name: set(part["row_id"]) for name, part in parts.items()}, whole


def ids_of(place, found, split: str) -> set[str]:
    """The original row ids behind our rows of a split."""
    loaded = datasets.load_from_disk(str(place))
    names = {f"{n}-{i:06d}": r for n, d in loaded.items() for i, r in enumerate(d["row_id"])}
    return {names[r] for r in found.frame.loc[found.frame["split"] == split, "row_id"]}


@pytest.mark.parametrize("name", ["test", "testing", "evaluation", "test_2024"])
def test_a_saved_data_set_with_train_and_test_keeps_its_test_rows(
    rows, make_folder, tmp_path, name
):
    source = parted(rows, ["a", "a", "a", "b"])
    given, _ = save(source, make_folder, tmp_path / "hf", {"a": "train", "b": name})
    found = load(tmp_path / "hf", **HF_COLUMNS)
    assert ids_of(tmp_path / "hf", found, "test") == given[name]
    assert set(found.frame["split"]) == {"train", "validation", "test"}
    assert any("validation were dealt out of train" in w for w in found.warnings)


def test_a_saved_data_set_with_train_and_validation(rows, make_folder, tmp_path):
    source = parted(rows, ["a", "a", "a", "b"])
    given, _ = save(source, make_folder, tmp_path / "hf", {"a": "train", "b": "valid"})
    found = load(tmp_path / "hf", **HF_COLUMNS)
    assert ids_of(tmp_path / "hf", found, "validation") == given["valid"]
    assert any("gives train and validation; " in w for w in found.warnings)


def test_extra_splits_are_left_out_and_counted(rows, make_folder, tmp_path):
    source = parted(rows, ["a", "a", "a", "b", "c"])
    names = {"a": "train", "b": "test", "c": "unlabelled"}
    given, whole = save(source, make_folder, tmp_path / "hf", names)
    found = load(tmp_path / "hf", **HF_COLUMNS)
    assert ids_of(tmp_path / "hf", found, "test") == given["test"]
    assert len(found) == len(whole) - len(given["unlabelled"])
    (said,) = [w for w in found.warnings if "left out, of splits" in w]
    assert said.startswith(f"{len(given['unlabelled'])} rows")
    assert "unlabelled" in said


def test_parts_that_are_no_splits_are_joined_and_said(rows, make_folder, tmp_path):
    source = parted(rows, ["a", "b"])
    save(source, make_folder, tmp_path / "hf", {"a": "hospital_a", "b": "hospital_b"})
    found = load(tmp_path / "hf", **HF_COLUMNS)
    assert len(found) == len(rows)
    assert any("splits hospital_a, hospital_b are joined" in w for w in found.warnings)


def test_a_stratified_rule_deals_all_patients_anew(rows, make_folder):
    source = parted(rows, ["train"] * 4 + ["test"])
    found = load(make_folder(source), split_column="part", split_rule="stratified", **COLUMNS)
    assert found.options["split_rule"] == "stratified"
    assert set(found.frame["split"]) == {"train", "validation", "test"}


def test_rows_without_a_word_for_a_split_are_refused(rows, make_folder):
    source = parted(rows, ["train", "test", "not used", "train-test"])
    with pytest.raises(ValueError, match=r"160 rows hold something else \('not used': 80"):
        load(make_folder(source), split_column="part", **COLUMNS)


def test_test_rows_alone_are_an_external_set_and_nothing_else(rows, make_folder, tmp_path):
    root = make_folder(parted(rows, ["test"]))
    with pytest.raises(ValueError, match=r"train and validation is empty"):
        load(root, split_column="part", **COLUMNS)
    found = load(root, split_column="part", external=True, **COLUMNS)
    assert set(found.frame["split"]) == {"test"}
    assert len(found) == len(rows)
    summary = prepare(
        "folder", root, out=tmp_path / "p", image_size=20, progress=False, split_column="part",
        sensitive="sex", **COLUMNS,
    )  # fmt: skip
    assert any("can be scored by fairtune evaluate --run" in w for w in summary.warnings)
    again = load_dataset_table("folder", tmp_path / "p", image_size=20, external=True)
    assert sorted(again.frame["row_id"]) == sorted(found.frame["row_id"])


def test_a_small_external_set_needs_no_split(rows, make_folder):
    few = rows[rows["person"].isin(["p000", "p001", "p004", "p005"])]
    root = make_folder(few)
    with pytest.raises(ValueError, match=r"must have"):
        load(root, **COLUMNS)
    assert len(load(root, external=True, **COLUMNS)) == 8
