#!/usr/bin/env bash
# Pillow 13.0.0 reads a big-endian TIFF of signed 16-bit, signed 32-bit or floating point grey rightly
# while it is uncompressed, and with the bytes of every value the wrong way round once it is
# compressed (here: Deflate), without an error or a warning. libtiff has put the values into the
# machine's order by then, and Pillow swaps them again. Unsigned 16 bits are right both ways, which
# makes it hard to notice. Such files are what microscopes' and scanners' software writes ("MM").
#
# Seen on a little-endian machine:
#   int16   uncompressed [-3, 0, 1, 258]            deflated [-513, 0, 256, 513]
#   int32   uncompressed [-3, 0, 1, 258]            deflated [-33554433, 0, 16777216, 33619968]
#   float32 uncompressed [-3.0, 0.0, 1.0, 258.0]    deflated [2.3e-41, 0.0, 4.6e-41, 4.6e-41]
#   uint16  uncompressed [3, 0, 1, 258]             deflated [3, 0, 1, 258]
#
# Exit 0 while it is so, 1 once it is not.
set -eu
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install -q --disable-pip-version-check pillow==13.0.0 numpy==2.4.6
"$T/venv/bin/python" - <<'PY'
import io
import struct
import sys
import zlib

import numpy as np
from PIL import Image


def tiff(values, kind, deflated):
    """A big-endian TIFF of one strip, as the TIFF 6.0 specification has it."""
    data = values.astype(values.dtype.newbyteorder(">")).tobytes()
    data = zlib.compress(data) if deflated else data
    tags = [
        (256, values.shape[1]), (257, values.shape[0]), (258, 8 * values.itemsize),
        (259, 8 if deflated else 1), (262, 1), (273, 8 + 2 + 12 * 10 + 4), (277, 1),
        (278, values.shape[0]), (279, len(data)), (339, kind),
    ]
    entries = b"".join(struct.pack(">HHII", tag, 4, 1, value) for tag, value in tags)
    return b"MM" + struct.pack(">HIH", 42, 8, len(tags)) + entries + bytes(4) + data


as_stated = True
for dtype, kind in (("int16", 2), ("int32", 2), ("float32", 3), ("uint16", 1)):
    values = np.asarray([[3 if dtype == "uint16" else -3, 0, 1, 258]], dtype=dtype)
    plain, packed = (
        np.asarray(Image.open(io.BytesIO(tiff(values, kind, d)))).astype(values.dtype)
        for d in (False, True)
    )
    print(f"{dtype:8} uncompressed {plain[0].tolist()}  deflated {packed[0].tolist()}")
    wrong = values if dtype == "uint16" else values.byteswap()
    same = np.array_equal(plain, values) and np.array_equal(
        packed.view(np.uint8), np.ascontiguousarray(wrong).view(np.uint8)
    )
    as_stated &= bool(same)
sys.exit(not as_stated)
PY
