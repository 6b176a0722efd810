"""From stored DICOM values to grey: modality table or rescale, VOI table or window, padding.

What describes one frame may lie in the functional groups of an enhanced file; it is looked for
there first (per frame, then shared), then at the top (PS3.3 C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairtune_hf.data.dicom_tables import Numbers, Table, read_table
from fairtune_hf.data.image_source import ImageError, Pixels

PER_FRAME, SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
TRANSFORMATION, VOI = "PixelValueTransformationSequence", "FrameVOILUTSequence"


@dataclass(frozen=True)
class Encoding:
    """How a file's numbers are written."""

    big_endian: bool
    signed: bool
    bits: int

    @property
    def lowest(self) -> float:
        """The least value a pixel can have."""
        return -(2.0 ** (self.bits - 1)) if self.signed else 0.0


def grey_pixels(values: npt.NDArray[Any], told: Any, encoding: Encoding) -> Pixels:
    """Return the grey picture of one frame's stored values; padding is black.

    Raises:
        ImageError: if nothing but padding is there, or a table or window makes no sense.
    """
    known = ~padding(values, told, encoding)
    if values.dtype.kind == "f":
        known &= np.isfinite(values)
    if not known.any():
        raise ImageError("holds nothing but padding")
    numbers, lowest = rescaled(values.astype(np.float64), told, encoding)
    numbers = np.where(known, numbers, numbers[known].min())
    share = shown(numbers, told, encoding, lowest)
    if share is None:
        share = _between(numbers, float(numbers.min()), float(numbers.max()))
    grey: Pixels = np.rint(share * 255).astype(np.uint8)
    if told.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    grey[~known] = 0
    return grey


def padding(values: npt.NDArray[Any], told: Any, encoding: Encoding) -> npt.NDArray[np.bool_]:
    """Say which stored values are padding: one value, or all from it to the range limit."""
    one = _number(told, "PixelPaddingValue")
    if one is None:
        return np.zeros(values.shape, dtype=bool)
    other = _number(told, "PixelPaddingRangeLimit")
    ends = [_as_stored(v, encoding) for v in (one, one if other is None else other)]
    return np.asarray((values >= min(ends)) & (values <= max(ends)))


def _as_stored(value: float, encoding: Encoding) -> float:
    """Read 16 bits as the pixels are, whatever sign the writer gave them."""
    if encoding.signed and value >= 2**15 and encoding.bits <= 16:
        return value - 2**16
    return value + 2**16 if not encoding.signed and value < 0 else value


def _read_item(item: Any, encoding: Encoding, lowest: float) -> Table:
    """Read the table of a LUT sequence's item."""
    return read_table(
        item.get("LUTDescriptor"),
        item.get("LUTData"),
        big_endian=encoding.big_endian,
        lowest=lowest,
    )


def rescaled(values: Numbers, told: Any, encoding: Encoding) -> tuple[Numbers, float]:
    """Apply the modality table, or slope and intercept; also return the least value possible."""
    for scope in _scopes(told, TRANSFORMATION):
        if scope.get("ModalityLUTSequence"):
            table = _read_item(scope.ModalityLUTSequence[0], encoding, encoding.lowest)
            return table.look_up(values), 0.0
        slope, intercept = _number(scope, "RescaleSlope"), _number(scope, "RescaleIntercept")
        if slope is not None or intercept is not None:
            slope, intercept = slope or 1.0, intercept or 0.0
            ends = (encoding.lowest, encoding.lowest + 2.0**encoding.bits - 1)
            return values * slope + intercept, min(end * slope + intercept for end in ends)
    return values, encoding.lowest


def shown(numbers: Numbers, told: Any, encoding: Encoding, lowest: float) -> Numbers | None:
    """Apply the first VOI table, else the first window, as shares in [0, 1]; None without one."""
    for scope in _scopes(told, VOI):
        if scope.get("VOILUTSequence"):
            table = _read_item(scope.VOILUTSequence[0], encoding, lowest)
            return table.look_up(numbers) / table.top
        center, width = _number(scope, "WindowCenter"), _number(scope, "WindowWidth")
        # Writers that know no window put a width of 0; it is as good as none.
        if center is not None and width is not None and width > 0:
            return windowed(numbers, center, width, str(scope.get("VOILUTFunction") or "LINEAR"))
    return None


def windowed(numbers: Numbers, center: float, width: float, function: str = "LINEAR") -> Numbers:
    """Map a window to [0, 1] by one of the three functions of PS3.3 C.11.2.1.2 and C.11.2.1.3.

    A width below 1, which LINEAR does not allow, is taken as LINEAR_EXACT.

    Raises:
        ImageError: if the function has another name.
    """
    name = function.strip().upper()
    if name == "SIGMOID":
        # The exponent is held where exp cannot overflow; beyond it the share is 0 or 1 anyway.
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (numbers - center) / width, -700, 700))))
    if name not in ("LINEAR", "LINEAR_EXACT"):
        raise ImageError(
            f"has the VOI LUT function {function!r} where LINEAR, LINEAR_EXACT or SIGMOID was due"
        )
    if name == "LINEAR" and width >= 1:
        # This function's window is one narrower than named, and half a step to the left.
        center, width = center - 0.5, width - 1
    return _between(numbers, center - width / 2, center + width / 2)


def _between(numbers: Numbers, low: float, high: float) -> Numbers:
    """Return shares of the way from `low` to `high`; where they are one, a step just above it."""
    if high > low:
        return np.asarray(np.clip((numbers - low) / (high - low), 0.0, 1.0))
    return (numbers > low).astype(np.float64)


def _scopes(told: Any, group: str) -> Iterator[Any]:
    for name in (PER_FRAME, SHARED):
        for frame in list(told.get(name) or [])[:1]:
            yield from list(frame.get(group) or [])[:1]
    yield told


def _number(scope: Any, name: str) -> float | None:
    """Return the first value of an element as a number; None if it is empty or not there."""
    value = scope.get(name)
    if value is None or value == "":
        return None
    if hasattr(value, "__len__") and not isinstance(value, str | bytes):
        return float(value[0]) if len(value) else None
    return float(value)
