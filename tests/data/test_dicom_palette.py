"""PALETTE COLOR and supplemental palettes, against colours written down by hand."""

from __future__ import annotations

import numpy as np
import pytest

from fairtune_hf.data.dicom import decode_dicom
from fairtune_hf.data.image_source import ImageError

COLOURS = np.asarray([[0, 0, 0], [255, 0, 0], [0, 255, 0], [60, 60, 255], [9, 8, 7]])
NAMES = ("Red", "Green", "Blue")
INDEX = (np.arange(64).reshape(8, 8) % 5).astype(np.uint8)


def palette(entries, *, first=0, bits=16, order="<", packed=False, vr="OW"):
    tags = {}
    for channel, name in enumerate(NAMES):
        values = [int(v) for v in entries[:, channel]]
        scaled = [v * 257 for v in values] if bits == 16 else values
        words = np.asarray(scaled, dtype="<u2")
        if packed:
            words = np.frombuffer(bytes(values + [0] * (len(values) % 2)), dtype="<u2")
        descriptor = [len(entries) % 65536, first, bits]
        tags[f"{name}PaletteColorLookupTableDescriptor"] = descriptor
        tags[f"{name}PaletteColorLookupTableData"] = words.astype(order + "u2").tobytes()
    return tags


def shown(raw):
    return np.asarray(decode_dicom(raw)).astype(int)


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "big"])
@pytest.mark.parametrize(("bits", "packed"), [(16, False), (8, False), (8, True)])
def test_entries_of_any_width_and_order(dicom, syntax, bits, packed):
    tags = palette(COLOURS, bits=bits, packed=packed, order=">" if syntax == "big" else "<")
    raw = dicom(INDEX.astype(np.uint16), "PALETTE COLOR", syntax=syntax, **tags)
    np.testing.assert_array_equal(shown(raw), COLOURS[INDEX])


def test_a_first_value_with_a_sign(dicom):
    tags = palette(COLOURS, first=-2)
    raw = dicom(INDEX.astype(np.int16) - 2, "PALETTE COLOR", **tags)
    np.testing.assert_array_equal(shown(raw), COLOURS[INDEX])


def test_indices_beyond_the_table_take_its_ends(dicom):
    values = np.asarray([[0, 9, 10], [14, 15, 300]], dtype=np.uint16)
    raw = dicom(values, "PALETTE COLOR", **palette(COLOURS, first=10, bits=8))
    np.testing.assert_array_equal(shown(raw), COLOURS[[[0, 0, 0], [4, 4, 4]]])


def test_a_table_of_65536_entries(dicom):
    entries = np.stack([np.arange(65536) // 256] * 3, axis=-1)
    values = np.asarray([[0, 256], [40000, 65535]], dtype=np.uint16)
    raw = dicom(values, "PALETTE COLOR", **palette(entries))
    np.testing.assert_array_equal(shown(raw)[..., 0], [[0, 1], [156, 255]])


def segmented(stream, count, bits, order="<"):
    words = np.asarray(stream, dtype="<u2")
    if bits == 8:
        words = np.frombuffer(bytes(stream + [0] * (len(stream) % 2)), dtype="<u2")
    tags = {}
    for name in NAMES:
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [count, 0, bits]
        tags[f"Segmented{name}PaletteColorLookupTableData"] = words.astype(order + "u2").tobytes()
    return tags


@pytest.mark.parametrize("syntax", ["explicit", "big"])
@pytest.mark.parametrize("bits", [8, 16])
def test_segments(dicom, syntax, bits):
    # Two entries as they are, a line of four to 100, then the line once more (by its place in
    # bytes), which goes from 100 to 100.
    width = 1 if bits == 8 else 2
    place = [4 * width, 0, 0, 0] if bits == 8 else [4 * width, 0]
    scale = 1 if bits == 8 else 257
    stream = [0, 2, 10 * scale, 20 * scale, 1, 4, 100 * scale, 2, 1, *place]
    tags = segmented(stream, 10, bits, ">" if syntax == "big" else "<")
    values = np.arange(10, dtype=np.uint16).reshape(2, 5)
    raw = dicom(values, "PALETTE COLOR", syntax=syntax, **tags)
    assert shown(raw)[..., 1].tolist() == [[10, 20, 40, 60, 80], [100] * 5]


@pytest.mark.parametrize("left_out", ["Descriptor", "Data"])
def test_without_a_table_it_is_an_error(dicom, left_out):
    tags = palette(COLOURS)
    del tags[f"GreenPaletteColorLookupTable{left_out}"]
    with pytest.raises(ImageError, match="is PALETTE COLOR without its green table"):
        decode_dicom(dicom(INDEX, "PALETTE COLOR", **tags))


def test_a_table_that_breaks_off_is_an_error(dicom):
    tags = palette(COLOURS)
    tags["BluePaletteColorLookupTableData"] = bytes(6)
    with pytest.raises(ImageError, match="of 3 entries where 5 were due"):
        decode_dicom(dicom(INDEX, "PALETTE COLOR", **tags))


@pytest.mark.parametrize(("presentation", "coloured"), [("MIXED", True), ("MONOCHROME", False)])
def test_a_supplemental_palette_colours_values_from_its_first(dicom, presentation, coloured):
    values = np.asarray([[0, 50], [100, 101]], dtype=np.uint16)
    window = {"WindowCenter": 50.5, "WindowWidth": 101}
    tags = palette(COLOURS[1:3], first=100)
    raw = dicom(values, PixelPresentation=presentation, **tags, **window)
    grey = [[0, 0, 0], [128, 128, 128]]
    rest = [[255, 0, 0], [0, 255, 0]] if coloured else [[255, 255, 255]] * 2
    assert np.abs(shown(raw) - [grey, rest]).max() <= 1
