"""Small folders of pictures with a metadata.csv, written by the tests."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def real_data() -> Path:
    root = os.environ.get("FAIRTUNE_DATA")
    if not root:
        pytest.skip("FAIRTUNE_DATA is not set: the real data is not here")
    return Path(root)


def draw_picture(seed: int, width: int = 24, height: int = 20) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def people(patients: int = 60) -> pd.DataFrame:
    """Two rows a patient; sex, age and label vary independently over the patients."""
    lines = []
    for patient in range(patients):
        for view in range(2):
            lines.append(
                {
                    "file_name": f"images/p{patient:03d}_{view}.png",
                    "person": f"p{patient:03d}",
                    "sex": ("M", "F")[patient % 2],
                    "age": 40 + 40 * (patient // 2 % 2) + patient % 7,
                    "diagnosis": ("benign", "malignant")[patient // 4 % 2],
                }
            )
    return pd.DataFrame(lines)


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(table: pd.DataFrame | None = None, name: str = "data") -> Path:
        root = tmp_path / name
        (root / "images").mkdir(parents=True)
        table = people() if table is None else table
        for i, file_name in enumerate(table["file_name"].dropna().unique()):
            draw_picture(i).save(root / file_name)
        table.to_csv(root / "metadata.csv", index=False)
        return root

    return make


@pytest.fixture
def columns() -> dict[str, str]:
    return {
        "label_column": "diagnosis",
        "sensitive_column": "sex,age",
        "patient_column": "person",
        "sensitive": "sex",
    }


@pytest.fixture
def table_of() -> Callable[..., pd.DataFrame]:
    return people


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    return draw_picture


def write_dicom(values, photometric="MONOCHROME2", *, stored=None, syntax="explicit", **tags):
    """A DICOM file of some values; `syntax` is a name below or a UID."""
    from pydicom import uid
    from pydicom.dataset import FileDataset, FileMetaDataset

    named = {
        "explicit": uid.ExplicitVRLittleEndian,
        "implicit": uid.ImplicitVRLittleEndian,
        "big": uid.ExplicitVRBigEndian,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
    }
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = named.get(syntax, syntax)
    meta.MediaStorageSOPClassUID = uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    told = FileDataset(
        None,
        {},
        file_meta=meta,
        preamble=b"\0" * 128,
        is_implicit_VR=syntax == "implicit",
        is_little_endian=syntax != "big",
    )
    told.SOPClassUID = meta.MediaStorageSOPClassUID
    told.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    told.Rows, told.Columns = values.shape[:2]
    told.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        told.PlanarConfiguration = 0
    told.PhotometricInterpretation = photometric
    told.BitsAllocated = 8 * values.dtype.itemsize
    told.BitsStored = stored or told.BitsAllocated
    told.HighBit = told.BitsStored - 1
    told.PixelRepresentation = int(values.dtype.kind == "i")
    told.PixelData = (values.byteswap() if syntax == "big" else values).tobytes()
    for name, value in tags.items():
        setattr(told, name, value)
    buffer = io.BytesIO()
    told.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture
def dicom() -> Callable[..., bytes]:
    pytest.importorskip("pydicom")
    return write_dicom
