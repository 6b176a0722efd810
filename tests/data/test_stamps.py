"""The cache of prepared pictures tells files apart that share name, size and time of writing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fairtune_hf.data import load_dataset_table, prepare
from fairtune_hf.data.array_files import H5Source, NpzSource, SliceSource
from fairtune_hf.data.images import FileSource
from fairtune_hf.data.store import build_store

SIDE, FIXED = 8, (10**9, 10**9)


def save_grey(path: Path, value: int) -> None:
    """Uncompressed, so that every picture has as many bytes; and of one time, as archives unpack."""
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(path, format="BMP")
    os.utime(path, FIXED)


def grey_folder(root: Path, table, light: int) -> Path:
    (root / "images").mkdir(parents=True)
    for i, name in enumerate(table["file_name"]):
        save_grey(root / name, light + i)
    table.to_csv(root / "metadata.csv", index=False)
    os.utime(root / "metadata.csv", FIXED)
    return root


def greys(table) -> np.ndarray:
    return table.images[:, 0, 0, 0].astype(int)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_replaced_picture_of_equal_size_and_time_is_read_again(
    table_of, columns, tmp_path, in_place
):
    root = grey_folder(tmp_path / "data", table_of(48), light=0)

    def load():
        return load_dataset_table(
            "folder", root, image_size=SIDE, cache_dir=tmp_path / "c", **columns
        )

    before = load()
    file = root / before.frame["row_id"].iloc[5]
    other = file if in_place else tmp_path / "other.png"
    save_grey(other, 250)
    other.replace(file)
    after = load()
    assert greys(after)[5] == 250
    assert (greys(after) != greys(before)).sum() == 1
    assert after.fingerprint.parts["pictures"] != before.fingerprint.parts["pictures"]


def test_two_data_sets_of_equal_names_sizes_and_times_share_no_entry(table_of, columns, tmp_path):
    table, cache = table_of(48), tmp_path / "c"
    for folder, light in (("one", 0), ("two", 100)):
        root = grey_folder(tmp_path / folder, table, light)
        found = load_dataset_table("folder", root, image_size=SIDE, cache_dir=cache, **columns)
        assert sorted(greys(found)) == [light + i for i in range(len(table))]


def test_the_folder_of_a_preparation_sees_it_and_is_its_own_when_the_data_moves(
    table_of, columns, tmp_path
):
    root = grey_folder(tmp_path / "data", table_of(48), light=0)
    out = tmp_path / "out"

    def prepared(data):
        prepare("folder", data, out=out, image_size=SIDE, near_duplicates=False, **columns)
        return load_dataset_table("folder", out, image_size=SIDE, sensitive="sex")

    def files():
        return {p.name: p.stat().st_mtime_ns for p in (out / "pictures").iterdir()}

    first = prepared(root)
    written = files()
    np.testing.assert_array_equal(prepared(root).images, first.images)
    assert files() == written
    moved = Path(shutil.move(root, tmp_path / "elsewhere"))
    again = prepared(moved)
    np.testing.assert_array_equal(again.images, first.images)
    assert again.split_hash == first.split_hash
    save_grey(moved / first.frame["row_id"].iloc[5], 250)
    assert greys(prepared(moved))[5] == 250


def write_h5(path: Path, value: int) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w", track_order=False) as file:
        file.create_dataset("a", data=np.full((SIDE, SIDE), value, np.uint8), track_times=False)


def write_npz(path: Path, value: int) -> None:
    np.savez(path, a=np.full((SIDE, SIDE), value, np.uint8))


def write_volume(path: Path, value: int) -> None:
    nibabel = pytest.importorskip("nibabel")
    voxels = np.zeros((SIDE, SIDE, SIDE), np.uint8)
    voxels[:, :, value % SIDE] = 200
    nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(path)


ARRAYS = {
    "picture.bmp": (save_grey, lambda p: FileSource(p, p.name)),
    "set.h5": (write_h5, lambda p: H5Source(p, "a", True, (0, 255))),
    "set.npz": (write_npz, lambda p: NpzSource(p, "a", (0, 255))),
    "volume.nii": (write_volume, lambda p: SliceSource(p, p.name, 4, scale="range")),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("in_place", [True, False])
def test_members_of_a_replaced_file_are_read_again(tmp_path, name, in_place):
    write, source_of = ARRAYS[name]
    file = tmp_path / name

    def put(value):
        new = tmp_path / f"new-{name}"
        write(new, value)
        if in_place:
            file.write_bytes(new.read_bytes())
        else:
            new.replace(file)
        os.utime(file, FIXED)

    def built():
        return build_store(tmp_path / "s", [source_of(file)], SIDE, progress=False).rows(
            np.array([0])
        )[0]

    put(3)
    size, first = file.stat().st_size, np.array(built())
    put(97)
    assert file.stat().st_size == size
    fresh, _ = source_of(shutil.copy(file, tmp_path / f"fresh-{name}")).read(SIDE)
    assert (fresh != first).any()
    np.testing.assert_array_equal(built(), fresh)


NAMES = {"label_column": "label", "sensitive_column": "sex,age", "patient_column": "patient_id"}


def with_paths(table, folder: Path, light: int):
    """The rows of a table as a data set whose pictures are files in a folder."""
    whole = datasets.concatenate_datasets(list(table.to_dataset_dict().values()))
    folder.mkdir()
    pictures = [folder / f"{i}.bmp" for i in range(len(whole))]
    for i, file in enumerate(pictures):
        save_grey(file, light + i)
    held = whole.remove_columns("image").add_column("image", [str(file) for file in pictures])
    return held.cast_column("image", datasets.Image(decode=False)), pictures


def test_a_datasets_folder_put_in_the_place_of_another(make_folder, columns, tmp_path):
    """A saved data set's fingerprint is a line in one of its files."""
    table = load_dataset_table("folder", make_folder(), image_size=SIDE, **columns)
    root, cache = tmp_path / "hf", tmp_path / "c"
    for light in (0, 100):
        held, _ = with_paths(table, tmp_path / f"from {light}", light)
        held.cast_column("image", datasets.Image()).save_to_disk(str(root))
        state = json.loads((root / "state.json").read_text())
        (root / "state.json").write_text(json.dumps({**state, "_fingerprint": "0123456789abcdef"}))
        found = load_dataset_table("folder", root, image_size=SIDE, cache_dir=cache, **NAMES)
        assert sorted(greys(found)) == [light + i for i in range(len(table))]
        root.rename(tmp_path / f"was {light}")


def test_a_replaced_picture_that_a_datasets_row_names_by_its_path(make_folder, columns, tmp_path):
    table = load_dataset_table("folder", make_folder(), image_size=SIDE, **columns)
    held, pictures = with_paths(table, tmp_path / "from", 0)
    root, cache = tmp_path / "hf", tmp_path / "c"
    root.mkdir()
    # The library's own writers put the bytes into the file; others leave the paths.
    plain = held.data.table.replace_schema_metadata(held.features.arrow_schema.metadata)
    pq.write_table(plain, root / "train.parquet")

    def load():
        return load_dataset_table("folder", root, image_size=SIDE, cache_dir=cache, **NAMES)

    assert sorted(greys(load())) == list(range(len(table)))
    save_grey(pictures[5], 250)
    assert sorted(greys(load()))[-1] == 250
