"""DICOM lookup tables: modality, VOI and palette, whole or in segments, of 8 or 16 bits.

Indices are int64 throughout. A table's entries may be narrower than the pixels that look them up;
an index that took the entries' type would wrap round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fairtune_hf.data.image_source import ImageError, Pixels

Numbers = npt.NDArray[np.float64]
COLOURS = ("Red", "Green", "Blue")
DISCRETE, LINEAR, INDIRECT = 0, 1, 2
"""How a segment of a segmented palette gives its entries (PS3.3 C.7.9.2)."""


@dataclass(frozen=True)
class Table:
    """Entries for the input values `first`, `first + 1`, ...; the ends serve all beyond them."""

    first: int
    entries: npt.NDArray[np.int64]
    bits: int

    @property
    def top(self) -> int:
        """The greatest value an entry may have: of 16 bits where entries exceed those named."""
        named = 2**self.bits - 1
        return named if int(self.entries.max()) <= named else 2**16 - 1

    def look_up(self, values: npt.NDArray[Any]) -> Numbers:
        """Return the entry of each value; values between two inputs take the nearer."""
        index = np.rint(values).astype(np.int64) - self.first
        found = self.entries[np.clip(index, 0, len(self.entries) - 1)]
        return np.asarray(found, dtype=np.float64)


def read_table(descriptor: Any, data: Any, *, big_endian: bool, lowest: float) -> Table:
    """Build a table from a LUT descriptor and its data.

    Args:
        descriptor: Number of entries (0 means 65536), first input value, bits of an entry.
        data: Numbers, or bytes in the file's order.
        big_endian: Whether the file's words are.
        lowest: The least value that may be looked up; below 0 the first input value is signed.

    Raises:
        ImageError: if the descriptor makes no sense, or the entries are fewer than it says.
    """
    count, first, bits = _descriptor(descriptor, lowest)
    words = _words(data, big_endian)
    entries = _bytes_of(words) if _is_packed(len(words), count, bits) else words
    return Table(first, _exactly(entries, count), bits)


def _descriptor(descriptor: Any, lowest: float) -> tuple[int, int, int]:
    told = [int(v) for v in descriptor] if descriptor is not None else []
    if len(told) != 3 or not 1 <= told[2] <= 16:
        raise ImageError(f"has a lookup table whose descriptor {told} is not three usable numbers")
    # Whether the writer called these 16 bits signed is often wrong; the values looked up decide.
    first = told[1] & 0xFFFF
    if lowest < 0 and first >= 0x8000:
        first -= 0x10000
    return (told[0] & 0xFFFF) or 65536, first, told[2]


def _words(data: Any, big_endian: bool) -> npt.NDArray[np.int64]:
    if data is None:
        raise ImageError("has a lookup table without its data")
    if isinstance(data, bytes | bytearray):
        whole = bytes(data[: len(data) // 2 * 2])
        return np.frombuffer(whole, dtype=">u2" if big_endian else "<u2").astype(np.int64)
    return np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF


def _is_packed(words: int, count: int, bits: int) -> bool:
    """Say whether two 8-bit entries share a word, rather than one having it to itself."""
    return bits <= 8 and words < count and words == (count + 1) // 2


def _bytes_of(words: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Split words into bytes; the first entry is the less significant, whatever the file's order."""
    return np.stack([words & 0xFF, words >> 8], axis=-1).ravel()


def _exactly(entries: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    if len(entries) < count:
        raise ImageError(f"has a lookup table of {len(entries)} entries where {count} were due")
    return entries[:count]


def has_palette(told: Any) -> bool:
    """Say whether a data set describes palette tables."""
    return "RedPaletteColorLookupTableDescriptor" in told


def read_palette(told: Any, *, big_endian: bool, lowest: float) -> tuple[Table, Table, Table]:
    """Read the red, green and blue table of a data set, whole or segmented.

    Raises:
        ImageError: if one is missing or broken.
    """
    red, green, blue = (_colour_table(told, c, big_endian, lowest) for c in COLOURS)
    return red, green, blue


def colours(tables: tuple[Table, Table, Table], values: npt.NDArray[Any]) -> Pixels:
    """Return the colours (..., 3) of palette indices, scaled to 0..255."""
    # One scale for all three: a table that happens to use few of its bits is not brightened.
    top = max(table.top for table in tables)
    shown = np.stack([table.look_up(values) for table in tables], axis=-1)
    return np.rint(shown / top * 255).astype(np.uint8)


def _colour_table(told: Any, colour: str, big_endian: bool, lowest: float) -> Table:
    name = f"{colour}PaletteColorLookupTable"
    descriptor = told.get(f"{name}Descriptor")
    if descriptor is None:
        raise ImageError(f"is PALETTE COLOR without its {colour.lower()} table's descriptor")
    data = told.get(f"{name}Data")
    if data is not None:
        return read_table(descriptor, data, big_endian=big_endian, lowest=lowest)
    segments = told.get(f"Segmented{name}Data")
    if segments is None:
        raise ImageError(f"is PALETTE COLOR without its {colour.lower()} table")
    count, first, bits = _descriptor(descriptor, lowest)
    words = _words(segments, big_endian)
    stream = (_bytes_of(words) if bits <= 8 else words).tolist()
    return Table(first, _exactly(np.asarray(_expand(stream, bits), dtype=np.int64), count), bits)


def _expand(stream: list[int], bits: int) -> list[int]:
    """Expand the segments of a segmented table to its entries."""
    entries: list[int] = []
    at = 0
    try:
        # A lone word at the end is padding: the shortest segment has three.
        while at + 2 < len(stream):
            if stream[at] == INDIRECT:
                at = _copy_segments(stream, at, bits, entries)
            else:
                at = _add_segment(stream, at, entries)
    except IndexError as error:
        raise ImageError("has a segmented palette that breaks off") from error
    return entries


def _add_segment(stream: list[int], at: int, entries: list[int]) -> int:
    """Add the entries of the segment at `at`; return where the next one begins."""
    kind, length = stream[at], stream[at + 1]
    if kind == DISCRETE:
        entries += stream[at + 2 : at + 2 + length]
        return at + 2 + length
    if kind != LINEAR or not entries or not length:
        raise ImageError(f"has a segmented palette with an impossible segment (kind {kind})")
    start, end = entries[-1], stream[at + 2]
    entries += [round(start + (end - start) * i / length) for i in range(1, length + 1)]
    return at + 3


def _copy_segments(stream: list[int], at: int, bits: int, entries: list[int]) -> int:
    """Repeat segments that an indirect one points to, by their place in bytes."""
    if bits <= 8:
        a, b, c, d = stream[at + 2 : at + 6]
        place, end = a | b << 8 | c << 16 | d << 24, at + 6
    else:
        place, end = (stream[at + 2] | stream[at + 3] << 16) // 2, at + 4
    for _ in range(stream[at + 1]):
        if stream[place] == INDIRECT:
            raise ImageError("has a segmented palette whose indirect segments lead to each other")
        place = _add_segment(stream, place, entries)
    return end
