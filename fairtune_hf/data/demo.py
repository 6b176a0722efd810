"""The demo set: skin-lesion-like pictures drawn by this package, for runs without any download.

Not medical data, and no result on it says anything about patients. It exists so that a whole run
(search, refit, report) can be shown and tested in minutes, with a disparity whose cause is known.

What the numbers are:

* 900 training, 300 validation and 1,200 test pictures; 1 to 4 lesions a patient, and a patient is
  in one split only. 30 % of the pictures are malignant in every split, skin type and age group.
* Malignancy shows in three graded signs (asymmetry, irregular border, several colours). Each is
  noisy and the classes overlap in all of them (`demo_picture.SIGN_STRENGTH`).
* **The disadvantaged group is skin type IV-VI, for two reasons and no other**: it has 18 % of the
  training pictures (40 % in validation and test, so that its AUC can be estimated), and its lesions
  absorb `CONTRAST["IV-VI"]` of what they absorb on skin I-III while the camera's grain is the same.
  Labels are right for both groups, and the signs have the same distribution.
* Age has a mild effect at most: the skin of patients over 60 has a coarser texture.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from fairtune_hf.data.demo_picture import render, sample_lesions

ROWS = {"train": 900, "validation": 300, "test": 1200}
PREVALENCE = 0.30
DARK_SHARE = {"train": 0.18, "validation": 0.40, "test": 0.40}
OLD_SHARE = 0.45
CONTRAST = {"I-III": 1.0, "IV-VI": 0.55}
MELANIN = {"I-III": (0.0, 0.45), "IV-VI": (0.6, 1.0)}
WRINKLES = {"<=60": 0.025, ">60": 0.035}
LABEL_NAMES = ("benign", "malignant")


def draw_demo_set(
    seed: int = 0, *, image_size: int = 64, rows: Mapping[str, int] | None = None
) -> tuple[pd.DataFrame, npt.NDArray[np.uint8]]:
    """Draw the demo set.

    Args:
        seed: Same seed, same bytes (with the same numpy on the same kind of processor).
        image_size: Side of the square pictures in pixels, at least 16.
        rows: Pictures per split instead of `ROWS`; every split needs at least 40, so that both
            classes occur in each group.

    Returns:
        The table, with columns `row_id`, `patient_id`, `label` (0 benign, 1 malignant),
        `skin_type`, `age` and `split`, and the pictures, `(n, image_size, image_size, 3)` uint8,
        picture i of row i.

    Raises:
        ValueError: `image_size` or `rows` is out of range, or a split is unknown.
    """
    counts = _check(image_size, ROWS if rows is None else rows)
    table_rng, lesion_rng, grain_rng = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(3)
    )
    frame = pd.concat(
        [_draw_split(split, n, table_rng) for split, n in counts.items()], ignore_index=True
    )
    frame.insert(0, "row_id", [f"demo-{i:05d}" for i in range(len(frame))])
    lesions = sample_lesions(
        frame["label"].to_numpy(np.int64),
        frame.pop("melanin").to_numpy(np.float32),
        frame["age"].map(WRINKLES).to_numpy(np.float32),
        frame["skin_type"].map(CONTRAST).to_numpy(np.float32),
        lesion_rng,
    )
    return frame, render(lesions, image_size, grain_rng)


def _check(image_size: int, rows: Mapping[str, int]) -> dict[str, int]:
    if image_size < 16:
        raise ValueError(
            f"image_size must be at least 16 pixels for a lesion to be seen, got {image_size}."
        )
    unknown = sorted(set(rows) - set(ROWS))
    if unknown:
        raise ValueError(f"rows names the unknown splits {unknown}; use some of {list(ROWS)}.")
    small = {split: n for split, n in rows.items() if n < 40}
    if small or not rows:
        raise ValueError(
            "rows must give every split at least 40 pictures, so that both classes occur in each "
            f"group, got {dict(rows)}; raise the numbers, or leave rows out for {ROWS}."
        )
    return {split: rows[split] for split in ROWS if split in rows}


def _draw_split(split: str, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return the rows of one split in random order, with the exact counts of every group."""
    dark = round(n * DARK_SHARE[split])
    parts = []
    for skin_type, in_group in (("I-III", n - dark), ("IV-VI", dark)):
        old = round(in_group * OLD_SHARE)
        for age, in_cell in (("<=60", in_group - old), (">60", old)):
            cell = _draw_cell(in_cell, MELANIN[skin_type], rng)
            cell["patient_id"] = f"{split}-{skin_type}-{age}-" + cell["patient_id"].astype(str)
            parts.append(cell.assign(skin_type=skin_type, age=age, split=split))
    frame = pd.concat(parts, ignore_index=True)
    # A patient's number must not give away the group.
    codes = pd.factorize(frame["patient_id"])[0]
    names = rng.permutation(int(codes.max()) + 1)
    frame["patient_id"] = [f"{split}-{names[code]:04d}" for code in codes]
    frame = frame.iloc[rng.permutation(n)].reset_index(drop=True)
    return frame[["patient_id", "label", "skin_type", "age", "split", "melanin"]]


def _draw_cell(n: int, melanin: tuple[float, float], rng: np.random.Generator) -> pd.DataFrame:
    """Return `n` lesions of patients alike in skin type and age, `PREVALENCE` of them malignant."""
    patient = np.repeat(np.arange(n), rng.integers(1, 5, n))[:n]
    tone = rng.uniform(*melanin, n)[patient]
    # Patients differ in their risk, so the labels of one patient go together a little.
    risk = 0.5 * rng.standard_normal(n)[patient] + rng.standard_normal(n)
    label = np.zeros(n, np.int64)
    label[np.argsort(-risk, kind="stable")[: round(n * PREVALENCE)]] = 1
    return pd.DataFrame({"patient_id": patient, "label": label, "melanin": tone})
