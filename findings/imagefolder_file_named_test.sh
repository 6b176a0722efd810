#!/bin/bash
# datasets 5.2.0 (with pillow 12.0.0): one picture whose FILE NAME has the word test, val, dev, eval ... between
# signs or digits ("stress_test.png", "p07_dev_2.png") makes load_dataset("imagefolder", data_dir=...) drop every
# other picture, and metadata.csv with them, without a warning.
#
# Made here: 6 pictures in one flat folder and a metadata.csv with a label for each, as the ImageFolder page shows.
# Read with the names scan_0.png ... scan_5.png: 6 rows in the split train, with the column label.
# After one picture is renamed stress_test.png (a cardiac stress test; metadata.csv is changed alike):
# 1 row in the split test, without any label. Seen:
#   plain names: {'train': 6} columns ['image', 'label']
#   one stress_test.png: {'test': 1} columns ['image']
# Why: split words in file names are looked for when no folder is named after a split; once one file matches, only
# matching files belong to the data set, and metadata.csv does not match.
# Exits 0 while this is so, 1 if it changes.
set -eu
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pillow==12.0.0
cd "$T"
HF_HUB_OFFLINE=1 HF_HOME=$T/hf HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$T/venv/bin/python" - <<'P'
import sys
import warnings
from pathlib import Path

from datasets import load_dataset
from PIL import Image


def read(folder, names):
    root = Path(folder)
    root.mkdir()
    for i, name in enumerate(names):
        Image.new("RGB", (8, 8), (i, i, i)).save(root / name)
    lines = ["file_name,label", *(f"{name},{i % 2}" for i, name in enumerate(names))]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    found = load_dataset("imagefolder", data_dir=str(root.absolute()))
    return {k: len(v) for k, v in found.items()}, sorted(next(iter(found.values())).column_names)


plain = [f"scan_{i}.png" for i in range(6)]
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    before = read("plain", plain)
    after = read("renamed", [*plain[:5], "stress_test.png"])
print("plain names:", before[0], "columns", before[1])
print("one stress_test.png:", after[0], "columns", after[1])
said = [w for w in caught if "split" in str(w.message) or "metadata" in str(w.message)]
as_stated = (
    before == ({"train": 6}, ["image", "label"])
    and after == ({"test": 1}, ["image"])
    and not said
)
sys.exit(0 if as_stated else 1)
P
