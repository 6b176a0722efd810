"""Prepare real pictures of public packages and compare each with an independent route.

    python recipes/checks/real_files.py [--pictures FOLDER]

Outside CI, run by hand; a minute or two. It builds a `folder` data set from every DICOM file that
pydicom ships, and from the TIFF, PNG and PNM files below FOLDER (as unpacked from the source
distribution of Pillow: pip download --no-deps --no-binary :all: pillow==13.0.0). Each prepared
picture is compared with pydicom's own display functions and another decoder than the product's
first, or with tifffile and imagecodecs (pip install tifffile imagecodecs; neither is needed
otherwise). Exit status 1 if a picture that is not refused differs.
"""

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.image_source import ImageError, square
from fairtune_hf.data.images import FileSource

SIDE = 96
TOLERANCE = 2  # of 255: roundings of two routes, before and after resizing
SUFFIXES = {".tif", ".tiff", ".png", ".ppm", ".pgm", ".pnm"}
SPLITS = ("train", "validation", "test")
OTHER_DECODERS = ("pylibjpeg", "pillow", "gdcm", "pydicom")


class NoRoute(Exception):
    """There is no independent way to say how a file should look."""


def dicom_files() -> list[Path]:
    import pydicom

    found = []
    for path in sorted((Path(pydicom.__file__).parent / "data").rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".json", ".txt", ".zip"):
            try:
                told = pydicom.dcmread(path, force=True)
                if "Rows" in told:
                    found.append(path)
            except Exception as error:
                print(f"not DICOM to pydicom itself: {path.name} ({type(error).__name__})")
    return found


def expected_dicom(path: Path) -> np.ndarray:
    """Show one frame by pydicom's functions alone."""
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    told = pydicom.dcmread(path, force=True)
    values = decoded_elsewhere(told)
    kind = told.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        coloured = apply_color_lut(values, told)
        return np.rint(coloured / np.iinfo(coloured.dtype).max * 255)
    if values.ndim == 3:
        return np.rint(values / (2.0**told.BitsStored - 1) * 255)
    known = np.ones(values.shape, bool)
    if "PixelPaddingValue" in told:
        known = values != told.PixelPaddingValue
    numbers = apply_modality_lut(values, told).astype(float)
    low, high = numbers[known].min(), numbers[known].max()
    if "WindowWidth" in told and told.WindowWidth != "":
        # pydicom windows to the range that the stored bits can reach once rescaled.
        numbers = apply_voi_lut(numbers, told)
        reach = 2.0 ** (told.BitsStored - (1 if told.PixelRepresentation else 0))
        ends = np.asarray([-reach if told.PixelRepresentation else 0, reach - 1])
        low, high = ends * float(told.get("RescaleSlope", 1)) + float(
            told.get("RescaleIntercept", 0)
        )
    grey = np.rint(np.clip((numbers - low) / max(high - low, 1e-9), 0, 1) * 255)
    return np.where(known, 255 - grey if kind == "MONOCHROME1" else grey, 0)


def decoded_elsewhere(told: object) -> np.ndarray:
    """Decode by each plugin in an order that begins with another than the product's first."""
    from pydicom.pixels import get_decoder

    meta = getattr(told, "file_meta", {})
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None:
        raise NoRoute("no transfer syntax is named")
    decoder = get_decoder(syntax)
    plugins = [p for p in OTHER_DECODERS if p in decoder.available_plugins]
    for plugin in plugins:
        try:
            return decoder.as_array(told, decoding_plugin=plugin)[0]
        except Exception as error:
            print(f"  {plugin}: {str(error).splitlines()[0][:100]}")
    if plugins:
        raise NoRoute("no other decoder reads it")
    return decoder.as_array(told)[0]


def images(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())


def expected_picture(path: Path) -> np.ndarray:
    """Read a picture by tifffile or imagecodecs, and scale what has more than 8 bits."""
    import imagecodecs

    if path.suffix.lower() in (".tif", ".tiff"):
        return expected_tiff(path)
    if path.suffix.lower() != ".png":
        raise NoRoute("no other reader of PNM")
    with Image.open(path) as image:
        if image.getexif().get(0x0112, 1) != 1:
            raise NoRoute("turned by EXIF")
    return scaled(without_alpha(imagecodecs.png_decode(path.read_bytes())))


def expected_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise NoRoute("several pages")
        page = file.pages[0]
        if not hasattr(page.photometric, "name"):
            raise NoRoute("no colour space is named")
        if page.photometric.name not in ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE"):
            raise NoRoute(f"colour space {page.photometric.name}")
        values = page.asarray()
        if page.planarconfig == 2 and values.ndim == 3:
            values = np.moveaxis(values, 0, -1)
        if page.photometric.name == "PALETTE":
            return np.moveaxis(page.colormap[:, values], 0, -1) >> 8
        turn = ORIENTED.get(int(page.tags.valueof("Orientation", 1)), lambda v: v)
        bits = page.bitspersample
        white = page.photometric.name == "MINISWHITE"
        if page.extrasamples and page.extrasamples[0].name == "ASSOCALPHA":
            alpha = np.maximum(values[..., 3:].astype(float), 1)
            top = np.iinfo(values.dtype).max
            values = np.minimum(values[..., :3] * (top / alpha), top).astype(values.dtype)
        values = turn(without_alpha(values))
        if values.dtype == bool or bits < 8:
            values = np.asarray(np.rint(values.astype(float) * (255 / (2**bits - 1))), np.uint8)
    shown = scaled(values)
    return 255 - shown if white else shown


ORIENTED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda v: v[:, ::-1],
    3: lambda v: v[::-1, ::-1],
    4: lambda v: v[::-1],
    5: lambda v: v.swapaxes(0, 1),
    6: lambda v: np.rot90(v, -1),
    7: lambda v: np.rot90(v, 2).swapaxes(0, 1),
    8: np.rot90,
}


def without_alpha(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        return values
    return values[..., :3] if values.shape[2] > 2 else values[..., 0]


def scaled(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.int8:
        return values.astype(int) + 128
    numbers = values.astype(float)
    return np.rint((numbers - numbers.min()) / max(np.ptp(numbers), 1e-9) * 255)


def make_folder(root: Path, files: Iterable[Path]) -> dict[str, Path]:
    """Write the set: the real files in train, beside generated pictures in all splits."""
    rng, names = np.random.default_rng(0), {}
    lines = ["file_name,y,sex,patient,part"]
    for i in range(48):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(root / f"made{i}.png")
        lines.append(f"made{i}.png,{i % 2},{'MF'[i // 2 % 2]},made{i},{SPLITS[i // 4 % 3]}")
    for i, path in enumerate(files):
        names[f"{i:04d}_{path.name}"] = path
        (root / f"{i:04d}_{path.name}").write_bytes(path.read_bytes())
        lines.append(f'"{i:04d}_{path.name}",{i % 2},{"MF"[i // 2 % 2]},real{i},train')
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return names


def prepared(root: Path) -> dict[str, np.ndarray]:
    table = load_dataset_table(
        "folder", root, label_column="y", sensitive_column="sex", patient_column="patient",
        split_column="part", image_size=SIDE, skip_corrupt=True, progress=False, cache=False,
    )  # fmt: skip
    return dict(zip(table.frame["row_id"], table.images, strict=True))


def reason(root: Path, name: str) -> str:
    try:
        FileSource(root / name, name).read(SIDE)
    except ImageError as error:
        return str(error)
    return "left out without a reason"


def judged(path: Path, found: np.ndarray, expect: Callable[[Path], np.ndarray]) -> str:
    try:
        due = np.asarray(np.clip(expect(path), 0, 255), dtype=np.uint8)
        picture = square(Image.fromarray(due).convert("RGB"), SIDE).astype(int)
    except Exception as error:
        return f"no other route ({str(error).splitlines()[0][:80] or type(error).__name__})"
    worst = int(np.abs(picture - found).max())
    return "agrees" if worst <= TOLERANCE else f"DIFFERS by up to {worst}"


def check(title: str, files: list[Path], expect: Callable[[Path], np.ndarray]) -> int:
    """Print what became of each file that does not agree, and the counts; return those that differ."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        names = make_folder(root, files)
        shown = prepared(root)
        for name, path in names.items():
            if name in shown:
                verdict = judged(path, shown[name], expect)
            else:
                verdict = f"refused: {reason(root, name)}"
            counts[verdict.split()[0].strip(":")] += 1
            if verdict != "agrees":
                print(f"{path.name}: {verdict}")
    print(
        f"{title}: {len(files)} files, {counts['agrees']} agree, {counts['refused']} are refused, "
        f"{counts['no']} have no other route, {counts['DIFFERS']} differ\n"
    )
    return counts["DIFFERS"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, help="folder with TIFF, PNG and PNM files")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    differ = check("DICOM files of pydicom", dicom_files(), expected_dicom)
    if options.pictures:
        files = images(options.pictures)
        differ += check(f"pictures below {options.pictures.name}", files, expected_picture)
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
