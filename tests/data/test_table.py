from __future__ import annotations

import numpy as np
import pytest

from fairtune_hf.data import load_dataset_table

datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize("on_disk", [False, True])
def test_dataset_dict_holds_the_same_rows(make_folder, columns, table_of, tmp_path, on_disk):
    source = table_of()
    source.loc[:5, "age"] = None
    table = load_dataset_table("folder", make_folder(source), image_size=12, **columns)
    found = table.to_dataset_dict(tmp_path / "arrow" if on_disk else None)
    assert isinstance(found, datasets.DatasetDict)
    assert list(found) == ["train", "validation", "test"]
    features = found["train"].features
    assert isinstance(features["image"], datasets.Image)
    assert features["label"].names == ["benign", "malignant"]
    assert features["sex"].names == ["F", "M"]
    assert features["age"].names == ["<=60", ">60", "unknown"]
    for split, part in found.items():
        held = table.subset(split)
        assert part["row_id"][:] == held.frame["row_id"].tolist()
        assert part["label"][:] == held.labels.tolist()
        assert part["patient_id"][:] == held.patients.tolist()
        names = [features["age"].int2str(v) for v in part["age"]]
        assert names == [v or "unknown" for v in held.frame["age"]]
        for row in (0, len(part) - 1):
            np.testing.assert_array_equal(np.asarray(part[row]["image"]), held.images[row])


def test_map_and_filter_work_and_no_patient_id_is_inside(make_folder, columns):
    table = load_dataset_table("folder", make_folder(), image_size=8, **columns)
    train = table.subset("train").to_dataset_dict()["train"]
    women = train.filter(lambda row: row["sex"] == 0)
    assert len(women) == (table.subset("train").group_codes == 0).sum()
    mean = train.map(lambda row: {"mean": float(np.asarray(row["image"]).mean())})
    assert mean["mean"][0] == pytest.approx(table.images[0].mean())
    assert train.features["patient_id"].dtype == "int64"
