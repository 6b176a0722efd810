from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.dicom import decode_dicom
from fairtune_hf.data.images import FileSource, ImageError

pydicom = pytest.importorskip("pydicom")

RAMP = np.asarray([[0, 500, 1000], [1500, 2000, 4000]], dtype=np.int16)


def dicom(values, photometric="MONOCHROME2", **tags):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    told = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    told.SOPClassUID = meta.MediaStorageSOPClassUID
    told.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    told.Rows, told.Columns = values.shape[:2]
    told.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        told.PlanarConfiguration = 0
    told.PhotometricInterpretation = photometric
    told.BitsAllocated = told.BitsStored = 8 * values.dtype.itemsize
    told.HighBit = told.BitsStored - 1
    told.PixelRepresentation = int(values.dtype.kind == "i")
    told.PixelData = values.tobytes()
    for name, value in tags.items():
        setattr(told, name, value)
    buffer = io.BytesIO()
    told.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def grey(raw):
    return np.asarray(decode_dicom(raw))[..., 0].tolist()


def test_own_range_without_a_window():
    assert grey(dicom(RAMP)) == [[0, 32, 64], [96, 128, 255]]


def test_rescale_and_window():
    raw = dicom(
        RAMP,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[1000.5, 40],
        WindowWidth=[2001, 8],
    )
    # Values -1000, 0, 1000, 2000, 3000, 7000 in the window 0..2000.
    assert grey(raw) == [[0, 0, 128], [255, 255, 255]]


def test_monochrome1_is_turned_round():
    assert grey(dicom(RAMP, "MONOCHROME1")) == [[255, 223, 191], [159, 127, 0]]


def test_padding_is_dark_and_not_part_of_the_range():
    padded = RAMP.copy()
    padded[1, 2] = -2000
    got = grey(dicom(padded, PixelPaddingValue=-2000))
    assert got == [[0, 64, 128], [191, 255, 0]]


def test_colour():
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode_dicom(dicom(values, "RGB"))), values)


def test_damaged_and_multi_frame_are_refused(tmp_path):
    whole = dicom(RAMP)
    (tmp_path / "x.dcm").write_bytes(whole[:-4])
    with pytest.raises(ImageError, match="cannot be decoded as DICOM"):
        FileSource(tmp_path / "x.dcm", "x.dcm").read(8)
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + b"noise" * 20)
    with pytest.raises(ImageError, match="cannot be decoded as DICOM"):
        FileSource(tmp_path / "x.dcm", "x.dcm").read(8)
    with pytest.raises(ImageError, match="holds 2 frames"):
        decode_dicom(dicom(np.stack([RAMP, RAMP]).reshape(4, 3), NumberOfFrames=2))


def test_a_folder_of_dicom_files(make_folder, columns, table_of):
    source = table_of()
    root = make_folder(source)
    source["file_name"] = source["file_name"].str.replace(".png", ".dcm")
    for i, name in enumerate(source["file_name"]):
        values = np.random.default_rng(i).integers(0, 4096, (10, 10)).astype(np.uint16)
        values[0, :2] = (0, 4095)
        (root / name).write_bytes(dicom(values))
    source.to_csv(root / "metadata.csv", index=False)
    table = load_dataset_table("folder", root, image_size=10, **columns)
    at = list(table.frame["row_id"]).index(source["file_name"][7])
    values = np.random.default_rng(7).integers(0, 4096, (10, 10))
    values[0, :2] = (0, 4095)
    expected = np.rint(values / 4095 * 255).astype(np.uint8)
    np.testing.assert_array_equal(table.images[at, :, :, 1], expected)
    assert Image.fromarray(table.images[at]).mode == "RGB"
