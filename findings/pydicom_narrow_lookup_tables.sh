#!/usr/bin/env bash
# pydicom 3.0.2: `apply_voi` and `apply_color_lut` keep a table's INDEX in the type of the table's
# ENTRIES. A table of 8-bit entries for deeper pixels (a VOI LUT of 4096 entries for a 12-bit
# picture, a palette of 1024 entries) is therefore looked up with the index modulo 256, without an
# error or a warning: the picture turns into bands. Both tables are valid DICOM (PS3.3 C.11.2.1.1
# and C.7.6.3.1.5 let entries be narrower than pixels). `apply_modality_lut` keeps the pixels' type
# and is right.
#
# Seen, for stored values 0, 255, 256, 1000 and a table that gives value // 16 (VOI), value // 4:
#   due  VOI [0, 15, 16, 62]   palette [0, 63, 64, 250]
#   came VOI [0, 15, 0, 14]    palette [0, 63, 0, 58]
#
# Exit 0 while it is so, 1 once it is not.
set -eu
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install -q --disable-pip-version-check pydicom==3.0.2 numpy==2.4.6
"$T/venv/bin/python" -W error - <<'PY'
import sys

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi
from pydicom.uid import ExplicitVRLittleEndian

values = np.asarray([0, 255, 256, 1000], dtype=np.uint16)


def table(entries):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), 0, 8])
    item.add_new("LUTData", "US", entries)
    return item


grey = Dataset()
grey.VOILUTSequence = [table([v // 16 for v in range(4096)])]
grey.ModalityLUTSequence = [table([v // 16 for v in range(4096)])]

colour = Dataset()
colour.file_meta = FileMetaDataset()
colour.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
for name in ("Red", "Green", "Blue"):
    colour.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [1024, 0, 8])
    packed = bytes(v // 4 for v in range(1024))
    colour.add_new(f"{name}PaletteColorLookupTableData", "OW", packed)

voi = apply_voi(values, grey).tolist()
palette = apply_color_lut(values, colour)[..., 0].tolist()
modality = apply_modality_lut(values, grey).tolist()
print("due  VOI [0, 15, 16, 62]   palette [0, 63, 64, 250]")
print("came VOI", voi, "  palette", palette, "  modality", modality)
as_stated = (
    voi == [0, 15, 0, 14] and palette == [0, 63, 0, 58] and modality == [0, 15, 16, 62]
)
sys.exit(not as_stated)
PY
