from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table, prepare

datasets = pytest.importorskip("datasets")


@pytest.fixture
def source(make_folder, columns):
    return load_dataset_table("folder", make_folder(), image_size=20, **columns)


COLUMNS = {
    "label_column": "label",
    "sensitive_column": "sex,age",
    "patient_column": "patient_id",
}


def assert_same(found, source):
    np.testing.assert_array_equal(found.images, source.images)
    np.testing.assert_array_equal(found.labels, source.labels)
    assert found.label_names == source.label_names
    assert list(found.group_names) == list(source.group_names)
    np.testing.assert_array_equal(found.patients, source.patients)


def test_a_saved_dataset_dict_with_its_own_splits(source, tmp_path):
    source.to_dataset_dict().save_to_disk(str(tmp_path / "hf"))
    found = load_dataset_table("folder", tmp_path / "hf", image_size=20, **COLUMNS)
    assert_same(found, source)
    assert list(found.frame["split"]) == list(source.frame["split"])
    assert found.options["split_rule"] == "column"


def test_parquet_files(source, tmp_path):
    (tmp_path / "hf").mkdir()
    for split, part in source.to_dataset_dict().items():
        part.to_parquet(str(tmp_path / "hf" / f"{split}-00000-of-00001.parquet"))
    found = load_dataset_table("folder", tmp_path / "hf", image_size=20, **COLUMNS)
    assert_same(found, source)


def test_one_split_is_split_by_patient(source, tmp_path):
    whole = datasets.concatenate_datasets(list(source.to_dataset_dict().values()))
    whole.save_to_disk(str(tmp_path / "hf"))
    found = load_dataset_table("folder", tmp_path / "hf", image_size=20, **COLUMNS)
    assert found.options["split_rule"] == "stratified"
    assert found.frame.groupby("patient_id")["split"].nunique().max() == 1
    assert len(found) == len(source)


def test_prepare_and_reload(source, tmp_path):
    source.to_dataset_dict().save_to_disk(str(tmp_path / "hf"))
    prepare("folder", tmp_path / "hf", out=tmp_path / "out", image_size=20, **COLUMNS)
    assert_same(load_dataset_table("folder", tmp_path / "out", image_size=20), source)


@pytest.mark.parametrize(
    "kind", [datasets.Value("binary"), {"bytes": datasets.Value("binary")}], ids=["bytes", "struct"]
)
def test_a_column_of_bytes_is_told_how_to_become_pictures(tmp_path, kind):
    cell = {"bytes": b"x"} if isinstance(kind, dict) else b"x"
    data = datasets.Dataset.from_list(
        [{"scan": cell, "label": 0}] * 2,
        features=datasets.Features(scan=kind, label=datasets.Value("int64")),
    )
    data.save_to_disk(str(tmp_path / "hf"))
    with pytest.raises(ValueError, match=r"call cast_column\('scan', datasets.Image\(\)\)"):
        load_dataset_table("folder", tmp_path / "hf", image_size=20, **COLUMNS)


def test_without_a_picture_column(tmp_path):
    frame = pd.DataFrame({"pixels": ["a", "b"], "label": [0, 1], "sex": ["M", "F"]})
    datasets.Dataset.from_pandas(frame).save_to_disk(str(tmp_path / "hf"))
    with pytest.raises(ValueError, match=r"must have one column of pictures .*it has 0: none"):
        load_dataset_table("folder", tmp_path / "hf", label_column="label", sensitive_column="sex")


def test_an_unknown_hub_id_says_both_readings(monkeypatch):
    def refuse(name):
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(FileNotFoundError, match=r"no folder here and the Hub gave: Dataset 'no"):
        load_dataset_table("folder", "nobody-here/nothing", label_column="a", sensitive_column="b")
