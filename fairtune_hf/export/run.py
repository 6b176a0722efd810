"""From a run to an export that gives the run's scores, or to none.

Everything is written into a folder beside its place, read back from there as a stranger would read it, and
scored on the run's own test pictures. Where the scores differ the folder is not handed over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from fairtune_hf.data import ImageTable
from fairtune_hf.export import graphs, readers
from fairtune_hf.export.bounds import find_excess, measure_groups
from fairtune_hf.export.folders import input_of, write_json, write_preparation, write_transformers
from fairtune_hf.export.quantise import quantise
from fairtune_hf.export.readers import Scorer
from fairtune_hf.export.readme import readme_text
from fairtune_hf.export.record import describe, hide_counts
from fairtune_hf.export.request import Request
from fairtune_hf.export.sameness import (
    BATCH,
    ExportRefused,
    Rows,
    check_input,
    check_preparation,
    check_scores,
    compare,
    read_rows,
    score_here,
    score_rows,
)
from fairtune_hf.inference import Predictor
from fairtune_hf.json_values import json_able
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.whole_files import remove_left_overs, replacing_folder

RECORD, README = "export.json", "README.md"
_THROUGH_PIPELINE = 32


def export_run(
    predictor: Predictor,
    folder: RunFolder,
    table: ImageTable,
    out: Path | str,
    request: Request | None = None,
) -> dict[str, Any]:
    """Export a run's model and check it against the run's own scores of its test pictures.

    Args:
        predictor: The run's model, on the CPU.
        folder: The run.
        table: Its test rows, with their pictures.
        out: The folder to write; what is there is replaced once the new one is whole.
        request: What is wanted; by default a folder of transformers.

    Returns:
        What `export.json` says.

    Raises:
        ValueError: What is asked for does not go together, or the run does not say what its pictures went through.
        ExportRefused: The export gives other scores than the run, or a group loses more than it may.
    """
    request = request or Request()
    request.check()
    check_input(predictor, folder)
    rows = read_rows(predictor, folder, table)
    out = Path(out)
    remove_left_overs(out.parent, {out.name})  # of an export that was killed
    with replacing_folder(out) as partial:
        score, file = _write(predictor, partial, request)
        record = describe(predictor, request)
        record["checks"] = [check_preparation(partial, predictor)]
        if request.is_lossy:
            record["groups_after_export"] = _judge(score, rows, predictor, request)
        else:
            record["checks"] += check_scores(score, rows, predictor, folder, request.tolerance)
        if request.format == "transformers":
            record["checks"].append(_check_pipeline(score, partial, rows, predictor, request))
        write_json(partial / RECORD, json_able(record))
        (partial / README).write_text(readme_text(record, file), encoding="utf-8")
    return record


def _write(predictor: Predictor, folder: Path, request: Request) -> tuple[Scorer, str]:
    """Write the model and what prepares its pictures; return what scores by the files written, and the file's name."""
    model = predictor.merged_model().cpu().float().eval()
    write_preparation(folder, predictor.described.input)
    if request.format == "transformers":
        half = None if request.half is None else getattr(torch, request.half)
        write_transformers(model, folder, predictor, half)
        return readers.open_transformers(folder), "model.safetensors"
    program = graphs.trace(model, predictor.image_size)
    if request.format == "torch":
        file = graphs.write_program(program, folder)
        return readers.open_program(folder), file.name
    told = _for_onnx(predictor)
    file = graphs.write_onnx(program, folder, told)
    if request.int8:
        file = quantise(file, told)
    return readers.open_onnx(file), file.name


def _for_onnx(predictor: Predictor) -> dict[str, str]:
    """What the metadata of a file of ONNX say: labels and preparation."""
    labels = {str(code): name for code, name in predictor.id2label.items()}
    given = {"id2label": labels, **input_of(predictor.described.input)}
    return {name: json.dumps(value, ensure_ascii=False) for name, value in given.items()}


def _judge(score: Scorer, rows: Rows, predictor: Predictor, request: Request) -> dict[str, Any]:
    """Measure what fewer bits do to each group, on all test rows.

    Raises:
        ExportRefused: A group loses more than it may.
    """
    # Weights of half precision are computed with in 32 bits, where a score does not depend on its neighbours.
    size = request.batch_size if request.int8 else BATCH
    frame = rows.frame.rename(columns={"score": "own"})
    frame = frame.assign(score=score_rows(score, rows, predictor, size))
    found = measure_groups(frame, rows.sensitive, predictor.threshold)
    excess = find_excess(found, request.bounds)
    if excess:
        raise ExportRefused(
            f"fewer bits do more to a group than is allowed ({'; '.join(excess)}), scored {size} at a time on the {len(frame)} "
            "test pictures of the run. Nothing was written. Export without it, or set the bounds yourself "
            "(--max-auc-loss, --max-shift, --max-calibration-loss, --max-turned)."
        )
    return {
        "scored_at_once": size,
        "threshold": predictor.threshold,
        "bounds": vars(request.bounds),
        "all": found["all"],
        "groups": hide_counts(found["groups"]),
    }


def _check_pipeline(
    score: Scorer, folder: Path, rows: Rows, predictor: Predictor, request: Request
) -> dict[str, Any]:
    """Score stored pictures by the pipeline of transformers, which has to agree with the run, or with its own weights."""
    rows = rows.few().first(_THROUGH_PIPELINE)
    found = readers.score_by_pipeline(folder, rows.images, predictor.id2label[1])
    if request.is_lossy:
        right = score_rows(score, rows, predictor, 1)
    else:
        right = score_here(predictor, rows)
    return compare("pipeline() on square pictures", found, right, request.tolerance)
