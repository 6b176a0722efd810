"""Predictions as a table in a file: CSV, TSV, Parquet, or JSON with what belongs to the model beside them."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fairtune_hf.data.image_source import ImageError
from fairtune_hf.inference.listing import Listing
from fairtune_hf.inference.predictor import Prediction, Predictor
from fairtune_hf.plain_data import to_plain
from fairtune_hf.whole_files import replacing

SUFFIXES = (".csv", ".tsv", ".parquet", ".json")
_TAKEN = "predicted_"


def tabulate(listing: Listing, found: Sequence[Prediction | ImageError]) -> pd.DataFrame:
    """Return one row a picture, in their order: file or the table's own columns, score, label, and what is to be said.

    A picture that could not be read has no score and label, and the reason under `error`. Where several refits were
    scored there are `score_seed_N` of each, their mean and their standard deviation (n - 1) as `score_spread`. A
    column of ours that the table has already gets `predicted_` before its name.
    """
    rows = [_row(each) for each in found]
    ours = pd.DataFrame(rows).reindex(columns=_columns(rows))
    if listing.rows is None:
        return pd.concat([pd.DataFrame({"file": listing.names}), ours], axis=1)
    held = listing.rows.reset_index(drop=True)
    taken = {name: f"{_TAKEN}{name}" for name in ours.columns if name in held.columns}
    return pd.concat([held, ours.rename(columns=taken)], axis=1)


def _row(found: Prediction | ImageError) -> dict[str, Any]:
    if isinstance(found, ImageError):
        return {"error": str(found)}
    row: dict[str, Any] = {"score": found.score, "label": found.label}
    if found.scores_by_seed:
        scores = np.array(list(found.scores_by_seed.values()))
        row |= {f"score_seed_{seed}": score for seed, score in found.scores_by_seed.items()}
        row |= {"score_mean": scores.mean(), "score_spread": scores.std(ddof=1)}
    return row | {"warnings": "; ".join(found.warnings)}


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the columns in their order; there is one for errors only where there are errors."""
    named = dict.fromkeys(name for row in rows for name in row)
    first, last = ["score", "label"], ["warnings", "error"]
    between = [name for name in named if name not in (*first, *last)]
    return [*first, *between, "warnings", *(["error"] if "error" in named else [])]


def check_out(out: str | Path) -> None:
    """Refuse a file for the results that could not be written, before anything is scored.

    Raises:
        ValueError: It ends as no kind that is written, or is a folder.
        PermissionError: Its folder may not be written to.
    """
    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"--out: expected a file that ends in {', '.join(SUFFIXES)}, got {str(out)!r}. Change its ending."
        )
    if path.is_dir():
        raise ValueError(f"--out: expected a file, and {out} is a folder. Name a file in it.")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise PermissionError(
            f"--out: expected a file in a folder that may be written to, and {above} may not. Choose another place."
        )


def write_results(frame: pd.DataFrame, out: Path, predictor: Predictor) -> None:
    """Write the table whole, in the kind that its ending says.

    Args:
        frame: What `tabulate` returned.
        out: Where; what is there is replaced once all is written.
        predictor: Whose predictions they are; JSON says what belongs to it.
    """
    suffix = out.suffix.lower()
    with replacing(out) as partial:
        if suffix == ".parquet":
            frame.to_parquet(partial, engine="pyarrow", index=False)
        elif suffix == ".json":
            partial.write_text(_as_json(frame, predictor), encoding="utf-8")
        else:
            partial.write_text(as_text(frame, "\t" if suffix == ".tsv" else ","), encoding="utf-8")


def as_text(frame: pd.DataFrame, separator: str = ",") -> str:
    """Return the table as separated text."""
    text = io.StringIO()
    frame.to_csv(text, index=False, sep=separator, lineterminator="\n")
    return text.getvalue()


def _as_json(frame: pd.DataFrame, predictor: Predictor) -> str:
    rows = [
        {name: value for name, value in row.items() if not pd.isna(value)}
        for row in frame.to_dict("records")
    ]
    content = {
        "model": to_plain(predictor.described),
        "threshold": predictor.threshold,
        "predictions": rows,
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
