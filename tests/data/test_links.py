"""Links in a data folder are followed wherever they lead, and counted; file names that leave it are refused."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table

COLUMNS = {"label_column": "diagnosis", "sensitive_column": "sex", "patient_column": "person"}


def load(root, **more):
    return load_dataset_table("folder", root, image_size=20, progress=False, **COLUMNS, **more)


def link_pictures(root, store):
    """As in the cache of the Hub: each file is a link."""
    store.mkdir()
    for file in sorted((root / "images").iterdir()):
        shutil.move(file, store / file.name)
        file.symlink_to(store / file.name)


def link_folder(root, store):
    shutil.move(root / "images", store)
    (root / "images").symlink_to(store, target_is_directory=True)


def link_all(root, store):
    shutil.move(root, store)
    root.symlink_to(store, target_is_directory=True)


def link_metadata(root, store):
    shutil.move(root / "metadata.csv", store)
    (root / "metadata.csv").symlink_to(store)


@pytest.mark.parametrize(
    ("link", "are_outside"),
    [(link_pictures, True), (link_folder, True), (link_all, False), (link_metadata, False)],
)
def test_links_are_followed_and_pictures_outside_are_counted(
    link, are_outside, make_folder, table_of, tmp_path
):
    plain = load(make_folder(table_of(160), "plain"))
    root = make_folder(table_of(160), "linked")
    link(root, tmp_path / "store")
    found = load(root)
    pd.testing.assert_frame_equal(found.frame, plain.frame)
    np.testing.assert_array_equal(found.images, plain.images)
    told = [w for w in found.warnings if "links" in w]
    count = table_of(160)["file_name"].nunique()
    expected = [f"{count} pictures lie outside {root}, behind links, which are followed"]
    assert told == (expected if are_outside else [])


def test_links_within_the_folder_are_not_counted(make_folder, table_of):
    root = make_folder(table_of(160))
    for file in sorted((root / "images").iterdir()):
        (root / "objects").mkdir(exist_ok=True)
        shutil.move(file, root / "objects" / file.name)
        file.symlink_to(root / "objects" / file.name)
    assert not [w for w in load(root).warnings if "links" in w]


def test_linked_folders_of_splits_are_entered_and_circles_are_not(make_folder, table_of, tmp_path):
    from fairtune_hf.data.folder_layouts import metadata_files

    table = table_of(160)
    table["split"] = ["test" if int(p[1:]) % 3 == 0 else "train" for p in table["person"]]
    whole = make_folder(table, "whole")
    root = tmp_path / "root"
    root.mkdir()
    for split, part in table.groupby("split"):
        folder = tmp_path / f"far_{split}"
        shutil.copytree(whole / "images", folder / "images")
        part.drop(columns="split").to_csv(folder / "metadata.csv", index=False)
        (root / split).symlink_to(folder, target_is_directory=True)
        (folder / "again").symlink_to(root, target_is_directory=True)
        (folder / "itself").symlink_to(folder, target_is_directory=True)
    names = [f.relative_to(root).as_posix() for f in metadata_files(root)]
    assert names == ["test/metadata.csv", "train/metadata.csv"]
    found, known = load(root), load(whole, split_column="split")
    assert len(found.frame) == len(known.frame)
    assert (found.frame["split"] == "test").sum() == (known.frame["split"] == "test").sum()


def test_a_link_that_leads_nowhere_is_a_missing_picture(make_folder, table_of):
    root = make_folder(table_of(160))
    broken = root / table_of(160)["file_name"].iloc[0]
    broken.unlink()
    broken.symlink_to(root / "gone.png")
    with pytest.raises(FileNotFoundError, match=r"1 of 320 are not there: images/p000_0\.png"):
        load(root)


@pytest.mark.parametrize("name", ["../far/0.png", "/etc/0.png", "images/../../far/0.png"])
def test_a_name_that_leaves_the_folder_is_refused_link_or_not(name, make_folder, table_of):
    table = table_of(160)
    root = make_folder(table)
    table.loc[0, "file_name"] = name
    table.to_csv(root / "metadata.csv", index=False)
    with pytest.raises(
        ValueError, match="must be paths inside its folder; 1 are absolute or leave it"
    ):
        load(root)
