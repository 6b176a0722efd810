#!/usr/bin/env bash
# Pillow 12.3.0: `Image.resize(size, box=box)` reads pixels outside the box. The filter of the outermost
# pixels of the result reaches over the box's edge into the picture, so what was cut away (a ruler, a hand, a
# black frame, a burnt-in name) bleeds in, and `crop(box).resize(size)` gives other pixels there. Nothing in
# the documentation says so ("the source image region to be scaled"). No image processor of transformers can
# repeat it: all crop first or resize first, so scores of pictures that are not square differ between a
# training that used `box` and the same model behind `pipeline`.
#
# Seen, for a black square of 48 px between white margins of 8 px, made 16 px (first row):
#   box             [28, 0, ..., 0, 28]
#   crop and resize [0, 0, ..., 0, 0]
#
# Exit 0 while it is so, 1 once it is not.
set -eu
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install -q --disable-pip-version-check pillow==12.3.0 numpy==2.4.6
"$T/venv/bin/python" - <<'PY'
import sys

import numpy as np
from PIL import Image

values = np.zeros((48, 64), np.uint8)
values[:, :8] = values[:, 56:] = 255
picture, box = Image.fromarray(values), (8, 0, 56, 48)
by_box = np.asarray(picture.resize((16, 16), Image.Resampling.BILINEAR, box=box))[0].tolist()
by_crop = np.asarray(picture.crop(box).resize((16, 16), Image.Resampling.BILINEAR))[0].tolist()
print("box            ", by_box)
print("crop and resize", by_crop)
sys.exit(not (by_box == [28, *[0] * 14, 28] and by_crop == [0] * 16))
PY
