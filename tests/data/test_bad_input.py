"""Each bad input: the message says what was expected, what came and what to do."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table
from fairtune_hf.naming import require_columns


def load(root, columns, **more):
    return load_dataset_table("folder", root, **{**columns, **more})


def test_unknown_dataset_offers_the_closest():
    with pytest.raises(
        ValueError, match=r"dataset 'ham1000' is not known. Did you mean 'ham10000'"
    ):
        load_dataset_table("ham1000", ".")


@pytest.mark.parametrize("flag", ["label_column", "sensitive_column", "patient_column"])
def test_unknown_column_offers_the_closest(make_folder, columns, flag):
    columns[flag] = "diagnose" if flag == "label_column" else "sexx"
    near = "diagnosis" if flag == "label_column" else "sex"
    match = (
        f"column .* was expected in metadata.csv .* Did you mean '{near}'.*Its columns: file_name"
    )
    with pytest.raises(ValueError, match=match):
        load(make_folder(), columns)


def test_unknown_attribute(make_folder, columns, tmp_path):
    with pytest.raises(ValueError, match=r"attribute 'sx' is not known. Did you mean 'sex'"):
        load(make_folder(), columns, sensitive="sx")
    # Of a known set, before its folder is even looked at.
    with pytest.raises(ValueError, match=r"attribute 'skin' .* Valid: age, sex|attribute 'skin'"):
        load_dataset_table("ham10000", tmp_path / "nothing_here", sensitive="skin")


def test_unknown_option_offers_the_closest(make_folder, columns):
    with pytest.raises(ValueError, match=r"option 'age_treshold' .* Did you mean 'age_threshold'"):
        load(make_folder(), columns, age_treshold=50)
    with pytest.raises(ValueError, match=r"unknown: the choice 'dropp' .* Did you mean 'drop'"):
        load(make_folder(name="b"), columns, unknown="dropp")


def test_folder_absent_and_empty(tmp_path, columns):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(FileNotFoundError, match=r"does not exist. Did you mean 'pictures'"):
        load(tmp_path / "picture", columns)
    with pytest.raises(FileNotFoundError, match=r"data folder .* is empty. Make one folder"):
        load(tmp_path / "pictures", columns)
    with pytest.raises(ValueError, match=r"needs --data-root"):
        load(None, columns)


def test_restricted_data_says_where_to_get_it(tmp_path):
    (tmp_path / "other.txt").write_text("x")
    with pytest.raises(
        FileNotFoundError, match=r"holds other.txt. Download HAM10000_images_part_1"
    ):
        load_dataset_table("ham10000", tmp_path)


BROKEN = ("images/p003_0.png", "images/p004_1.png")


def test_undecodable_pictures_are_named_on_the_terminal_and_counted(make_folder, columns, capsys):
    root = make_folder()
    (root / BROKEN[0]).write_text("hello")
    (root / BROKEN[1]).write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 120 are not: ") as caught:
        load(root, columns)
    assert "images/p003_0.png is not a picture" in str(caught.value)
    assert "images/p004_1.png is empty" in str(caught.value)
    assert "--skip-corrupt" in str(caught.value)
    table = load(root, columns, skip_corrupt=True)
    assert table.dropped == {"picture unreadable": 2}
    assert len(table) == 118
    assert "left out: images/p003_0.png is not a picture" in capsys.readouterr().err
    source = pd.read_csv(root / "metadata.csv")
    lines = [i + 2 for i, name in enumerate(source["file_name"]) if name in BROKEN]
    assert (
        f"pictures left out because they cannot be read: 2 (line {lines[0]}; {lines[1]} of "
        "metadata.csv)" in table.warnings
    )
    assert not any("p003" in w or "p004" in w for w in table.warnings), "names may name patients"


def test_missing_pictures_are_counted(make_folder, columns):
    root = make_folder()
    (root / "images/p003_0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 120 are not there: images/p003_0.png"):
        load(root, columns)
    table = load(root, columns, skip_corrupt=True)
    assert table.dropped == {"picture missing": 1}


@pytest.mark.parametrize(("values", "count"), [(["x"], 1), (["x", "y", "z"], 3)])
def test_label_needs_two_classes(make_folder, columns, values, count, table_of):
    source = table_of()
    source["diagnosis"] = [values[i % len(values)] for i in range(len(source))]
    with pytest.raises(ValueError, match=rf"must have two values; it has {count} .*'x': "):
        load(make_folder(source), columns)


def test_group_with_one_class_in_validation(make_folder, columns, table_of):
    source = table_of()
    number = source["person"].str[1:].astype(int)
    source["part"] = number.map(lambda n: "train" if n < 40 else "val" if n < 50 else "test")
    source.loc[(source["part"] == "val") & (source["sex"] == "M"), "diagnosis"] = "benign"
    with pytest.raises(ValueError, match=r"'M' has 10 negatives and 0 positives"):
        load(make_folder(source), columns, split_column="part")


def test_empty_split(make_folder, columns, table_of):
    source = table_of()
    source["part"] = "validation"
    source.loc[source["person"] > "p040", "part"] = "test"
    with pytest.raises(ValueError, match=r"train is empty .train: 0, validation: 82, test: 38"):
        load(make_folder(source), columns, split_column="part")


def test_patient_in_two_splits(make_folder, columns, table_of):
    source = table_of()
    number = source["person"].str[1:].astype(int)
    source["part"] = number.map(lambda n: "train" if n < 40 else "val" if n < 50 else "test")
    source.loc[1, "part"] = "test"
    with pytest.raises(ValueError, match=r"1 patients .2 rows. .* line 2 .* line 3") as caught:
        load(make_folder(source), columns, split_column="part")
    assert "p000" not in str(caught.value)


def test_same_picture_in_two_splits(make_folder, columns):
    root = make_folder()
    whole = load(root, columns)
    train = whole.subset("train").frame["row_id"][0]
    test = whole.subset("test").frame["row_id"][0]
    shutil.copy(root / train, root / test)
    with pytest.raises(ValueError, match=r"same picture must not be in two splits; 1 pictures"):
        load(root, columns)
    table = load(root, columns, duplicates="drop")
    assert table.dropped == {"same picture in another split": 1}
    assert train not in set(table.frame["row_id"])
    assert test in set(table.frame["row_id"])


def test_same_picture_twice_in_one_split_warns(make_folder, columns):
    root = make_folder()
    names = load(root, columns).subset("train").frame["row_id"]
    shutil.copy(root / names[0], root / names[5])
    table = load(root, columns)
    assert any("2 rows show a picture" in w for w in table.warnings)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "C:\\a.png", "images/../../x.png"]
)
def test_path_traversal_is_refused(make_folder, columns, name, table_of):
    root = make_folder()
    source = table_of()
    source.loc[4, "file_name"] = name
    source.to_csv(root / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"must be paths inside its folder; 1 are .*line 6"):
        load(root, columns)


def test_repeated_file_name_is_refused(make_folder, columns, table_of):
    root = make_folder()
    source = table_of()
    source.loc[4, "file_name"] = source.loc[5, "file_name"]
    source.to_csv(root / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=r"2 rows share one .*lines 6, 7"):
        load(root, columns)


def test_sensitive_attribute_needs_two_groups(make_folder, columns, table_of):
    source = table_of().assign(sex="F")
    with pytest.raises(ValueError, match=r"must have two groups or more; 'sex' has 'F'"):
        load(make_folder(source), columns)


def test_column_flags_are_for_folder(tmp_path):
    with pytest.raises(ValueError, match=r"--label-column are for --dataset folder"):
        load_dataset_table("ham10000", tmp_path, label_column="dx")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (("yes", "no"), ("no", "yes")),
        (("abnormal", "normal"), ("normal", "abnormal")),
        (("1.0", "0"), ("0", "1")),
        (("2", "10"), ("2", "10")),
        (("case", "Control"), ("Control", "case")),
        (("b", "a"), ("a", "b")),
    ],
)
def test_label_names_put_the_usual_negative_first(make_folder, columns, values, names, table_of):
    source = table_of()
    source["diagnosis"] = source["diagnosis"].map({"benign": values[0], "malignant": values[1]})
    table = load(make_folder(source), columns)
    assert table.label_names == names
    turned = load(make_folder(source, "turned"), columns, positive_label=names[0])
    assert turned.label_names == names[::-1]
    assert turned.labels.sum() == len(turned) - table.labels.sum()


def test_positive_label_must_be_a_value(make_folder, columns):
    with pytest.raises(
        ValueError, match=r"positive_label must be .*'benign' or 'malignant'; 'bad'"
    ):
        load(make_folder(), columns, positive_label="bad")


def test_the_columns_offered_are_those_of_the_file() -> None:
    frame = pd.DataFrame({"file_name": ["a.png"], "diagnosis": [1], "source_row": [2]})
    with pytest.raises(ValueError, match=r"Its columns: file_name, diagnosis\. "):
        require_columns(frame, ["diagnosiss"], "metadata.csv")
