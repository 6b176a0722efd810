"""Whether the adapter in a run's folder is whole, finite and the one its predictions are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, deserialize

from fairtune_hf.run_folder import ADAPTER_FILES, RunFolder
from fairtune_hf.run_record import ChoiceRecord

_CONFIG, _WEIGHTS = ADAPTER_FILES
# Bits of the exponent of each kind of float, and the whole number to read it as: all set in what is not finite.
_EXPONENTS = {
    "F64": (np.uint64, 0x7FF0000000000000),
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}


def require_whole_adapter(folder: RunFolder, choice: ChoiceRecord) -> None:
    """Refuse an adapter that is missing, damaged or of another choice, before it is used or handed on.

    Args:
        folder: The run, or the control.
        choice: What its record says was chosen.

    Raises:
        FileNotFoundError: There is no adapter, or nothing of this choice was trained.
        ValueError: It is damaged, holds values that are not numbers, or is not that of the predictions.
    """
    command = f"Run `fairtune finetune --run {folder.path}`: it trains what is missing or damaged."
    predictions = folder.read_refits(choice)
    if predictions is None:
        raise FileNotFoundError(
            f"--run: expected an adapter in {folder.adapter} of what the search chose, and that has not been trained: "
            f"{folder.predictions_file} is missing or of another choice. {command}"
        )
    fault = adapter_fault(folder, predictions)
    if fault is not None:
        kind = FileNotFoundError if "missing" in fault else ValueError
        raise kind(
            f"--run: expected an adapter in {folder.adapter} that is the run's, and {fault}. {command}"
        )


def adapter_fault(folder: RunFolder, predictions: pd.DataFrame) -> str | None:
    """Say what is wrong with the adapter that predictions are of, or None.

    Its files are compared with their digests of when it was saved. Runs of earlier releases kept none:
    there the files have to be readable and every weight a finite number.
    """
    missing = [name for name in ADAPTER_FILES if not (folder.adapter / name).is_file()]
    if missing:
        return f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing"
    noted, found = folder.noted_adapter(predictions), folder.digest_adapter()
    if noted == found:
        return None
    broken = _config_fault(folder.adapter / _CONFIG) or _weights_fault(folder.adapter / _WEIGHTS)
    if broken is not None or noted is None:
        return broken
    other = [name for name in ADAPTER_FILES if found[name] != noted.get(name)]
    return f"{' and '.join(other)} changed since the refit"


def _config_fault(file: Path) -> str | None:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        return f"{file.name} cannot be read ({error})"
    return None if isinstance(config, dict) else f"{file.name} holds no object"


def _weights_fault(file: Path) -> str | None:
    try:
        tensors = deserialize(file.read_bytes())
    except SafetensorError as error:
        return f"{file.name} cannot be read ({error})"
    for name, tensor in tensors:
        if tensor["dtype"] in _EXPONENTS:
            kind, exponent = _EXPONENTS[tensor["dtype"]]
            bits = np.frombuffer(tensor["data"], dtype=kind)
            if ((bits & kind(exponent)) == exponent).any():
                return f"{name} in {file.name} holds values that are not finite"
    return None
