"""`load_predictor`: a run's folder, an adapter's folder or a Hub id as a model that predicts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError

from fairtune_hf.data import is_hub_id
from fairtune_hf.inference.earlier import describe_run
from fairtune_hf.inference.predictor import Predictor
from fairtune_hf.model_description import (
    FILE,
    PROCESSOR,
    ModelDescription,
    OperatingPoint,
    read_description,
)
from fairtune_hf.plain_data import parse_json
from fairtune_hf.run_folder import ADAPTER_FILES, RunFolder
from fairtune_hf.training.adapter import require_whole_adapter
from fairtune_hf.training.backbone import DEMO_BACKBONE_ID, Backbone, load_backbone

_FROM_HUB = (*ADAPTER_FILES, FILE, PROCESSOR, "run.json")


@dataclass(frozen=True)
class _Place:
    """Where an adapter was found, and the run around it, if there is one."""

    adapter: Path
    run: RunFolder | None


def load_predictor(
    path: str | Path,
    *,
    device: str | None = None,
    batch_size: int = 64,
    base_model: str | Path | None = None,
    threshold: float | None = None,
) -> Predictor:
    """Load a trained model with what belongs to it.

    Args:
        path: The folder of a run, its `adapter/`, or a Hub id that `fairtune push` wrote.
        device: Where to compute, such as `cpu` or `cuda`; a GPU where there is one by default.
        batch_size: Pictures that the model is given at once.
        base_model: The base model's folder or Hub id, where it is not where the adapter says.
        threshold: From which score on a picture is called label 1, in place of the model's operating point.

    Raises:
        FileNotFoundError: There is no run or adapter, or its base model is not where it was.
        ValueError: The adapter is damaged, or the base model is another one.
    """
    where = _device(device)
    place = _find(path)
    described = _describe(place)
    if threshold is not None:
        described.operating_point = OperatingPoint(
            threshold=threshold, rule="given", chosen_on="no rows: given by the caller"
        )
    config = _adapter_config(place.adapter)
    backbone = _load_base(described, config, base_model)
    model = _with_adapter(backbone, place.adapter, described)
    others = {
        seed: _with_adapter(backbone, folder, described)
        for seed, folder in _further_refits(place, described).items()
    }
    return Predictor(model, described, device=where, batch_size=batch_size, others=others)


def _further_refits(place: _Place, described: ModelDescription) -> dict[int, Path]:
    """Return the folders of the other seeds' adapters of the run's choice, where they were kept."""
    if place.run is None:
        return {}
    predictions = place.run.read_refits(place.run.read_chosen().choice)
    known = set() if predictions is None else set(predictions["seed"])
    kept = [seed for seed in place.run.kept_seeds() if seed in known and seed != described.seed]
    return {seed: place.run.kept_adapter(seed) for seed in kept}


def _with_adapter(backbone: Backbone, folder: Path, described: ModelDescription) -> Any:
    """Return a copy of the base with an adapter in it, labels named.

    Raises:
        ValueError: The adapter cannot be read, or is of another model.
    """
    _adapter_config(folder)
    try:
        # The new head is drawn, and its place taken. PEFT asks transformers for what it deprecates.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            model = PeftModel.from_pretrained(backbone.copy_with_new_head(), str(folder))
    except (SafetensorError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(
            f"model: expected an adapter of {backbone.id} in {folder}, and it could not be loaded "
            f"({(str(error).strip() or type(error).__name__).splitlines()[0]}). Restore its files."
        ) from error
    _name_labels(model, described)
    return model


def _device(name: str | None) -> torch.device:
    """Return the device of this name, a GPU or else the CPU by default.

    Raises:
        ValueError: There is none such here.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device: expected cpu, or the name of a device that is here, got {name!r} "
            f"({(str(error).strip() or type(error).__name__).splitlines()[0]}). Leave it out to take what there is."
        ) from error
    return device


def _find(path: str | Path) -> _Place:
    folder = Path(path).expanduser()
    if (folder / ADAPTER_FILES[0]).is_file():
        _require_files(folder)
        run = RunFolder(folder.parent)
        around = folder.name == run.adapter.name and run.record_file.is_file()
        return _Place(folder, run if around else None)
    if folder.is_dir():
        run = RunFolder(folder)
        require_whole_adapter(run, run.read_chosen().choice)
        return _Place(run.adapter, run)
    if is_hub_id(str(path)):
        return _Place(_download(str(path)), None)
    raise FileNotFoundError(
        f"model: expected the folder of a run, its adapter/, or a Hub id such as ORG/NAME; there is no folder {path}. "
        "Check the path."
    )


def _require_files(folder: Path) -> None:
    missing = [name for name in ADAPTER_FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"model: expected an adapter with {' and '.join(ADAPTER_FILES)} in {folder}; {', '.join(missing)} is missing. "
            "Only safetensors weights are read."
        )


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=list(_FROM_HUB)))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"model: expected a folder or a Hub id that can be reached, and {repo_id!r} is neither "
            f"({str(error).strip().splitlines()[0]}). Check the name, or download it and give the folder."
        ) from error
    _require_files(folder)
    return folder


def _adapter_config(adapter: Path) -> dict[str, Any]:
    file = adapter / ADAPTER_FILES[0]
    try:
        return parse_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"model: expected {file} to describe an adapter, and {error}. Restore the file."
        ) from error


def _describe(place: _Place) -> ModelDescription:
    described = read_description(place.adapter)
    if described is not None:
        if place.run is not None:
            _check_record(place.run, described)
        return described
    if place.run is not None:
        return describe_run(place.run)
    if (place.adapter / "run.json").is_file():
        return describe_run(RunFolder(place.adapter))
    raise FileNotFoundError(
        f"model: expected {FILE} beside the adapter in {place.adapter}, which says what the pictures go through and what "
        "the labels are called; it is not there, as in adapters of earlier releases. Give the folder of the whole run, with its run.json."
    )


def _check_record(run: RunFolder, described: ModelDescription) -> None:
    """Refuse a description that says otherwise than the record of its run, as when it was edited.

    Raises:
        ValueError: Labels, or what a picture goes through, differ.
    """
    record = run.read_chosen()
    given, told = described.input, record.model.input or {}
    pairs = {
        "id2label": (list(described.id2label.values()), record.dataset.label_names),
        "base.sha256": (described.base.sha256, record.model.sha256),
    }
    for name in ("image_size", "image_mean", "image_std"):
        pairs[f"input.{name}"] = (getattr(given, name), told.get(name, getattr(given, name)))
    for name, (here, there) in pairs.items():
        if here != there:
            raise ValueError(
                f"model: expected {FILE} to say what run.json says, and its {name} is {here}, not {there}, as when it was edited. "
                f"Delete it and run `fairtune finetune --run {run.path}`, which writes it anew and trains nothing that is there."
            )


def _load_base(
    described: ModelDescription, config: dict[str, Any], base_model: str | Path | None
) -> Backbone:
    told = config.get("base_model_name_or_path")
    given: str | Path | None = base_model
    if given is None and described.base.id != DEMO_BACKBONE_ID:
        given = told
        if told is None:
            raise FileNotFoundError(
                f"base_model: expected the base model {described.base.id}, and the adapter does not say where it is. Give its "
                "folder or Hub id as base_model (--base-model)."
            )
    try:
        backbone = load_backbone(
            given,
            revision=described.base.revision,
            block_pattern=described.base.block_pattern,
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"base_model: expected the base model of the adapter in {given}, and it could not be loaded ({error}). "
            "Give its folder or Hub id as base_model (--base-model)."
        ) from error
    if described.base.sha256 and backbone.sha256 != described.base.sha256:
        raise ValueError(
            f"base_model: expected the weights that the adapter was trained on (sha256 {described.base.sha256[:12]}), and "
            f"{given or backbone.id} holds others ({backbone.sha256[:12]}). Give the right ones as base_model (--base-model)."
        )
    return backbone


def _name_labels(model: Any, described: ModelDescription) -> None:
    """Let the model's own configuration have the labels in the user's words."""
    config = model.get_base_model().config
    config.id2label = {int(code): name for code, name in described.id2label.items()}
    config.label2id = {name: code for code, name in config.id2label.items()}
