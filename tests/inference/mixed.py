"""A folder of pictures of every size and kind, whose brightness carries the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from pydicom.dataset import Dataset as DicomDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

SIZES = {"square": (96, 96), "wide": (640, 480), "tall": (480, 640), "strip": (1000, 300)}
PATIENTS = 60


def _save_dicom(path: Path, values: np.ndarray) -> None:
    """Write 12 stored bits of grey."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    told = DicomDataset()
    told.file_meta = meta
    told.SOPClassUID, told.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    told.Rows, told.Columns = values.shape
    told.SamplesPerPixel, told.PhotometricInterpretation = 1, "MONOCHROME2"
    told.BitsAllocated, told.BitsStored, told.HighBit, told.PixelRepresentation = 16, 12, 11, 0
    told.PixelData = values.astype("<u2").tobytes()
    told.save_as(path, enforce_file_format=True)


def _write(path: Path, kind: str, bright: float, generator: np.random.Generator) -> None:
    width, height = SIZES.get(kind, (300, 200))
    # Brighter to the right, so that what of a picture is kept bears on its score.
    ramp = np.linspace(0.5, 1.5, width)[None, :] * bright + generator.normal(0, 20, (height, width))
    if kind == "grey16":
        deep = (ramp.clip(0, 255) * 257).astype(np.uint16)
        Image.fromarray(deep).save(path)
    elif kind == "dicom":
        _save_dicom(path, (ramp.clip(0, 255) * 16).astype(np.uint16))
    else:
        colour = ramp[..., None] * np.array([1.0, 0.7, 0.5])
        Image.fromarray(colour.clip(0, 255).astype(np.uint8)).save(path)


KINDS: dict[str, str] = {
    "square": "png", "wide": "jpg", "tall": "jpg", "strip": "png", "grey16": "png", "dicom": "dcm",
}  # fmt: skip


def draw_mixed(root: Path, *, kinds: dict[str, str] = KINDS, seed: int = 0) -> Path:
    """Write a picture a patient, the kinds in turn, and metadata.csv."""
    generator = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    names = list(kinds)
    for patient in range(PATIENTS):
        kind, label = names[patient % len(names)], (patient // 2) % 2
        split = "train" if patient < 24 else "validation" if patient < 40 else "test"
        name = f"p{patient:02d}.{kinds[kind]}"
        _write(root / name, kind, 70 + 60 * label, generator)
        rows.append((name, "ill" if label else "well", "F" if patient % 2 else "M", patient, split))
    columns = ["file_name", "finding", "sex", "person", "part"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "metadata.csv", index=False)
    return root


COLUMNS = [
    "--dataset=folder", "--label-column=finding", "--positive-label=ill", "--sensitive-column=sex",
    "--patient-column=person", "--split-column=part",
]  # fmt: skip


def train_by_hand(root: Path, model: Path, out: Path, *flags: str, seeds: int = 1) -> Path:
    """Train a mask on a folder by the command line, for one epoch."""
    from fairtune_hf.cli.main import main

    fixed = ["--epochs=1", "--batch-size=8", "--learning-rate=0.01", f"--seeds={seeds}"]
    given = [*COLUMNS, f"--data-root={root}", f"--model={model}", f"--out={out}", *fixed]
    if not any(flag.startswith("--mask") for flag in flags):
        given.append("--mask=attention")
    assert main(["finetune", *given, *flags]) == 0
    return out


def own_scores(run: Path, root: Path, *, seed: int = 0) -> tuple[list[Path], np.ndarray]:
    """The test pictures of a run, and what its training wrote of them."""
    frame = pd.read_parquet(run / "predictions.parquet")
    rows = frame[(frame["split"] == "test") & (frame["seed"] == seed)]
    return [root / name for name in rows["row_id"]], rows["score"].to_numpy()
