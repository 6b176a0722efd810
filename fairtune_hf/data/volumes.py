"""A volume among the pictures (NIfTI, MGH): its middle axial slice.

The rule needs no setting: the volume is turned to the nearest axes right, anterior, superior; the
middle slice from below to above is cut, anterior up, the person's left on the left; grey follows
the percentiles of all finite voxels.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairtune_hf.data.array_files import volume_to_uint8
from fairtune_hf.data.image_source import ImageError

GZIP = b"\x1f\x8b"
HEADER = 352
MAX_BYTES = 2**31
"""A volume that unpacks to more is refused, as a picture of too many pixels is."""
SUFFIXES = (".nii", ".nii.gz", ".mgh", ".mgz")
RULE = (
    "the middle axial slice of each is used (nearest right, anterior, superior axes; anterior up, "
    "the person's left on the left), scaled by the percentiles 0.5 and 99.5 of the volume"
)


def told_of_volumes(names: Iterable[str]) -> list[str]:
    """Return what a data set with volumes among its pictures says about them."""
    count = sum(str(name).lower().endswith(SUFFIXES) for name in names)
    return [f"{count} of the pictures are volumes: {RULE}"] if count else []


def is_volume(raw: bytes) -> bool:
    """Say whether the bytes are a NIfTI or MGH file, packed by gzip or not."""
    return _kind(_start(raw)) is not None


def _start(raw: bytes) -> bytes:
    if raw[:2] != GZIP:
        return raw[:HEADER]
    try:
        return zlib.decompressobj(wbits=31).decompress(raw, HEADER)
    except zlib.error:
        return b""


def _kind(start: bytes) -> str | None:
    if start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2"):
        return "nifti1" if start[344:346] in (b"n+", b"ni") else "nifti2"
    # Version 1, big endian, then width, height, depth: MGH has no magic.
    return "mgh" if start[:4] == b"\0\0\0\x01" and len(start) >= 284 else None


def middle_slice(raw: bytes) -> Image.Image:
    """Return the middle axial slice of a volume as a grey RGB picture.

    Raises:
        ImageError: if nibabel is not there, or it is no volume of three dimensions.
    """
    try:
        import nibabel
    except ImportError as error:
        raise ImageError(
            "is a volume (NIfTI or MGH), which needs pip install 'fairtune_hf[volumes]'"
        ) from error
    try:
        found = _opened(raw, nibabel)
        if len(found.shape) < 3 or any(n != 1 for n in found.shape[3:]):
            raise ImageError(f"holds {found.shape} voxels where a volume of three axes was due")
        volume = np.asarray(nibabel.as_closest_canonical(found).dataobj)
    except ImageError:
        raise
    except Exception as error:
        # nibabel raises many kinds: ImageFileError, HeaderDataError, EOFError, zlib errors.
        raise ImageError(f"cannot be read as a volume ({error})") from error
    return Image.fromarray(_cut(volume)).convert("RGB")


def _cut(volume: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    grey = volume_to_uint8(volume.reshape(volume.shape[:3]))
    return np.ascontiguousarray(np.rot90(grey[:, :, grey.shape[2] // 2]))


def _opened(raw: bytes, nibabel: Any) -> Any:
    if raw[:2] == GZIP:
        with gzip.open(io.BytesIO(raw)) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ImageError(f"unpacks to more than {MAX_BYTES} bytes")
    kind = _kind(raw[:HEADER])
    if raw[344:347] == b"ni1" or raw[4:7] == b"ni2":
        raise ImageError("is the header of a NIfTI pair; save header and voxels as one .nii file")
    kinds = {"nifti1": "Nifti1Image", "nifti2": "Nifti2Image", "mgh": "MGHImage"}
    return getattr(nibabel, kinds[str(kind)]).from_bytes(raw)
