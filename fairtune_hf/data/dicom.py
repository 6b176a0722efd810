"""One DICOM picture as 8-bit RGB: rescaled, windowed, MONOCHROME1 turned round.

pydicom is imported when the first such file comes; it is in the extra `dicom`.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fairtune_hf.data.images import ImageError, scale_to_uint8

PREAMBLE, MAGIC = 128, b"DICM"


def is_dicom(raw: bytes) -> bool:
    """Say whether the bytes are a DICOM file with its preamble."""
    return raw[PREAMBLE : PREAMBLE + 4] == MAGIC


def decode_dicom(raw: bytes) -> Image.Image:
    """Decode a DICOM file of one frame to an RGB image.

    Grey values are rescaled (slope and intercept) and windowed by the file's first window, or by
    their own range where it names none; padding counts as the darkest value.

    Raises:
        ImageError: if pydicom is not there, or the file holds no single frame it can decode.
    """
    try:
        import pydicom
        from pydicom.pixels import pixel_array
    except ImportError as error:
        raise ImageError("is DICOM, which needs pip install 'fairtune_hf[dicom]'") from error
    try:
        told = pydicom.dcmread(io.BytesIO(raw))
        if int(getattr(told, "NumberOfFrames", 1) or 1) > 1:
            raise ImageError(f"holds {told.NumberOfFrames} frames where one picture was expected")
        values = pixel_array(told)
        if values.ndim == 3:
            return Image.fromarray(scale_to_uint8(values, (0, 2 ** int(told.BitsStored) - 1)))
        return Image.fromarray(_grey(values, told)).convert("RGB")
    except ImageError:
        raise
    except Exception as error:
        # pydicom raises many kinds for damaged files and missing decoders.
        raise ImageError(f"cannot be decoded as DICOM ({error})") from error


def _grey(values: npt.NDArray[Any], told: Any) -> npt.NDArray[np.uint8]:
    slope = float(getattr(told, "RescaleSlope", 1) or 1)
    intercept = float(getattr(told, "RescaleIntercept", 0) or 0)
    padding = getattr(told, "PixelPaddingValue", None)
    numbers = values.astype(np.float64) * slope + intercept
    known = np.ones(values.shape, dtype=bool) if padding is None else values != padding
    if not known.any():
        raise ImageError("holds nothing but padding")
    bounds = _window(told) or (float(numbers[known].min()), float(numbers[known].max()))
    grey = scale_to_uint8(numbers, bounds)
    if told.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    grey[~known] = 0
    return grey


def _window(told: Any) -> tuple[float, float] | None:
    center, width = (_first(getattr(told, n, None)) for n in ("WindowCenter", "WindowWidth"))
    if center is None or width is None or width <= 1:
        return None
    # DICOM PS3.3 C.11.2.1.2: the linear function, whose window is one narrower than named.
    return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return (
        float(value[0])
        if hasattr(value, "__len__") and not isinstance(value, str)
        else float(value)
    )
