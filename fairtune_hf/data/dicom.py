"""One DICOM picture as 8-bit RGB: palette, tables, windows and padding as the file says.

pydicom is imported when the first such file comes; it is in the extra `dicom`, with the decoders
of compressed pixels whose licence is not the GPL.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairtune_hf.data.dicom_grey import PER_FRAME, SHARED, Encoding, grey_pixels
from fairtune_hf.data.dicom_tables import colours, has_palette, read_palette
from fairtune_hf.data.image_source import ImageError, Pixels, scale_to_uint8

PREAMBLE, MAGIC = 128, b"DICM"
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
"""How a file without a preamble begins: the group of its first element, in either byte order."""
PACKAGES = {
    "1.2.840.10008.1.2.4.50": "pillow or python-gdcm",
    "1.2.840.10008.1.2.4.51": "pillow or python-gdcm for 8 bits, pylibjpeg pylibjpeg-libjpeg (under "
    "the GPL, so not in the extra) for 12",
    "1.2.840.10008.1.2.4.57": "python-gdcm",
    "1.2.840.10008.1.2.4.70": "python-gdcm",
    "1.2.840.10008.1.2.4.80": "python-gdcm",
    "1.2.840.10008.1.2.4.81": "python-gdcm",
    "1.2.840.10008.1.2.4.90": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg pylibjpeg-openjpeg",
}
"""Compressed transfer syntaxes that can be read, and the packages that decode each."""
READ = (
    "uncompressed, big endian, deflated, RLE, JPEG baseline, extended and lossless, JPEG-LS, "
    "JPEG 2000 and HTJ2K"
)
GREY = ("MONOCHROME1", "MONOCHROME2")
SUPPLEMENTED = ("COLOR", "MIXED")


def is_dicom(raw: bytes) -> bool:
    """Say whether the bytes are a DICOM file, with its preamble or, as older archives, without."""
    return raw[PREAMBLE : PREAMBLE + 4] == MAGIC or _has_bare_header(raw)


def _has_bare_header(raw: bytes) -> bool:
    if raw[:2] not in FIRST_GROUPS:
        return False
    try:
        import pydicom

        told = pydicom.dcmread(io.BytesIO(raw), force=True, stop_before_pixels=True)
        return "Rows" in told and "Columns" in told
    except ImportError:
        # An element (group 2 or 8, number 0 to 255): enough to name the package to install.
        return raw[3] == 0 if raw[:2] != FIRST_GROUPS[2] else raw[2] == 0
    except Exception:
        # pydicom raises many kinds for what is no DICOM; Pillow has its say next.
        return False


def decode_dicom(raw: bytes) -> Image.Image:
    """Decode a DICOM file of one frame to an RGB image.

    Grey: the modality table or slope and intercept, then the first VOI table, else the first
    window (LINEAR, LINEAR_EXACT, SIGMOID), else the values' own range; MONOCHROME1 turned round;
    padding black. A palette gives its colours, YBR is turned to RGB.

    Raises:
        ImageError: if pydicom or a decoder is not there, or the file holds no single frame it can
            decode.
    """
    try:
        import pydicom
    except ImportError as error:
        raise ImageError("is DICOM, which needs pip install 'fairtune_hf[dicom]'") from error
    try:
        told = pydicom.dcmread(io.BytesIO(raw), force=raw[PREAMBLE : PREAMBLE + 4] != MAGIC)
        if int(told.get("NumberOfFrames") or 1) > 1:
            raise ImageError(
                f"holds {told.NumberOfFrames} frames where one picture was expected; save the one "
                "that is meant as a file of its own"
            )
        return Image.fromarray(_pixels(told))
    except ImageError:
        raise
    except Exception as error:
        # pydicom raises many kinds for damaged files.
        raise ImageError(f"cannot be decoded as DICOM ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _pixels(told: Any) -> Pixels:
    values, kind = _decoded(told)
    encoding = Encoding(
        big_endian=not told.original_encoding[1],
        signed=bool(told.get("PixelRepresentation", 0)),
        bits=int(told.get("BitsStored") or told.BitsAllocated),
    )
    if kind == "PALETTE COLOR":
        tables = read_palette(told, big_endian=encoding.big_endian, lowest=encoding.lowest)
        return colours(tables, values)
    if kind == "RGB":
        if encoding.signed:
            raise ImageError("is RGB with signed values, which DICOM does not define")
        return scale_to_uint8(values, (0, 2**encoding.bits - 1))
    if kind not in GREY or values.ndim != 2:
        raise ImageError(
            f"has the photometric interpretation {kind}; MONOCHROME1 and 2, PALETTE COLOR, RGB, "
            "YBR_FULL, YBR_FULL_422, YBR_ICT and YBR_RCT are read"
        )
    grey = np.stack([grey_pixels(values, told, encoding)] * 3, axis=-1)
    return _supplemented(grey, values, told, encoding)


def _supplemented(grey: Pixels, values: npt.NDArray[Any], told: Any, encoding: Encoding) -> Pixels:
    """Colour what a supplemental palette is for: stored values from its first on (C.7.6.19)."""
    if not has_palette(told) or _presentation(told) not in SUPPLEMENTED:
        return grey
    tables = read_palette(told, big_endian=encoding.big_endian, lowest=encoding.lowest)
    coloured = values >= tables[0].first
    return np.where(coloured[..., None], colours(tables, values), grey)


def _presentation(told: Any) -> str:
    """Return the pixel presentation of the frame, else of the file."""
    for groups in (PER_FRAME, SHARED):
        for frame in list(told.get(groups) or [])[:1]:
            # The sequence is named by the kind of image: MRImageFrameTypeSequence, CT..., PET...
            for element in frame:
                items = element.value if element.VR == "SQ" else []
                if element.keyword.endswith("FrameTypeSequence") and items:
                    return str(items[0].get("PixelPresentation", ""))
    return str(told.get("PixelPresentation", ""))


def _decoded(told: Any) -> tuple[npt.NDArray[Any], str]:
    """Return the frame's values and the photometric interpretation they have once decoded."""
    from pydicom.pixels import get_decoder

    syntax = _transfer_syntax(told)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageError(
            f"is DICOM in the transfer syntax {syntax.name}, which is not read; {READ} are"
        ) from error
    if not decoder.is_available:
        raise ImageError(_needs(syntax))
    try:
        values, meta = decoder.as_array(told)
    except RuntimeError as error:
        if str(syntax) in PACKAGES:
            raise ImageError(
                f"is DICOM compressed as {syntax.name} and the decoders here cannot read it "
                f"({str(error).strip().splitlines()[-1].strip()[:100]}). It is read by "
                f"{PACKAGES[str(syntax)]}, unless it is damaged"
            ) from error
        raise
    return values, str(meta["photometric_interpretation"])


def _needs(syntax: Any) -> str:
    """Name what decodes a transfer syntax, and what the extra reads in all."""
    return (
        f"is DICOM compressed as {syntax.name}, which needs {PACKAGES[str(syntax)]}: "
        f"pip install 'fairtune_hf[dicom]'. With it {READ} are read"
    )


def _transfer_syntax(told: Any) -> Any:
    """Return the transfer syntax, from how the elements are written where none is named."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    meta = getattr(told, "file_meta", None) or FileMetaDataset()
    syntax = meta.get("TransferSyntaxUID")
    if syntax:
        return syntax
    if "PixelData" in told and told["PixelData"].is_undefined_length:
        raise ImageError(
            "is DICOM with compressed pixels and no transfer syntax that says how; export it again"
        )
    implicit, little = told.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    told.file_meta = meta
    return meta.TransferSyntaxUID
