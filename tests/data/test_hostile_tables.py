"""Tables as people send them: each is read right, or refused with a clear message."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table


def load(root, columns, **more):
    return load_dataset_table("folder", root, image_size=8, **{**columns, **more})


@pytest.fixture
def clean(make_folder, columns):
    root = make_folder()
    return root, load(root, columns)


def quoted_newline(text):
    head, _, rest = text.partition("\n")
    lines = [f'{line},"two\nlines, one cell"' for line in rest.splitlines()]
    return "\n".join([head + ",note", *lines]) + "\n"


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda t: t.replace("\n", "\r\n").encode(),
        lambda t: t.replace("\n", "\r").encode(),
        lambda t: b"\xef\xbb\xbf" + t.encode(),
        lambda t: b"\xef\xbb\xbf" + t.replace("\n", "\r\n").encode(),
        lambda t: t.encode("utf-16"),
        lambda t: t.replace(",", ";").encode(),
        lambda t: t.replace(",", "\t").encode(),
        lambda t: (t + "\n\n\n").encode(),
        lambda t: t.rstrip("\n").encode(),
        lambda t: t.replace("person", " person ", 1).encode(),
        lambda t: quoted_newline(t).encode(),
        lambda t: t.replace("images/", "images\\").encode(),
        lambda t: t.replace("images/", "./images/").encode(),
        lambda t: t.replace("benign", " benign ").encode(),
    ],
)
def test_the_same_rows_come_out_however_the_text_is_kept(clean, columns, rewrite):
    root, table = clean
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_bytes(rewrite(text))
    again = load(root, columns)
    assert len(again) == len(table)
    np.testing.assert_array_equal(again.labels, table.labels)
    np.testing.assert_array_equal(again.group_codes, table.group_codes)
    assert (again.frame["split"] == table.frame["split"]).all()
    np.testing.assert_array_equal(again.images, table.images)


def test_latin1_names_are_kept(make_folder, columns, table_of):
    source = table_of()
    source["sex"] = source["sex"].map({"M": "m\u00e4nnlich", "F": "weiblich"})
    root = make_folder(source)
    text = (root / "metadata.csv").read_text(encoding="utf-8")
    (root / "metadata.csv").write_bytes(text.encode("latin-1"))
    assert load(root, columns).groups == ("m\u00e4nnlich", "weiblich")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "could not be read"),
        (b"file_name,person,sex,age,diagnosis\n", "expected to hold rows and has none"),
        (b"\x00\x01\x02" * 100, "holds binary data"),
        (b"PK\x03\x04\x00\x00", "holds binary data"),
        (b'file_name,person\n"a.png,1\nb.png,2\n', "could not be read"),
        (b"file_name,person\na.png,1\nb.png,2,3,4\n", "could not be read"),
        (b"<html>not found</html>\n<p>x</p>\n", "column 'file_name' was expected"),
    ],
)
def test_a_file_that_is_no_table_is_refused(clean, columns, content, match):
    root, _ = clean
    (root / "metadata.csv").write_bytes(content)
    with pytest.raises(ValueError, match=match):
        load(root, columns)


@pytest.mark.parametrize("column", ["file_name", "diagnosis", "sex", "age", "person"])
def test_a_column_that_is_all_missing_is_refused(make_folder, columns, table_of, column):
    root = make_folder()
    table_of().assign(**{column: None}).to_csv(root / "metadata.csv", index=False)
    with pytest.raises(ValueError, match=rf"column '{column}' .* all 120 are missing"):
        load(root, columns)


def test_missing_labels_and_file_names_are_dropped_and_counted(make_folder, columns, table_of):
    root = make_folder()
    source = table_of()
    source.loc[[3, 4, 5], "diagnosis"] = None
    source.loc[[10], "file_name"] = None
    source.to_csv(root / "metadata.csv", index=False)
    table = load(root, columns)
    assert table.dropped == {"file name missing": 1, "label missing": 3}
    assert len(table) == 116


def test_odd_ages_count_as_unknown_and_are_said(make_folder, columns, table_of):
    source = table_of(120).astype({"age": object})
    odd = [None, "unknown", "1958-03-01 00:00:00", "-4", "999", "inf", "nan", "sixty", "1/3/58"]
    source.loc[: len(odd) - 1, "age"] = odd
    source.loc[20, "age"] = "058Y"
    root = make_folder(source)
    table = load(root, columns, sensitive="age")
    assert table.dropped == {"age unknown": len(odd)}
    assert len(table) == 240 - len(odd)
    text = "\n".join(table.warnings)
    assert "6 ages are not a number of years between 0 and 120" in text
    assert "1958" not in text  # it may be a date of birth
    row = table.frame.set_index("row_id").loc[source.loc[20, "file_name"]]
    assert row["age"] == "<=60"


def test_excel_table_with_date_ages(make_folder, columns, table_of):
    source = table_of(120).astype({"age": object})
    source.loc[0, "age"] = datetime.datetime(1958, 3, 1)
    root = make_folder(source)
    (root / "metadata.csv").unlink()
    source.to_excel(root / "metadata.xlsx", index=False)
    table = load(root, columns, sensitive="age")
    assert table.dropped == {"age unknown": 1}
    assert len(table) == 239


def test_a_blank_too_many_does_not_make_two_patients_of_one(make_folder, columns, table_of):
    source = table_of(60)
    second = source["file_name"].str.endswith("_1.png")
    source.loc[second, "person"] = " " + source.loc[second, "person"] + " "
    table = load(make_folder(source), columns)
    assert table.frame["patient_id"].nunique() == 60
    assert table.frame.groupby("patient_id")["split"].nunique().max() == 1


def test_a_blank_patient_id_is_none(make_folder, columns, table_of):
    source = table_of(60)
    source.loc[[0, 5], "person"] = "   "
    table = load(make_folder(source), columns)
    assert "2 rows have no patient id: each its own" in table.warnings
    assert table.frame["patient_id"].nunique() == 62


def test_ages_as_dicom_writes_them(make_folder, columns, table_of):
    source = table_of(60)
    source["age"] = source["age"].map(lambda years: f"{years:03d}Y")
    plain = load(make_folder(table_of(60), "plain"), columns, sensitive="age")
    table = load(make_folder(source, "dicom"), columns, sensitive="age")
    pd.testing.assert_frame_equal(table.frame, plain.frame)


def test_damaged_excel_table_is_refused(clean, columns):
    root, _ = clean
    (root / "metadata.csv").unlink()
    (root / "metadata.xlsx").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match=r"metadata.xlsx was expected to be a table"):
        load(root, columns)


def test_a_many_valued_attribute_is_refused(make_folder, columns, table_of):
    columns["sensitive_column"] = columns["sensitive"] = "person"
    with pytest.raises(ValueError, match=r"must have a few groups; it has 60 values"):
        load(make_folder(), columns)


def test_label_and_attribute_must_differ(make_folder, columns):
    columns["sensitive_column"] = columns["sensitive"] = "diagnosis"
    with pytest.raises(ValueError, match=r"must be another column than the label"):
        load(make_folder(), columns)


def test_an_attribute_cannot_take_a_name_of_the_table(make_folder, columns, table_of):
    root = make_folder(table_of().rename(columns={"sex": "label"}))
    columns["sensitive_column"] = columns["sensitive"] = "label"
    with pytest.raises(ValueError, match=r"cannot be named 'label'"):
        load(root, columns)


def test_some_patients_without_an_id_are_each_their_own(make_folder, columns, table_of):
    source = table_of()
    source.loc[[0, 7], "person"] = None
    table = load(make_folder(source), columns)
    assert any("2 rows have no patient id" in w for w in table.warnings)
    assert table.frame["patient_id"].nunique() == 62


def test_attribute_that_follows_split_or_label_warns(make_folder, columns, table_of):
    source = table_of(120)
    source["site"] = source["diagnosis"].map({"benign": "A", "malignant": "B"})
    columns["sensitive_column"] = "sex,site"
    table = load(make_folder(source), columns)
    assert any("'site' determines the label" in w for w in table.warnings)
    number = source["person"].str[1:].astype(int)
    source["part"] = number.map(lambda n: "train" if n < 80 else "val" if n < 100 else "test")
    source["site"] = source["part"].map({"train": "A", "val": "B", "test": "A"})
    table = load(make_folder(source, "b"), columns, split_column="part")
    assert any("'site' is the same within each split" in w for w in table.warnings)


def test_nothing_is_lost(make_folder, columns, table_of):
    source = table_of(200)
    source.loc[[3, 4], "diagnosis"] = None
    source.loc[[20, 21, 22], "sex"] = "?"
    source.loc[source["sex"] == "?", "sex"] = None
    root = make_folder(source)
    (root / source["file_name"][50]).write_bytes(b"")
    (root / source["file_name"][51]).unlink()
    table = load(root, columns, skip_corrupt=True)
    assert len(table) + sum(table.dropped.values()) == len(source)
    assert table.dropped == {
        "label missing": 2,
        "sex unknown": 3,
        "picture unreadable": 1,
        "picture missing": 1,
    }


def test_a_wide_table_reads_fast_enough(make_folder, columns, table_of):
    source = pd.concat(
        [table_of(), pd.DataFrame({f"c{i}": range(120) for i in range(300)})], axis=1
    )
    assert len(load(make_folder(source), columns)) == 120
