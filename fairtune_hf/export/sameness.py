"""Whether an export gives the run's scores: its files read back, on the run's own test pictures."""

from __future__ import annotations

import io
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fairtune_hf.data import ImageTable
from fairtune_hf.export.folders import PREPARATION
from fairtune_hf.export.readers import Scorer
from fairtune_hf.inference import Predictor
from fairtune_hf.run_folder import RunFolder

MOST_ROWS = 256  # that the scores of an equal export are compared on
BATCH, _ALONE = 16, 8
_OF_A_GPU, _OF_HALF = 1e-3, 0.05  # where the run itself computed otherwise than this machine does
_SIZES = ((96, 96), (64, 48), (47, 64), (120, 33))


class ExportRefused(Exception):
    """An export that does not do what the run was measured to do; nothing of it is left."""


@dataclass(frozen=True)
class Rows:
    """The test rows of a run: label, score as recorded, patient and groups; and their stored pictures."""

    frame: pd.DataFrame
    images: np.ndarray
    sensitive: str

    def few(self) -> Rows:
        """Return at most `MOST_ROWS` of them, evenly drawn."""
        if len(self.frame) <= MOST_ROWS:
            return self
        index = np.linspace(0, len(self.frame) - 1, MOST_ROWS).round().astype(int)
        frame = self.frame.iloc[index].reset_index(drop=True)
        return Rows(frame, self.images[index], self.sensitive)

    def first(self, n: int) -> Rows:
        """Return the first few of them."""
        return Rows(self.frame.iloc[:n], self.images[:n], self.sensitive)

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Give the stored pictures, (n, side, side, 3) uint8, a batch at a time."""
        for start in range(0, len(self.frame), size):
            yield np.ascontiguousarray(self.images[start : start + size])


def read_rows(predictor: Predictor, folder: RunFolder, table: ImageTable) -> Rows:
    """Return the test rows with what the run recorded of them.

    Raises:
        ValueError: The table has other test rows than the run's predictions are of.
    """
    told = folder.read_predictions()
    seed = predictor.described.seed or 0
    part = table.subset("test")
    if told is not None:
        told = told[(told["split"] == "test") & (told["seed"] == seed)].set_index("row_id")
    rows = part.frame["row_id"]
    if told is None or not len(told) or set(told.index) != set(rows):
        raise ValueError(
            f"--run: expected the run's predictions of its {len(part)} test pictures with seed {seed}, got "
            f"{0 if told is None else len(told)} of other ones. Run `fairtune finetune --run {folder.path}` again."
        )
    return Rows(told.loc[rows].reset_index(), part.images, part.sensitive)


def check_input(predictor: Predictor, folder: RunFolder) -> None:
    """Refuse a run that does not say by which mean and deviation its pictures were normalised, or says it two ways.

    Raises:
        ValueError: With what was found.
    """
    told = folder.read_chosen().model.input or {}
    for name in ("image_mean", "image_std", "image_size"):
        ours, given = getattr(predictor, name), told.get(name)
        if given is None or not np.array_equal(np.atleast_1d(given), np.atleast_1d(ours)):
            raise ValueError(
                f"--run: expected run.json and the adapter to say the same {name}, got {given} and {ours}. Scores of pictures "
                "prepared otherwise are worth nothing: restore the files, or train the run again."
            )


def check_preparation(folder: Path, predictor: Predictor) -> dict[str, Any]:
    """Run the export's own preparation on made-up pictures of several sizes and depths beside the run's.

    Raises:
        ExportRefused: It gives other pixels.
    """
    prepare = runpy.run_path(str(folder / PREPARATION))["prepare"]  # leaves no compiled twin
    most = 0.0
    for raw in _made_up_pictures():
        difference = np.abs(prepare(raw) - predictor.prepare(raw).numpy()).max()
        most = max(most, float(difference))
    if most > 1e-5:
        raise ExportRefused(
            f"{PREPARATION} prepares pictures otherwise than the run did (by {most:.2g} after normalising). Nothing was written."
        )
    return _told("preparation.py against the run's preparation", len(_SIZES) + 1, most, 1e-5)


def _made_up_pictures() -> Iterator[bytes]:
    generator = np.random.default_rng(0)
    deep = generator.integers(200, 40000, (60, 80)).astype(np.uint16)
    shapes = [(high, wide, 3) for wide, high in _SIZES]
    pictures: list[np.ndarray] = [
        generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes
    ]
    for values in [*pictures, deep]:
        buffer = io.BytesIO()
        Image.fromarray(values).save(buffer, format="PNG")
        yield buffer.getvalue()


def check_scores(
    score: Scorer, rows: Rows, predictor: Predictor, folder: RunFolder, tolerance: float
) -> list[dict[str, Any]]:
    """Compare an export whose weights are kept with the run's model here, and both with what the run recorded.

    Raises:
        ExportRefused: A score differs by more than the tolerance.
    """
    rows = rows.few()
    here = score_here(predictor, rows)
    recorded = rows.frame["score"].to_numpy()
    found = score_rows(score, rows, predictor, BATCH)
    alone = score_rows(score, rows.first(_ALONE), predictor, 1)
    slack, why = _slack(folder, tolerance)
    return [
        compare("the export against the run's model", found, here, tolerance),
        compare("the export, one picture at a time", alone, here[: len(alone)], tolerance),
        compare(f"the export against the run's recorded scores{why}", found, recorded, slack),
    ]


def _slack(folder: RunFolder, tolerance: float) -> tuple[float, str]:
    """By how much recorded scores may differ, and why by more than the tolerance."""
    record = folder.read_chosen()
    if record.choice.precision in ("bf16", "fp16"):
        return _OF_HALF, f" (the run computed in {record.choice.precision})"
    if record.hardware.get("gpus"):
        return max(_OF_A_GPU, tolerance), " (the run computed on a GPU)"
    return tolerance, ""


def score_here(predictor: Predictor, rows: Rows) -> np.ndarray:
    """Score the rows' stored pictures with the run's model."""
    seed = predictor.described.seed or 0
    parts = [predictor.score_pixels(batch)[seed] for batch in rows.batches(BATCH)]
    return np.concatenate(parts)


def score_rows(score: Scorer, rows: Rows, predictor: Predictor, batch_size: int) -> np.ndarray:
    """Score the rows' stored pictures with an export, some at a time."""
    parts = [
        score(predictor.normalise(torch.from_numpy(batch)).contiguous().numpy())
        for batch in rows.batches(batch_size)
    ]
    return np.concatenate(parts)


def compare(what: str, found: np.ndarray, right: np.ndarray, tolerance: float) -> dict[str, Any]:
    """Compare scores, and say what was found.

    Raises:
        ExportRefused: One differs by more than the tolerance, or is not a number.
    """
    most = float(np.abs(found - right).max())
    if not most <= tolerance:
        raise ExportRefused(
            f"expected {what} to differ by at most {tolerance:g} in score, and on {len(found)} test pictures of the run it "
            f"differs by up to {most:.2g}. Nothing was written."
        )
    return _told(what, len(found), most, tolerance)


def _told(what: str, pictures: int, most: float, tolerance: float) -> dict[str, Any]:
    return {
        "compared": what,
        "pictures": pictures,
        "largest_difference": most,
        "allowed": tolerance,
    }
