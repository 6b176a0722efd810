from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table, prepare
from fairtune_hf.data.splits import hash_split

# Tables 9, 10a and 10b of the paper: split -> group -> (label 0, label 1).
PAPER_CELLS = {
    ("fitzpatrick17k", "skin_type"): {
        "train": {"I-III": (7538, 1312), "IV-VI": (3541, 418)},
        "validation": {"I-III": (940, 159), "IV-VI": (456, 46)},
        "test": {"I-III": (934, 180), "IV-VI": (443, 45)},
    },
    ("ham10000", "age"): {
        "train": {"<=60": (5218, 545), ">60": (1618, 586)},
        "validation": {"<=60": (604, 69), ">60": (219, 97)},
        "test": {"<=60": (653, 70), ">60": (208, 71)},
    },
    ("ham10000", "sex"): {
        "train": {"M": (3609, 725), "F": (3224, 406)},
        "validation": {"M": (419, 104), "F": (399, 62)},
        "test": {"M": (464, 79), "F": (395, 62)},
    },
}
UNKNOWN_SEX = {"fitzpatrick17k": 0, "ham10000": 10}


@pytest.mark.parametrize(("dataset", "attribute"), PAPER_CELLS)
def test_the_papers_36_cells_from_the_published_tables(real_data, tmp_path, dataset, attribute):
    prepare(dataset, real_data / "metadata", metadata_only=True, out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]
    table = pd.read_csv(tmp_path / "table.csv", dtype=str, keep_default_na=False)
    counts = table.groupby(["split", attribute, "label"]).size()
    cells = PAPER_CELLS[dataset, attribute]
    for split, groups in cells.items():
        for group, (negatives, positives) in groups.items():
            assert counts[split, group, "0"] == negatives
            assert counts[split, group, "1"] == positives
    total = sum(sum(pair) for groups in cells.values() for pair in groups.values())
    unknown = int((table[attribute] == "").sum())
    assert unknown == (UNKNOWN_SEX[dataset] if attribute == "sex" else 0)
    assert len(table) == total + unknown
    assert list(table.columns[:3]) == ["row_id", "patient_id", "label"]
    assert table.columns[-1] == "split"


def test_ham_label_rules_on_real_pictures(real_data, tmp_path):
    root = real_data / "ham10000_128"
    clinical = prepare(
        "ham10000", root, out=tmp_path / "a", label_rule="clinical", metadata_only=True
    )
    default = prepare("ham10000", root, out=tmp_path / "b", metadata_only=True)
    assert (clinical.rows, clinical.positives) == (5948, 937)
    assert (default.rows, default.positives) == (5948, 673)
    assert clinical.options["label_rule"] == "clinical"
    assert clinical.split_hash == default.split_hash
    assert clinical.dropped == {"age unknown": 36}


@pytest.mark.slow
def test_ham_real_pictures_prepare_and_load(real_data, tmp_path):
    summary = prepare(
        "ham10000",
        real_data / "ham10000_128",
        out=tmp_path / "ham",
        label_rule="clinical",
        image_size=64,
    )
    assert (summary.rows, summary.positives) == (5948, 937)
    table = load_dataset_table("ham10000", tmp_path / "ham", sensitive="age")
    assert table.labels.sum() == 937
    groups = table.frame.groupby("age")["label"].agg(["sum", "size"])
    assert groups.loc["<=60"].tolist() == [392, 4416]
    assert groups.loc[">60"].tolist() == [545, 1532]
    raw = load_dataset_table(
        "ham10000", real_data / "ham10000_128", sensitive="age", label_rule="clinical"
    )
    assert raw.split_hash == table.split_hash
    np.testing.assert_array_equal(raw.images[::50], table.images[::50])


def test_prepared_folder_gives_the_same_table_as_the_raw_data(make_folder, columns, tmp_path):
    root = make_folder()
    sensitive = columns.pop("sensitive")
    summary = prepare("folder", root, out=tmp_path / "out", image_size=16, **columns)
    assert summary.rows == 120
    assert sorted(p.name for p in summary.table.parent.iterdir()) == [
        "data_report.html",
        "pictures",
        "prepared.json",
        "table.csv",
    ]
    raw = load_dataset_table("folder", root, image_size=16, sensitive=sensitive, **columns)
    again = load_dataset_table("folder", tmp_path / "out", image_size=16, sensitive=sensitive)
    pd.testing.assert_frame_equal(raw.frame, again.frame, check_dtype=False)
    np.testing.assert_array_equal(raw.images, again.images)
    assert again.split_hash == raw.split_hash == summary.split_hash
    assert again.options == raw.options
    assert again.groups == raw.groups
    assert again.label_names == raw.label_names
    smaller = load_dataset_table("folder", tmp_path / "out", image_size=8, sensitive=sensitive)
    assert smaller.images.shape == (120, 8, 8, 3)


def test_prepared_folder_refuses_other_choices(make_folder, columns, tmp_path):
    prepare("folder", make_folder(), out=tmp_path / "out", image_size=16, **columns)
    with pytest.raises(ValueError, match=r"prepared with age_boundary='gt'; age_boundary='ge'"):
        load_dataset_table("folder", tmp_path / "out", image_size=16, age_boundary="ge")
    with pytest.raises(ValueError, match=r"20 px were asked for .* prepared with 16 px"):
        load_dataset_table("folder", tmp_path / "out", image_size=20)
    with pytest.raises(ValueError, match=r"holds the prepared data set 'folder'; 'ham10000' was"):
        load_dataset_table("ham10000", tmp_path / "out", image_size=16)


def test_prepared_folder_keeps_the_warnings_of_the_reader(make_folder, table_of, tmp_path):
    """Also those with the word group in the name of a column; those of groups are made anew."""
    source = table_of(60).rename(columns={"age": "age_group"})
    columns = {"label_column": "diagnosis", "patient_column": "person"}
    columns["sensitive_column"] = "age_group"
    root = make_folder(source)
    prepare("folder", root, out=tmp_path / "out", image_size=8, **columns)
    raw = load_dataset_table("folder", root, image_size=8, **columns)
    again = load_dataset_table("folder", tmp_path / "out", image_size=8)
    assert any("'age_group' holds many numbers" in w for w in again.warnings)
    assert sorted(again.warnings) == sorted(raw.warnings)


def test_another_seed_than_the_prepared_split_has_is_said(make_folder, columns, tmp_path):
    sensitive = columns.pop("sensitive")
    prepare("folder", make_folder(), out=tmp_path / "out", image_size=8, **columns)
    same, other = (
        load_dataset_table("folder", tmp_path / "out", image_size=8, sensitive=sensitive, seed=s)
        for s in (0, 7)
    )
    assert other.split_hash == same.split_hash
    assert not any("seed" in w for w in same.warnings)
    assert any("split was made with seed 0" in w and "--seed 7" in w for w in other.warnings)


def test_prepare_again_changes_nothing_and_other_settings_are_refused(
    make_folder, columns, tmp_path
):
    root, out = make_folder(), tmp_path / "out"
    prepare("folder", root, out=out, image_size=16, **columns)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    prepare("folder", root, out=out, image_size=16, **columns)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=r"holds a different one. .*--overwrite"):
        prepare("folder", root, out=out, image_size=18, **columns)
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    prepare("folder", root, out=out, image_size=18, overwrite=True, **columns)
    assert load_dataset_table("folder", out, image_size=18).images.shape[1] == 18


def test_bad_input_writes_nothing(make_folder, columns, tmp_path):
    root, out = make_folder(), tmp_path / "out"
    (root / "images/p003_0.png").write_text("hello")
    with pytest.raises(ValueError, match=r"images/p003_0.png is not a picture"):
        prepare("folder", root, out=out, image_size=16, **columns)
    assert not out.exists()
    with pytest.raises(ValueError, match=r"column 'nothing'"):
        prepare("folder", root, out=out, **{**columns, "label_column": "nothing"})
    assert not out.exists()


def test_skip_corrupt_goes_on_and_counts(make_folder, columns, tmp_path, capsys):
    root, out = make_folder(), tmp_path / "out"
    (root / "images/p003_0.png").write_text("hello")
    summary = prepare("folder", root, out=out, image_size=16, skip_corrupt=True, **columns)
    assert summary.rows == 119
    assert summary.dropped == {"picture unreadable": 1}
    assert "images/p003_0.png" in capsys.readouterr().err
    for kept in ("prepared.json", "data_report.html"):
        assert "p003_0" not in (out / kept).read_text()
    assert any("cannot be read: 1 (line " in w for w in summary.warnings)
    table = load_dataset_table("folder", out, image_size=16)
    assert len(table) == 119
    raw = load_dataset_table("folder", root, image_size=16, skip_corrupt=True, **columns)
    np.testing.assert_array_equal(raw.images, table.images)


def test_splits_are_exported_and_imported(make_folder, columns, tmp_path):
    root = make_folder()
    first = load_dataset_table("folder", root, seed=3, **columns)
    prepare("folder", root, out=tmp_path / "out", seed=3, metadata_only=True, **columns)
    file = tmp_path / "out" / "table.csv"
    again = load_dataset_table("folder", root, splits_file=str(file), **columns)
    assert again.split_hash == first.split_hash
    assert again.options["split_rule"] == "file"
    cut = pd.read_csv(file).iloc[3:]
    cut.to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"must hold every row of the data set; 3 of 120"):
        load_dataset_table("folder", root, splits_file=str(file), **columns)


def test_report_has_counts_and_pictures_and_no_patient(make_folder, columns, tmp_path, table_of):
    source = table_of(400)
    summary = prepare("folder", make_folder(source), out=tmp_path / "o", image_size=16, **columns)
    page = summary.report.read_text()
    assert "data:image/jpeg;base64," in page
    assert "http" not in page.split("<h2>Rules")[0]
    assert "p000" not in page
    assert "&lt;10" in page
    shown = summary.render()
    assert "left out" not in shown
    assert "p000" not in shown
    for count in summary.counts["rows"]:
        assert str(count) in shown


def test_no_cell_of_the_report_is_the_total_less_the_others(
    make_folder, columns, tmp_path, table_of
):
    source = table_of(400)
    source["sex"] = ["M" if person.endswith("1") else "F" for person in source["person"]]
    summary = prepare("folder", make_folder(source), out=tmp_path / "o", image_size=16, **columns)
    table = summary.report.read_text().split("<h3>sex</h3>")[1].split("</table>")[0]
    lines = [re.findall(r"<td>(.*?)</td>", line)[1:] for line in table.split("<tr>")[2:]]
    hidden = [column for column in zip(*lines, strict=True) if "&lt;10" in column]
    assert hidden
    assert {tuple(sorted(column)) for column in hidden} == {("&lt;10", "not shown")}


def test_manifest_hash_is_that_of_the_table(make_folder, columns, tmp_path):
    prepare("folder", make_folder(), out=tmp_path / "out", image_size=16, **columns)
    told = json.loads((tmp_path / "out/prepared.json").read_text())
    table = pd.read_csv(tmp_path / "out/table.csv", dtype=str)
    assert told["split_hash"] == hash_split(table)
    assert told["state"] == "complete"
