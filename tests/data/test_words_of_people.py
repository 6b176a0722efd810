"""Words that people write in the columns of their own tables, through the loader."""

from __future__ import annotations

import pytest

from fairtune_hf.data import load_dataset_table

COLUMNS = {"label_column": "diagnosis", "sensitive_column": "sex", "patient_column": "person"}


def load(root, **more):
    return load_dataset_table("folder", root, image_size=20, progress=False, **{**COLUMNS, **more})


@pytest.fixture
def rows(table_of):
    return table_of(160).drop(columns="age")


@pytest.mark.parametrize("word", ["unknown", "Not Reported", "n.a.", "?", "-1", "Unknown/Refused"])
def test_unknown_words_are_no_group(rows, make_folder, word):
    rows.loc[rows["person"] < "p020", "sex"] = word
    root = make_folder(rows)
    found = load(root)
    assert found.groups == ("F", "M")
    assert found.dropped == {"sex unknown": 40}
    assert any(f"{word!r} (40)" in w for w in found.warnings)
    assert load(root, unknown="group").groups == ("F", "M", "unknown")
    with pytest.raises(ValueError, match=r"must be known in every row .* 40 of 320"):
        load(root, unknown="error")


def test_unknown_words_make_no_patient(rows, make_folder):
    """All rows of "unknown" would be one patient, in one split."""
    rows.loc[rows["person"] < "p020", "person"] = "unknown"
    found = load(make_folder(rows))
    assert found.frame["patient_id"].nunique() == 140 + 40
    assert any("40 rows have no patient id" in w for w in found.warnings)


def test_unknown_labels_are_left_out_and_counted(rows, make_folder):
    rows.loc[rows["person"] < "p020", "diagnosis"] = "not reported"
    found = load(make_folder(rows))
    assert found.dropped == {"label unknown": 40}
    assert found.label_names == ("benign", "malignant")


def test_numbers_with_minus_one_for_unknown(rows, make_folder):
    rows["sex"] = rows["sex"].map({"M": 0, "F": 1})
    rows.loc[rows["person"] < "p020", "sex"] = -1
    found = load(make_folder(rows))
    assert found.groups == ("0", "1")
    assert found.dropped == {"sex unknown": 40}


@pytest.mark.parametrize("name", ["PatientAge", "Patient Age", "age(years)", "age-at-scan"])
def test_a_column_of_ages_is_known_by_its_name_however_written(rows, make_folder, name):
    rows[name] = [f"{58 + i // 4 % 6:03d}Y" for i in range(len(rows))]
    assert load(make_folder(rows), sensitive_column=name).groups == ("<=60", ">60")


def test_a_number_that_is_no_age_is_no_group(rows, make_folder):
    rows["age"] = rows["sex"].map({"M": 30, "F": 70})
    rows.loc[rows["person"] < "p020", "age"] = 999
    found = load(make_folder(rows), sensitive_column="age")
    assert found.groups == ("30", "70")
    assert found.dropped == {"age unknown": 40}
    assert any("40 values of 'age' are numbers that are no age" in w for w in found.warnings)


def test_a_negation_is_label_0_and_is_recorded(rows, make_folder):
    rows["diagnosis"] = rows["diagnosis"].map({"malignant": "glaucoma", "benign": "no glaucoma"})
    found = load(make_folder(rows))
    assert found.label_names == ("no glaucoma", "glaucoma")
    assert found.options["positive_label"] == "glaucoma"
    assert not any("label 1 of" in w for w in found.warnings)


def test_words_without_a_negation_are_said(rows, make_folder):
    rows["diagnosis"] = rows["diagnosis"].map({"malignant": "melanoma", "benign": "nevus"})
    root = make_folder(rows)
    (said,) = [w for w in load(root).warnings if "label 1 of 'diagnosis'" in w]
    assert "'melanoma'" in said
    told = load(root, positive_label="Nevus")
    assert told.label_names == ("melanoma", "nevus")
    assert not any("label 1 of" in w for w in told.warnings)


@pytest.mark.parametrize("root", ["./nowhere/set", "data/set", "~/nowhere/set", "nowhere/set/"])
def test_a_path_that_is_not_there_is_never_looked_up_on_the_hub(root, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda name: asked.append(name))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"was expected and does not exist"):
        load(root)
    (tmp_path / "pictures_of_skin").mkdir()
    with pytest.raises(FileNotFoundError, match=r"was expected and does not exist"):
        load("picture_of_skin/set")
    assert asked == []


def test_the_demo_set_reads_no_folder(make_folder):
    with pytest.raises(ValueError, match=r"demo makes its own pictures and reads no folder"):
        load_dataset_table("demo", make_folder())
