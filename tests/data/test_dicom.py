from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairtune_hf.data import load_dataset_table
from fairtune_hf.data.dicom import PACKAGES, decode_dicom
from fairtune_hf.data.folder_hf import HfSource
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.data.images import FileSource, decode_bytes

pydicom = pytest.importorskip("pydicom")

RAMP = np.asarray([[0, 500, 1000], [1500, 2000, 4000]], dtype=np.int16)


def grey(raw):
    return np.asarray(decode_dicom(raw))[..., 0].tolist()


def test_own_range_without_a_window(dicom):
    assert grey(dicom(RAMP)) == [[0, 32, 64], [96, 128, 255]]


def test_rescale_and_window(dicom):
    raw = dicom(
        RAMP,
        RescaleSlope=2,
        RescaleIntercept=-1000,
        WindowCenter=[1000.5, 40],
        WindowWidth=[2001, 8],
    )
    # Values -1000, 0, 1000, 2000, 3000, 7000 in the window 0..2000.
    assert grey(raw) == [[0, 0, 128], [255, 255, 255]]


def test_monochrome1_is_turned_round(dicom):
    assert grey(dicom(RAMP, "MONOCHROME1")) == [[255, 223, 191], [159, 127, 0]]


def test_padding_is_dark_and_not_part_of_the_range(dicom):
    padded = RAMP.copy()
    padded[1, 2] = -2000
    got = grey(dicom(padded, PixelPaddingValue=-2000))
    assert got == [[0, 64, 128], [191, 255, 0]]


def test_colour(dicom):
    values = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(decode_dicom(dicom(values, "RGB"))), values)


def test_damaged_and_multi_frame_are_refused(tmp_path, dicom):
    whole = dicom(RAMP)
    (tmp_path / "x.dcm").write_bytes(whole[:-4])
    with pytest.raises(ImageError, match="cannot be decoded as DICOM"):
        FileSource(tmp_path / "x.dcm", "x.dcm").read(8)
    (tmp_path / "x.dcm").write_bytes(bytes(128) + b"DICM" + b"noise" * 20)
    with pytest.raises(ImageError, match="cannot be decoded as DICOM"):
        FileSource(tmp_path / "x.dcm", "x.dcm").read(8)
    with pytest.raises(ImageError, match="holds 2 frames"):
        decode_dicom(dicom(np.stack([RAMP, RAMP]).reshape(4, 3), NumberOfFrames=2))


def test_a_folder_of_dicom_files(make_folder, columns, table_of, dicom):
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


# What pixels mean is said by elements beside them. WINDOW spans 0..4095 by LINEAR.
TWELVE = (np.arange(64).reshape(8, 8) * 65).astype(np.uint16)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}


def table(entries, first=0, bits=16, vr="US"):
    from pydicom.dataset import Dataset

    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    if vr == "US":
        item.add_new("LUTData", "US", [int(v) for v in entries])
    else:
        item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    return item


def turned(photometric, expected):
    return 255 - expected if photometric == "MONOCHROME1" else expected


def assert_grey(raw, expected, tolerance=1):
    found = np.asarray(decode_dicom(raw)).astype(int)
    assert (found[..., 0] == found[..., 2]).all()
    assert np.abs(found[..., 0] - np.asarray(expected)).max() <= tolerance


both = pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])


@both
@pytest.mark.parametrize("vr", ["US", "OW"])
def test_modality_table(dicom, photometric, vr):
    entries = 65535 - np.arange(4096) * 65535 // 4095
    raw = dicom(TWELVE, photometric, stored=12, ModalityLUTSequence=[table(entries, vr=vr)])
    assert_grey(raw, turned(photometric, 255 - TWELVE / 4095 * 255))


@both
def test_modality_table_of_signed_pixels(dicom, photometric):
    values = np.asarray([[-3, -2, -1], [0, 1, 9]], dtype=np.int16)
    raw = dicom(values, photometric, ModalityLUTSequence=[table([0, 50, 100, 200, 255], -2, 8)])
    assert_grey(raw, turned(photometric, np.asarray([[0, 0, 50], [100, 200, 255]])))


@both
def test_voi_table_goes_before_the_window(dicom, photometric):
    entries = (np.arange(4096) // 16)[::-1]
    raw = dicom(TWELVE, photometric, stored=12, VOILUTSequence=[table(entries, bits=8)], **WINDOW)
    assert_grey(raw, turned(photometric, (4095 - TWELVE.astype(int)) // 16))


def test_voi_table_after_rescale(dicom):
    # Values 0..4095 - 1024; the table begins at -1000 and holds 3 entries: the ends serve the rest.
    raw = dicom(
        np.asarray([[0, 24], [25, 4000]], dtype=np.uint16),
        stored=12,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        VOILUTSequence=[table([10, 20, 1023], first=65536 - 1000, bits=10)],
    )
    assert_grey(raw, [[2, 2], [5, 255]])


def test_voi_table_of_8_bits_packed_in_words(dicom):
    item = table([0] * 256, bits=8)
    item.add_new("LUTData", "OW", bytes(range(255, -1, -1)))
    values = np.arange(256, dtype=np.uint16).reshape(16, 16)
    assert_grey(dicom(values, stored=12, VOILUTSequence=[item]), 255 - values.astype(int), 0)


@both
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_the_three_window_functions(dicom, photometric, function):
    center, width, x = 2000.0, 300.0, TWELVE.astype(float)
    expected = {
        "LINEAR": ((x - (center - 0.5)) / (width - 1) + 0.5) * 255,
        "LINEAR_EXACT": ((x - center) / width + 0.5) * 255,
        "SIGMOID": 255 / (1 + np.exp(-4 * (x - center) / width)),
    }[function]
    tags = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": function}
    raw = dicom(TWELVE, photometric, stored=12, **tags)
    assert_grey(raw, turned(photometric, np.rint(np.clip(expected, 0, 255))))


@both
def test_a_window_of_width_1_is_a_step(dicom, photometric):
    values = np.asarray([[999, 1000], [1001, 4000]], dtype=np.uint16)
    raw = dicom(values, photometric, WindowCenter=1000, WindowWidth=1)
    assert_grey(raw, turned(photometric, np.asarray([[0, 255], [255, 255]])), 0)


def test_an_unknown_window_function_is_refused(dicom):
    with pytest.raises(ImageError, match="the VOI LUT function 'CUBIC' where LINEAR"):
        decode_dicom(dicom(TWELVE, VOILUTFunction="CUBIC", **WINDOW))


@both
@pytest.mark.parametrize(("one", "limit"), [(-2000, -1500), (-1500, -2000)])
def test_padding_range(dicom, photometric, one, limit):
    values = np.asarray([[-2000, -1700, -1500], [0, 100, 200]], dtype=np.int16)
    raw = dicom(values, photometric, PixelPaddingValue=one, PixelPaddingRangeLimit=limit)
    expected = turned(photometric, np.asarray([[0, 0, 0], [0, 128, 255]]))
    expected[0] = 0
    assert_grey(raw, expected)


def test_padding_written_without_its_sign(dicom):
    values = np.asarray([[-2000, 0], [100, 200]], dtype=np.int16)
    raw = dicom(values)
    from pydicom import dcmread

    told = dcmread(io.BytesIO(raw))
    told.add_new("PixelPaddingValue", "US", 65536 - 2000)
    buffer = io.BytesIO()
    told.save_as(buffer)
    assert_grey(buffer.getvalue(), [[0, 0], [128, 255]])


def enhanced(**groups):
    from pydicom.dataset import Dataset

    frame = Dataset()
    for name, tags in groups.items():
        item = Dataset()
        for key, value in tags.items():
            setattr(item, key, value)
        setattr(frame, name, [item])
    return [frame]


@both
@pytest.mark.parametrize("where", ["per frame", "shared", "top"])
def test_functional_groups_of_one_frame(dicom, photometric, where):
    own = {"WindowCenter": 1000, "WindowWidth": 500, "VOILUTFunction": "LINEAR_EXACT"}
    slope = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    mine = enhanced(FrameVOILUTSequence=own, PixelValueTransformationSequence=slope)
    other = enhanced(
        FrameVOILUTSequence={"WindowCenter": 1, "WindowWidth": 2},
        PixelValueTransformationSequence={"RescaleSlope": 1, "RescaleIntercept": 0},
    )
    tags = {
        "per frame": {
            "PerFrameFunctionalGroupsSequence": mine,
            "SharedFunctionalGroupsSequence": other,
            **WINDOW,
        },
        "shared": {"SharedFunctionalGroupsSequence": mine, **WINDOW},
        "top": {"SharedFunctionalGroupsSequence": enhanced(), **own, **slope},
    }[where]
    raw = dicom(TWELVE, photometric, stored=12, NumberOfFrames=1, **tags)
    expected = np.rint(np.clip((TWELVE * 2.0 - 1024 - 1000) / 500 + 0.5, 0, 1) * 255)
    assert_grey(raw, turned(photometric, expected))


@pytest.mark.parametrize("planar", [0, 1])
def test_ybr_is_turned_to_rgb(dicom, planar):
    values = np.random.default_rng(1).integers(60, 190, (4, 6, 3), dtype=np.uint8)
    stored = np.ascontiguousarray(np.moveaxis(values, -1, 0)) if planar else values
    raw = dicom(values, "YBR_FULL", PlanarConfiguration=planar, PixelData=stored.tobytes())
    y, b, r = (values[..., i].astype(float) for i in range(3))
    b, r = b - 128, r - 128
    expected = np.stack([y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b], -1)
    found = np.asarray(decode_dicom(raw)).astype(int)
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 1


def test_other_colour_spaces_are_refused(dicom):
    values = np.zeros((4, 6, 3), dtype=np.uint8)
    with pytest.raises(ImageError, match="photometric interpretation HSV"):
        decode_dicom(dicom(values, "HSV"))


@pytest.mark.parametrize("how", ["implicit", "big", "deflated"])
def test_other_ways_of_writing_the_same(dicom, how):
    signed = TWELVE.astype(np.int16) - 1024
    raw = dicom(signed, syntax=how, RescaleSlope=1, RescaleIntercept=1024, **WINDOW)
    assert_grey(raw, TWELVE / 4095 * 255)


def test_without_a_preamble(dicom, tmp_path):
    whole = dicom(TWELVE, stored=12, **WINDOW)
    for bare in (whole[132:], whole[132 + 12 + whole[140] :]):
        assert_grey(bare, TWELVE / 4095 * 255)
        (tmp_path / "x.dcm").write_bytes(bare)
        FileSource(tmp_path / "x.dcm", "x.dcm").read(8)
    with pytest.raises(ImageError, match="not a picture that Pillow knows, nor DICOM"):
        decode_bytes(b"\x08\0\x08\0 some notes that begin like an element")


def test_a_missing_decoder_names_the_packages(dicom):
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGLosslessSV1

    decoder = get_decoder(JPEGLosslessSV1)
    there = [n for n in ("gdcm", "pylibjpeg") if n in decoder.available_plugins]
    for name in there:
        decoder.remove_plugin(name)
    try:
        with pytest.raises(ImageError) as caught:
            decode_dicom(dicom(TWELVE, syntax=JPEGLosslessSV1, PixelData=encapsulate([b"x" * 8])))
    finally:
        for name in there:
            decoder.add_plugin(name, (f"pydicom.pixels.decoders.{name}", "_decode_frame"))
    message = str(caught.value)
    assert "needs python-gdcm: pip install 'fairtune_hf[dicom]'" in message
    assert "JPEG-LS, JPEG 2000" in message


def test_a_transfer_syntax_that_nothing_reads(dicom):
    from pydicom.encaps import encapsulate
    from pydicom.uid import MPEG2MPML

    with pytest.raises(ImageError, match=r"transfer syntax MPEG2 .* is not read; uncompressed"):
        decode_dicom(dicom(TWELVE, syntax=MPEG2MPML, PixelData=encapsulate([b"x" * 8])))


def test_the_same_bytes_from_a_datasets_folder(dicom, tmp_path):
    datasets = pytest.importorskip("datasets")
    raw = dicom(TWELVE, stored=12, **WINDOW)
    features = datasets.Features({"image": datasets.Image(decode=False)})
    data = datasets.Dataset.from_dict({"image": [{"bytes": raw, "path": None}]}, features=features)
    image, _ = HfSource(data, "image", 0, "row", "mark").read(8)
    (tmp_path / "x.dcm").write_bytes(raw)
    np.testing.assert_array_equal(image, FileSource(tmp_path / "x.dcm", "x.dcm").read(8)[0])


def test_the_extra_reads_every_syntax_it_names():
    from pydicom.pixels import get_decoder

    for name in ("gdcm", "openjpeg"):
        pytest.importorskip(name)
    for syntax, packages in PACKAGES.items():
        assert get_decoder(syntax).is_available, (syntax, packages)


def test_12_bits_of_jpeg_name_the_decoder_that_the_extra_leaves_out():
    from pydicom.data import get_testdata_file

    if importlib.util.find_spec("libjpeg"):
        pytest.skip("pylibjpeg-libjpeg is here and reads it")
    raw = Path(get_testdata_file("JPGExtended.dcm")).read_bytes()
    with pytest.raises(ImageError, match=r"12-bit precision\).*pylibjpeg-libjpeg \(under the GPL"):
        decode_dicom(raw)
