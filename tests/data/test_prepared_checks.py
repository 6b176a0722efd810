"""A prepared folder or a cache that is no longer what was written is refused, or made again."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from fairtune_hf.data import load_dataset_table, prepare


@pytest.fixture
def folder(make_folder, columns, tmp_path):
    columns.pop("sensitive")
    prepare("folder", make_folder(), out=tmp_path / "out", image_size=16, **columns)
    return tmp_path / "out"


def load(root):
    return load_dataset_table("folder", root, image_size=16, progress=False)


def edit(root, change):
    table = pd.read_csv(root / "table.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(root / "table.csv", index=False)


EDITS = {
    "the rows are in another order": lambda t: t.sort_values(["label", "row_id"]),
    "values of label changed": lambda t: t.assign(label=1 - t["label"].astype(int)),
    "values of sex changed": lambda t: t.assign(sex="F"),
    "values of patient_id changed": lambda t: t.assign(patient_id=t["patient_id"] + "x"),
    "there are 110 rows and there were 120": lambda t: t.iloc[10:],
    "the columns are row_id": lambda t: t.drop(columns="sex"),
}


@pytest.mark.parametrize("words", EDITS)
def test_an_edited_table_is_refused(folder, words):
    edit(folder, EDITS[words])
    with pytest.raises(ValueError, match=rf"no longer what fairtune prepare wrote: .*{words}"):
        load(folder)


def test_a_table_saved_in_another_dialect_is_the_same(folder):
    before = load(folder)
    file = folder / "table.csv"
    file.write_bytes(file.read_text().replace(",", ";").replace("\n", "\r\n").encode())
    pd.testing.assert_frame_equal(load(folder).frame, before.frame)


def flip_byte(file, place):
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


DAMAGES = {
    r"1 of 120 pictures in images.npy changed": lambda p: flip_byte(p / "images.npy", -800),
    r"images.npy has \d+ bytes and had \d+": lambda p: os.truncate(p / "images.npy", 5000),
    r"images.npy cannot be read": lambda p: flip_byte(p / "images.npy", 0),
    r"digests.npy is not what was written": lambda p: flip_byte(p / "digests.npy", -1),
    r"pixels.npy is not what was written": lambda p: flip_byte(p / "pixels.npy", -1),
    r"pixels.npy cannot be read": lambda p: (p / "pixels.npy").unlink(),
    r"store.json cannot be read": lambda p: (p / "store.json").write_text("{"),
    r"pictures/ is not there": shutil.rmtree,
}


@pytest.mark.parametrize("words", DAMAGES)
def test_damaged_pictures_are_refused_and_prepared_again(folder, columns, tmp_path, words, capsys):
    before = np.array(load(folder).images)  # a copy: a file that is cut must not be mapped
    DAMAGES[words](folder / "pictures")
    with pytest.raises(ValueError, match=words):
        load(folder)
    prepare("folder", tmp_path / "data", out=folder, image_size=16, **columns)
    np.testing.assert_array_equal(load(folder).images, before)


def test_damage_that_keeps_size_and_time_of_change_is_found(folder):
    images = folder / "pictures/images.npy"
    times = images.stat()
    flip_byte(images, -800)
    os.utime(images, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match="1 of 120 pictures"):
        load(folder)


def test_a_copy_is_compared_whole(folder, tmp_path):
    before = load(folder)
    copied = shutil.copytree(folder, tmp_path / "copy")
    np.testing.assert_array_equal(load(copied).images, before.images)
    flip_byte(copied / "pictures/images.npy", -800)
    with pytest.raises(ValueError, match="1 of 120 pictures"):
        load(copied)


def test_an_edited_or_cut_manifest_is_refused(folder):
    file = folder / "prepared.json"
    whole = file.read_text()
    content = json.loads(whole)
    file.write_text(json.dumps({**content, "positions": list(range(120))[::-1]}))
    with pytest.raises(ValueError, match=r"prepared.json was edited"):
        load(folder)
    for text in (whole[:100], "[]", ""):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"is damaged, .* with --overwrite"):
            load(folder)
    file.write_text(json.dumps({**content, "state": "incomplete"}))
    with pytest.raises(ValueError, match=r"not prepared to the end"):
        load(folder)


def test_the_pictures_of_another_folder_are_refused(
    folder, make_folder, columns, tmp_path, table_of
):
    other = make_folder(table_of().iloc[::-1], name="other")
    prepare("folder", other, out=tmp_path / "b", image_size=16, **columns)
    shutil.rmtree(folder / "pictures")
    shutil.copytree(tmp_path / "b/pictures", folder / "pictures")
    with pytest.raises(ValueError, match=r"pictures/ is not the folder that belongs to table.csv"):
        load(folder)


def as_an_earlier_release_wrote_it(root):
    content = json.loads((root / "prepared.json").read_text())
    for name in ("checksums", "signature"):
        content.pop(name)
    (root / "prepared.json").write_text(json.dumps(content))
    record = json.loads((root / "pictures/store.json").read_text())
    record.pop("checksums")
    record |= {"version": 1, "key": "of that release"}
    (root / "pictures/store.json").write_text(json.dumps(record))
    for name in ("pixels.npy", "verified.json"):
        (root / "pictures" / name).unlink()


def test_a_folder_of_an_earlier_release_is_read_and_says_that_it_cannot_be_checked(
    folder, columns, tmp_path
):
    before = load(folder)
    as_an_earlier_release_wrote_it(folder)
    table = load(folder)
    assert any("earlier release and has no checksums" in w for w in table.warnings)
    np.testing.assert_array_equal(table.images, before.images)
    assert table.fingerprint.parts == before.fingerprint.parts
    prepare("folder", tmp_path / "data", out=folder, image_size=16, **columns)
    assert not any("earlier release" in w for w in load(folder).warnings)
    assert (folder / "pictures/pixels.npy").is_file()
    as_an_earlier_release_wrote_it(folder)
    edit(folder, lambda t: t.iloc[10:])
    with pytest.raises(ValueError, match=r"table.csv holds other rows or splits"):
        load(folder)


@pytest.mark.parametrize("words", [w for w in DAMAGES if "pictures/" not in w])
def test_a_damaged_cache_is_made_again_with_a_word(make_folder, columns, tmp_path, words, capsys):
    root = make_folder()

    def load_cached():
        return load_dataset_table(
            "folder", root, image_size=16, cache_dir=tmp_path / "cache", progress=False, **columns
        )

    before = np.array(load_cached().images)
    place = next((tmp_path / "cache").glob("folder-*"))
    DAMAGES[words](place)
    capsys.readouterr()
    np.testing.assert_array_equal(load_cached().images, before)
    assert "are damaged" in capsys.readouterr().err
    load_cached()
    assert "damaged" not in capsys.readouterr().err
