#!/usr/bin/env bash
# Pillow 12.3.0: an uncompressed YCbCr TIFF is read as if each pixel had four bytes, so that its colours are wrong or it is refused.
#
# TIFF allows YCbCr (photometric 6) without compression: three bytes a pixel where nothing is subsampled. The plugin maps
# every YCbCr file to the mode RGB with the raw mode RGBX, which is right for what libjpeg hands on and wrong for plain
# bytes. The decoder then takes four bytes a pixel from the strip's offset on, past its end. Where the file ends there the
# picture is refused as truncated (files that Pillow itself writes are), and where anything follows the pixels (the tags, which many
# writers put last; another page; padding) it is opened without a word and shows other colours. 13.0.0 reads it rightly.
#
# Seen: 12.3.0: alone: OSError; with 4096 bytes behind it: largest difference 254. 13.0.0: both 0.
# Exits 0 while this is so, 1 if it changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
for version in 12.3.0 13.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" -q install "pillow==$version" numpy==2.4.6 >&2
    "$folder/$version/bin/python" - <<'PY'
import io
import sys

import numpy as np
import PIL
from PIL import Image

rgb = np.random.default_rng(0).integers(0, 255, (40, 52, 3), dtype=np.uint8)
stored = Image.fromarray(rgb).convert("YCbCr")
right = np.asarray(stored.convert("RGB")).astype(int)
file = io.BytesIO()
stored.save(file, "TIFF")


def largest_difference(tail):
    try:
        image = Image.open(io.BytesIO(file.getvalue() + tail)).convert("RGB")
    except OSError:
        return "OSError"
    return int(np.abs(np.asarray(image) - right).max())


found = [largest_difference(b""), largest_difference(bytes(4096))]
print(f"Pillow {PIL.__version__}: alone: {found[0]}; with 4096 bytes behind it: largest difference {found[1]}")
expected = {"12.3.0": ["OSError", 254], "13.0.0": [0, 0]}
sys.exit(found != expected[PIL.__version__])
PY
done
