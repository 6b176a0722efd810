"""The layouts of the ImageFolder convention, against the reader of `datasets` itself."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table, prepare

datasets = pytest.importorskip("datasets")

COLUMNS = {"label_column": "diagnosis", "sensitive_column": "sex", "patient_column": "person"}
PARTS = ("train",) * 6 + ("validation",) * 2 + ("test",) * 2


def split_for(patient: str) -> str:
    return PARTS[int(patient[1:]) // 8 % 10]


@pytest.fixture
def rows(table_of):
    """Rows whose file names have no folder, with the split of their patient."""
    table = table_of(160).drop(columns="age")
    table["file_name"] = table["file_name"].str.removeprefix("images/")
    return table.assign(split=table["person"].map(split_for))


def write(table: pd.DataFrame, path) -> None:
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".tsv":
        table.to_csv(path, index=False, sep="\t")
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)


def draw(root, names, picture) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        seed = int("".join(c for c in name.rpartition("/")[2] if c.isdigit()))
        picture(seed).save(root / name)


def load(root, **more):
    return load_dataset_table("folder", root, image_size=20, progress=False, **{**COLUMNS, **more})


def read_by_datasets(root, tmp_path) -> pd.DataFrame:
    """What `datasets` reads: one row a picture, with the bytes' name, its split and its columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = datasets.load_dataset(
            "imagefolder", data_dir=str(root), cache_dir=str(tmp_path / "hf-cache")
        )
    frames = []
    for split, part in parts.items():
        frame = part.remove_columns(["image"]).to_pandas()
        paths = part.cast_column("image", datasets.Image(decode=False))["image"]
        frame["file_name"] = [
            str(p["path"]).removeprefix(str(root)).replace("\\", "/").lstrip("/") for p in paths
        ]
        for name, kind in part.features.items():
            if isinstance(kind, datasets.ClassLabel):
                frame[name] = [kind.int2str(int(v)) for v in frame[name]]
        frames.append(frame.assign(split=str(split)))
    return pd.concat(frames, ignore_index=True).sort_values("file_name", ignore_index=True)


def ours(found, label: str = "diagnosis") -> pd.DataFrame:
    frame = found.frame.sort_values("row_id", ignore_index=True)
    return pd.DataFrame(
        {
            "file_name": frame["row_id"],
            label: [found.label_names[v] for v in frame["label"]],
            "split": frame["split"],
        }
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_in_each_folder_of_a_split(rows, picture, tmp_path, kind):
    root = tmp_path / "set"
    for split, part in rows.groupby("split"):
        draw(root / split, part["file_name"], picture)
        write(part.drop(columns="split"), root / split / f"metadata.{kind}")
    found = load(root)
    expected = read_by_datasets(root, tmp_path)
    pd.testing.assert_frame_equal(
        ours(found), expected[["file_name", "diagnosis", "split"]], check_dtype=False
    )
    assert dict(zip(found.frame["row_id"], found.frame["sex"], strict=True)) == dict(
        zip(expected["file_name"], expected["sex"], strict=True)
    )
    assert found.options["split_rule"] == "column"


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "parquet"])
def test_metadata_of_any_kind_at_the_top(rows, picture, tmp_path, kind):
    root = tmp_path / "set"
    draw(root, rows["file_name"], picture)
    write(rows, root / f"metadata.{kind}")
    found = load(root, split_column="split")
    (tmp_path / "as_csv").mkdir()
    draw(tmp_path / "as_csv", rows["file_name"], picture)
    write(rows, tmp_path / "as_csv" / "metadata.csv")
    known = load(tmp_path / "as_csv", split_column="split")
    pd.testing.assert_frame_equal(found.frame, known.frame)
    np.testing.assert_array_equal(found.images, known.images)


def test_splits_are_folders_and_labels_are_folders_below(rows, picture, tmp_path):
    """The label of `datasets` is the folder's name; metadata at the top adds the attribute."""
    root = tmp_path / "set"
    short = {"train": "train", "validation": "val", "test": "test"}
    rows["file_name"] = rows["split"].map(short) + "/" + rows["diagnosis"] + "/" + rows["file_name"]
    draw(root, rows["file_name"], picture)
    expected = read_by_datasets(root, tmp_path)
    write(rows[["file_name", "person", "sex"]], root / "metadata.csv")
    found = load(root, label_column="label")
    pd.testing.assert_frame_equal(
        ours(found, "label"), expected[["file_name", "label", "split"]], check_dtype=False
    )
    assert any("the label is the name of the folder" in w for w in found.warnings)


def test_metadata_in_each_folder_of_a_label(rows, picture, tmp_path):
    root = tmp_path / "set"
    for label, part in rows.groupby("diagnosis"):
        draw(root / label, part["file_name"], picture)
        write(part[["file_name", "person", "sex", "split"]], root / label / "metadata.csv")
    found = load(root, label_column="label", split_column="split")
    expected = rows["diagnosis"] + "/" + rows["file_name"]
    assert sorted(found.frame["row_id"]) == sorted(expected)
    folder = found.frame["row_id"].str.split("/").str[0]
    assert list(folder) == [found.label_names[v] for v in found.frame["label"]]


def test_folders_of_labels_without_metadata_say_what_is_missing(rows, picture, tmp_path):
    root = tmp_path / "set"
    draw(root, rows["diagnosis"] + "/" + rows["file_name"], picture)
    with pytest.raises(FileNotFoundError, match=r"\(benign; malignant\), which tell no sensitive"):
        load(root, label_column="label")


def test_file_names_without_a_suffix(rows, picture, tmp_path):
    root = tmp_path / "set"
    rows["file_name"] = "scans/1.2." + rows["file_name"]
    draw(root, rows["file_name"], picture)
    write(rows.assign(file_name=rows["file_name"].str.removesuffix(".png")), root / "metadata.csv")
    found = load(root, split_column="split")
    assert sorted(found.frame["row_id"]) == sorted(rows["file_name"])
    assert any("320 file names have no suffix" in w for w in found.warnings)
    one = rows["file_name"][0].removesuffix(".png")
    (root / f"{one}.jpg").write_bytes((root / f"{one}.png").read_bytes())
    with pytest.raises(ValueError, match=r"must fit one file; 1 in metadata.csv fit several"):
        load(root, split_column="split")


def test_a_file_whose_name_truly_has_no_suffix_is_itself(rows, picture, tmp_path):
    root = tmp_path / "set"
    draw(root, rows["file_name"], picture)
    bare = rows["file_name"].str.removesuffix(".png")
    for name, whole in zip(bare, rows["file_name"], strict=True):
        (root / whole).rename(root / name)
    write(rows.assign(file_name=bare), root / "metadata.csv")
    found = load(root, split_column="split")
    assert sorted(found.frame["row_id"]) == sorted(bare)


def test_another_name_of_the_file_column(rows, picture, tmp_path):
    root = tmp_path / "set"
    draw(root, rows["file_name"], picture)
    write(rows.rename(columns={"file_name": "image_file_name"}), root / "metadata.csv")
    assert len(load(root, split_column="split")) == len(rows)
    twice = rows.rename(columns={"file_name": "image_file_name"})
    write(twice.assign(mask_file_name="a.png"), root / "metadata.csv")
    with pytest.raises(ValueError, match=r"one picture a row.*image_file_name, mask_file_name"):
        load(root, split_column="split")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["metadata.csv", "metadata.jsonl"], r"it has metadata.csv; metadata.jsonl"),
        (["metadata.csv", "train/metadata.csv"], r"it has metadata.csv; train/metadata.csv"),
        (
            ["train/metadata.csv", "test/metadata.jsonl"],
            r"it has test/metadata.jsonl; train/metadata.csv",
        ),
        (["train/metadata.csv", "more/metadata.csv"], r"it has more/metadata.csv; train/metadata"),
    ],
)
def test_mixtures_are_refused_in_words(rows, tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(rows, tmp_path / name)
    with pytest.raises(ValueError, match=rf"must have one metadata file.*{message}"):
        load(tmp_path)


def test_a_split_without_metadata_or_with_other_columns_is_refused(rows, tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    write(rows, tmp_path / "train" / "metadata.csv")
    with pytest.raises(ValueError, match=r"must have its metadata file; test has none"):
        load(tmp_path)
    write(rows.assign(extra=1), tmp_path / "test" / "metadata.csv")
    with pytest.raises(
        ValueError, match=r"the same columns; train/metadata.csv .* differ in extra"
    ):
        load(tmp_path)


def test_rows_in_and_outside_folders_of_splits_are_refused(rows, picture, tmp_path):
    where = rows["split"].map({"train": "train/", "test": "test/", "validation": ""})
    rows["file_name"] = where + rows["file_name"]
    draw(tmp_path, rows["file_name"], picture)
    write(rows, tmp_path / "metadata.csv")
    with pytest.raises(ValueError, match=r"lie in folders of test and train, 64 elsewhere"):
        load(tmp_path)
    assert load(tmp_path, split_rule="stratified").options["split_rule"] == "stratified"
    assert load(tmp_path, split_column="split").options["split_rule"] == "column"


def test_one_group_has_one_name_in_every_kind_of_file(rows, picture, tmp_path):
    """Whole numbers beside a missing one are read as fractions by many readers."""
    rows["sex"] = rows["sex"].map({"M": 1, "F": 2}).astype(object)
    rows.loc[rows["person"] == "p003", "sex"] = None
    for kind in ("csv", "jsonl", "parquet"):
        root = tmp_path / kind
        draw(root, rows["file_name"], picture)
        if kind == "jsonl":
            lines = rows.astype(object).where(rows.notna(), None).to_dict("records")
            text = "\n".join(map(json.dumps, lines))
            (root / "metadata.jsonl").write_text(text, encoding="utf-8")
        else:
            write(rows.assign(sex=rows["sex"].astype("Int64")), root / f"metadata.{kind}")
        found = load(root, split_column="split")
        assert found.groups == ("1", "2"), kind
        assert found.dropped == {"sex unknown": 2}


@pytest.mark.parametrize("text", ['{"file_name": "a.png"', '["a.png"]', '"a.png"'])
def test_damaged_json_lines(tmp_path, text):
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png"}\n' + text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"could not be read: line 2 is no JSON object"):
        load(tmp_path)


def test_damaged_parquet(tmp_path):
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"metadata.parquet .* could not be read"):
        load(tmp_path)


def test_a_layout_is_prepared_and_read_again(rows, picture, tmp_path):
    root = tmp_path / "set"
    for split, part in rows.groupby("split"):
        draw(root / split, part["file_name"], picture)
        write(part.drop(columns="split"), root / split / "metadata.jsonl")
    prepare("folder", root, out=tmp_path / "out", image_size=20, progress=False, **COLUMNS)
    found = load_dataset_table("folder", tmp_path / "out", image_size=20)
    pd.testing.assert_frame_equal(found.frame, load(root).frame, check_dtype=False)
