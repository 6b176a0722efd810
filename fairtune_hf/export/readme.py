"""README.md of an export: how to get a score from it, what was checked, and what it is not for."""

from __future__ import annotations

from typing import Any

_OPEN = {
    "transformers": """
```python
import sys
from transformers import pipeline

sys.path.insert(0, FOLDER)  # this folder
from preparation import open_picture  # Pillow and NumPy alone

classify = pipeline("image-classification", model=FOLDER)
found = {{one["label"]: one["score"] for one in classify(open_picture("picture.png"))}}
score = found[{positive!r}]
```

The first entry that `pipeline` returns is that of the higher score, not of {positive!r}: read by the label.
`pipeline` needs neither PEFT nor fairtune_hf{timm}.

What `pipeline` makes of a file that it opens itself:

| picture | score |
|---|---|
| square, 8 bits | within rounding: torchvision resizes some pixels to the next grey level |
| not square, 8 bits | {not_square} |
| 16-bit grey PNG | worthless: it is read as all white |
| DICOM, volumes | none |

So hand it `open_picture(FILE)`, which is exact for all of 8 bits and for 16-bit grey. DICOM, volumes and colour of 16
bits go through `fairtune predict`, or are decoded by fairtune_hf: `open_picture(load_predictor(RUN).decode("picture.dcm"))`.
For square files alone, `image_processor=AutoImageProcessor.from_pretrained(FOLDER, backend="pil")` is exact too.
""",
    "onnx": """
```python
import sys
import numpy as np, onnxruntime

sys.path.insert(0, FOLDER)  # this folder
from preparation import prepare  # Pillow and NumPy alone

session = onnxruntime.InferenceSession(f"{{FOLDER}}/{file}")
pictures = np.stack([prepare("picture.png")])  # (n, 3, {size}, {size}); any n
(logits,) = session.run(["logits"], {{"pixel_values": pictures}})
scores = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)  # of {positive!r}
```
""",
    "torch": """
```python
import sys
import numpy as np, torch

sys.path.insert(0, FOLDER)  # this folder
from preparation import prepare  # Pillow and NumPy alone

model = torch.export.load(f"{{FOLDER}}/{file}").module()
pictures = torch.from_numpy(np.stack([prepare("picture.png")]))  # (n, 3, {size}, {size}); any n
scores = model(pixel_values=pictures).softmax(1)[:, 1]  # of {positive!r}
```
""",
}
_DECODE = """
`prepare` reads pictures of 8 bits and grey of 16 bits. DICOM, volumes and colour of 16 bits are decoded by fairtune_hf:
`prepare(load_predictor(RUN).decode("picture.dcm"))`.
"""
_INT8 = """
**Weights of 8 bits.** The score of a picture depends on those beside it in a batch. What is said below was measured with
{batch} at a time: serve it so.
"""
_NEAR = "near: its processor cuts the square as the training did, but for the outermost pixels"
_FAR = "near: its processor resizes before it cuts, the training cut first"


def readme_text(record: dict[str, Any], file: str) -> str:
    """Write the README of an export from its record.

    Args:
        record: What `export.json` says.
        file: Name of the file that is opened.
    """
    given = record["input"]
    exact = given["stored_sides"] == [given["image_size"]]
    words = {
        "positive": record["positive_label"],
        "size": given["image_size"],
        "file": file,
        "not_square": _NEAR if exact else _FAR,
        "timm": "" if not record["needs_timm"] else ", but the package timm",
    }
    parts = [f"# {record['positive_label']}: an exported classifier", _OPEN[record["format"]]]
    if record["format"] != "transformers":
        parts.append(_DECODE)
    if record["int8"]:
        parts.append(_INT8.format(batch=record["groups_after_export"]["scored_at_once"]))
    parts += [_operating(record), _checks(record), _groups(record), _LIMITS]
    return "\n".join(part.format(**words) if part in _OPEN.values() else part for part in parts)


_LIMITS = """
## Limits of use

For research; not a medical device. What a group's figures are on other data, other devices or other people is not known.
"""


def _operating(record: dict[str, Any]) -> str:
    point = record["operating_point"]
    if not point:
        return "No operating point was chosen: a score from 0.5 on is label 1.\n"
    return (
        f"Operating point: a score of at least {point['threshold']:.6g} is {record['positive_label']!r} "
        f"(rule: {point['rule']}; chosen on {point['chosen_on']}).\n"
    )


def _checks(record: dict[str, Any]) -> str:
    lines = ["## What was checked when it was written", ""]
    lines += ["| compared | pictures | largest difference | allowed |", "|---|---|---|---|"]
    lines += [
        f"| {one['compared']} | {one['pictures']} | {one['largest_difference']:.2g} | {one['allowed']:g} |"
        for one in record["checks"]
    ]
    return "\n".join(lines) + "\n"


def _groups(record: dict[str, Any]) -> str:
    after = record.get("groups_after_export")
    if not after:
        return ""
    lines = [
        "## What fewer bits did to each group",
        "",
        f"On the run's test pictures, {after['scored_at_once']} at a time, against the run's own scores:",
        "",
        "| group | pictures | AUC difference (95 % interval) | mean shift of the score | calibration error | decisions turned |",
        "|---|---|---|---|---|---|",
    ]
    for name, group in after["groups"].items():
        low, high = map(_signed, group["auc_difference_ci"])
        lines.append(
            f"| {name} | {group['n']} | {_signed(group['auc_difference'])} ({low} to {high}) | {_signed(group['mean_shift'])} "
            f"| {_signed(group['calibration_error_rise'])} | {group['turned']} ({100 * group['turned_share']:.1f} %) |"
        )
    return "\n".join(lines) + "\n"


def _signed(value: float | None) -> str:
    return "not known" if value is None else f"{value:+.4f}"
