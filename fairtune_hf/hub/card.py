"""The model card of a run: `README.md` with the metadata that the Hugging Face Hub reads.

Made from the run's folder alone, through the template `hub_cards/model_card.md.jinja`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from fairtune_hf.metrics import registry
from fairtune_hf.model_description import OperatingPoint, read_description
from fairtune_hf.reports import numbers, tables
from fairtune_hf.reports.cost import cost_lines
from fairtune_hf.reports.loaded_run import LoadedRun, read_run
from fairtune_hf.reports.masks import mask_grid
from fairtune_hf.reports.page import missing_steps, optimism_words, warning_lines
from fairtune_hf.reports.verdict import flag_words, run_verdict, worst_group
from fairtune_hf.run_folder import write_text

from .templates import Verbatim, card_environment

TAGS = ("fairtune", "fairmask", "fairness", "medical-imaging", "peft", "vit")
UNNAMED = "ORG/NAME"
EMBEDDED_BASE = "fairtune_hf/demo-backbone"


def render_card(
    run_dir: Path | str,
    *,
    repo_id: str | None = None,
    base_model: str | None = None,
    out: Path | str | None = None,
) -> Path:
    """Write the model card of a run to its `README.md`, or to that of another folder.

    Args:
        run_dir: Folder of a run, with at least `run.json`.
        repo_id: Hub id the adapter will have (`organisation/name`); without it the card shows a
            placeholder in the loading lines.
        base_model: Hub id of the base model, where it is not the one the run recorded.
        out: Folder to write to, for a run that may only be read; the run's own if not given.

    Returns:
        The path of the card.

    Raises:
        FileNotFoundError: There is no `run.json`.
        ValueError: A file of the run cannot be read.
    """
    folder = read_run(run_dir)
    to = folder.path if out is None else Path(out)
    return write_text(to / "README.md", card_text(folder, repo_id=repo_id, base_model=base_model))


def card_text(
    folder: LoadedRun, *, repo_id: str | None = None, base_model: str | None = None
) -> str:
    """Return the whole card as text."""
    template = card_environment().get_template("model_card.md.jinja")
    return template.render(card_content(folder, repo_id=repo_id, base_model=base_model))


def base_on_hub(folder: LoadedRun) -> str | None:
    """Return the base model's Hub id; None for a local folder, which has a bare name."""
    base = folder.record.model.id or ""
    named = tables.is_hub_id(base) and ("/" in base or folder.record.model.revision)
    return base if base and named else None


def base_kind(folder: LoadedRun, base_model: str | None = None) -> str:
    """Return where the base model is to be had: `hub`, `embedded` or `local`."""
    if base_model:
        return "hub"
    if folder.record.model.id == EMBEDDED_BASE:
        return "embedded"
    return "hub" if base_on_hub(folder) else "local"


def card_data(
    folder: LoadedRun, *, repo_id: str | None = None, base_model: str | None = None
) -> ModelCardData:
    """Return the card's metadata; results only of what was measured."""
    results = evaluation_results(folder)
    return ModelCardData(
        library_name="peft",
        pipeline_tag="image-classification",
        base_model=base_model or base_on_hub(folder),
        tags=list(TAGS),
        metrics=["roc_auc"] if results else None,
        model_name=(repo_id or card_name(folder)).split("/")[-1] if results else None,
        eval_results=results or None,
    )


def card_name(folder: LoadedRun) -> str:
    """Return a name for the adapter, from its data set and attribute: letters, digits, hyphens."""
    words = f"fairtune {folder.record.dataset.name or 'run'} {folder.sensitive}"
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in words)
    return "-".join(part for part in safe.split("-") if part).lower()


def evaluation_results(folder: LoadedRun) -> list[EvalResult]:
    """Return the test results for the card's model index."""
    test, name = folder.result("test"), folder.record.dataset.name or "data"
    return [
        EvalResult(
            task_type="image-classification",
            task_name="Image classification (binary)",
            dataset_type=card_identifier(name),
            dataset_name=name,
            dataset_config=card_identifier(folder.sensitive),
            dataset_split="test",
            metric_type="roc_auc" if metric.endswith("_auc") else metric,
            metric_name=registry.METRICS[metric].title,
            metric_value=round(float(value), 6),
        )
        for metric in registry.shown_in(registry.CARD)
        if (value := test.value(metric)) is not None
    ]


def card_identifier(name: str) -> str:
    """Return a name with only the characters that identifiers on the Hub have."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)
    return safe.strip("._-") or "data"


def card_content(
    folder: LoadedRun, *, repo_id: str | None = None, base_model: str | None = None
) -> dict[str, Any]:
    """Gather what the template prints."""
    split = folder.final_split
    shown = split or "test"
    record, result = folder.record, folder.result(shown)
    base = base_model or base_on_hub(folder) or record.model.id or ""
    metadata = card_data(folder, repo_id=repo_id, base_model=base_model).to_yaml(line_break="\n")
    labels = [str(name) for name in record.dataset.label_names or ("0", "1")]
    return {
        "metadata": Verbatim(metadata.strip()),
        "dataset": record.dataset,
        "sensitive": folder.sensitive,
        "split": shown,
        "evaluated": split is not None,
        "verdict": run_verdict(record),
        "flag_words": flag_words(record, split=shown),
        "missing": missing_steps(folder),
        "repo_id": repo_id or UNNAMED,
        "labels": labels,
        "operating_point": operating_words(folder),
        "base": base,
        "base_kind": base_kind(folder, base_model),
        "base_shown": tables.shown_model(base),
        "model": record.model,
        "choice": record.choice,
        "mask_lines": Verbatim(mask_lines(folder)),
        "metrics": list(tables.shown_metrics(record, shown).values()),
        "methods": tables.method_rows(record, shown),
        "groups": tables.group_rows(folder, shown),
        "worst_group": worst_group(result),
        "splits": tables.split_rows(folder),
        "data_rows": tables.data_rows(folder),
        "search": tables.search_rows(folder),
        "optimism": optimism_words(record.own.search.optimism),
        "cost": cost_lines(folder),
        "reproduce": tables.reproduce_rows(folder),
        "threshold": numbers.fraction(result.value("threshold"), 2),
        "n_seeds": record.own.n_seeds,
        "warnings": warning_lines(folder, split),
    }


def operating_words(folder: LoadedRun) -> tuple[str, str] | None:
    """Return the operating point's threshold and how it was chosen; None where there is none."""
    described = read_description(folder.path / "adapter")
    threshold = folder.result(folder.final_split or "test").value("threshold")
    point = None if described is None else described.operating_point
    if point is None and threshold is not None:
        point = OperatingPoint(threshold=threshold)
    return None if point is None else (numbers.fraction(point.threshold), point.origin)


def mask_lines(folder: LoadedRun) -> str:
    """Draw the mask as text: a line a part, `#` for a trained block and `.` for a frozen one."""
    choice = folder.record.choice
    grid = mask_grid(choice.mask, [str(name) for name in choice.bit_names or []])
    if grid is None:
        return ""
    wide = max(len(part) for part in grid.parts)
    lines = [
        f"{part:<{wide}}  "
        + "".join("#" if grid.cells.get((row, block)) else "." for block in range(grid.blocks))
        for row, part in enumerate(grid.parts)
    ]
    return "\n".join(lines).replace("`", "'")
