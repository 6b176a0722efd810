"""Volumes: percentiles of what is finite, and the slice that a folder of pictures takes."""

from __future__ import annotations

import gzip
import warnings

import numpy as np
import pytest

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.array_files import SliceSource
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.data.images import decode_bytes

nibabel = pytest.importorskip("nibabel")


def voxels(shape=(6, 7, 8), seed=0):
    return np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)


def expected_slice(values, index, axis):
    low, high = np.percentile(values[np.isfinite(values)], (0.5, 99.5))
    scaled = np.clip((np.nan_to_num(values, nan=low) - low) / (high - low), 0, 1) * 255
    return np.rot90(np.rint(scaled).astype(int).take(index, axis=axis))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_one_voxel_that_is_no_number_changes_no_other(tmp_path, odd):
    values = voxels((12, 12, 12))
    values[0, 0, :3] = 5000
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "whole.nii")
    values[1, 1, 1] = odd
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "odd.nii")
    whole, _ = SliceSource(tmp_path / "whole.nii", "whole", 6).read(12)
    with pytest.warns(UserWarning, match="1 of 1728 values are not finite"):
        found, _ = SliceSource(tmp_path / "odd.nii", "odd", 6).read(12)
    assert np.abs(whole.astype(int) - found).max() <= 1
    assert whole.mean() > 60
    np.testing.assert_allclose(found[..., 0], expected_slice(np.where(np.isinf(values), np.nan, values), 6, 1), atol=1)  # fmt: skip


def test_a_volume_without_a_number_is_refused(tmp_path):
    nibabel.save(
        nibabel.Nifti1Image(np.full((4, 4, 4), np.nan, np.float32), None), tmp_path / "x.nii"
    )
    with pytest.raises(ImageError, match="holds no finite value"):
        SliceSource(tmp_path / "x.nii", "x", 1).read(4)


def written(tmp_path, kind, values, affine):
    made = {
        ".nii": nibabel.Nifti1Image, ".nii.gz": nibabel.Nifti1Image, ".nii2": nibabel.Nifti2Image,
        ".mgh": nibabel.MGHImage, ".mgz": nibabel.MGHImage,
    }[kind](values, affine)  # fmt: skip
    path = tmp_path / f"volume{kind.replace('2', '')}"
    made.to_filename(path)
    return path.read_bytes()


@pytest.mark.parametrize("kind", [".nii", ".nii.gz", ".nii2", ".mgh", ".mgz"])
def test_a_volume_gives_its_middle_axial_slice(tmp_path, kind):
    values = voxels()
    raw = written(tmp_path, kind, values, np.eye(4))
    found = np.asarray(decode_bytes(raw))[..., 0].astype(int)
    np.testing.assert_allclose(found, expected_slice(values, 4, 2), atol=1)


def test_the_slice_is_axial_however_the_volume_lies(tmp_path):
    values = voxels()
    # The same voxels, stored superior first, with right and left exchanged.
    stored = np.ascontiguousarray(np.moveaxis(values, 2, 0)[:, ::-1])
    affine = np.asarray([[0, -1, 0, 5], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], float)
    straight = decode_bytes(written(tmp_path, ".nii", values, np.eye(4)))
    found = decode_bytes(written(tmp_path, ".nii", stored, affine))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(straight))


def test_what_is_no_volume_of_three_axes_is_refused(tmp_path):
    raw = written(tmp_path, ".nii", voxels((4, 4, 4, 3)), np.eye(4))
    with pytest.raises(ImageError, match=r"holds \(4, 4, 4, 3\) voxels where a volume of three"):
        decode_bytes(raw)
    with pytest.raises(ImageError, match="cannot be read as a volume"):
        decode_bytes(written(tmp_path, ".nii", voxels(), np.eye(4))[:900])
    with pytest.raises(ImageError, match="nor DICOM, NIfTI or MGH"):
        decode_bytes(gzip.compress(b"notes of a patient" * 40))


def test_volumes_in_a_folder_data_set(make_folder, columns, table_of, tmp_path):
    source = table_of()
    root = make_folder(source)
    raw = written(tmp_path, ".nii.gz", voxels((9, 9, 9)), np.eye(4))
    name = source["file_name"][5].replace(".png", ".nii.gz")
    (root / name).write_bytes(raw)
    source.loc[5, "file_name"] = name
    source.to_csv(root / "metadata.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load_dataset_table("folder", root, image_size=9, **columns)
    at = list(table.frame["row_id"]).index(name)
    np.testing.assert_array_equal(table.images[at], np.asarray(decode_bytes(raw)))
    said = [w for w in table.warnings if "volume" in w]
    assert len(said) == 1
    assert said[0].startswith("1 of the pictures are volumes: the middle axial slice")
