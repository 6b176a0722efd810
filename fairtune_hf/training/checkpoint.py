"""A checkpoint's files: which of them are the weights, whether they can be read, and their hash.

Only safetensors are read: `model.safetensors`, or the shards that `model.safetensors.index.json` lists,
in a local folder or on the Hub. That is what transformers loads, so the hash is of what was loaded.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"


def check_name(path: str) -> None:
    """Refuse a folder that is not there, or that holds no checkpoint; a Hub id passes.

    Raises:
        FileNotFoundError: There is no such folder, or it lacks its config or its weights.
        ValueError: The folder holds an adapter.
    """
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder)
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise FileNotFoundError(
            f"--model: expected a folder with config.json and *.safetensors, or a Hub id such as "
            f"google/vit-base-patch16-224; there is no folder {path}. Check the path."
        )


def _check_folder(folder: Path) -> None:
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"--model: expected a pre-trained checkpoint, and {folder} holds an adapter (adapter_config.json). Point "
            "--model at the base model that the adapter was trained on."
        )
    weights = any((folder / name).is_file() for name in (WEIGHTS, INDEX))
    found = {"config.json": (folder / "config.json").is_file(), "*.safetensors": weights}
    missing = [name for name, there in found.items() if not there]
    if missing:
        raise FileNotFoundError(
            f"--model: expected a checkpoint with config.json and *.safetensors in {folder}; "
            f"{' and '.join(missing)} not found there. Point --model at the folder written by save_pretrained "
            f"(weights in other formats, or under another name than {WEIGHTS}, are not read)."
        )


def find_weights(path: str, revision: str | None) -> list[Path]:
    """Return the weight files that are loaded, in name order; those of a Hub id are downloaded.

    Raises:
        FileNotFoundError: There are none, or a shard is missing.
        ValueError: A file is no safetensors file.
    """
    single = _fetch(path, WEIGHTS, revision)
    files = [single] if single else _find_shards(path, revision)
    for file in files:
        _check_readable(file)
    return files


def resolved_commit(path: str, weights: list[Path]) -> str | None:
    """Return the commit that a Hub id's weights are of, None for a local folder."""
    return None if Path(path).is_dir() else extract_commit_hash(str(weights[0]), None)


def _find_shards(path: str, revision: str | None) -> list[Path]:
    index = _fetch(path, INDEX, revision)
    if index is None:
        raise FileNotFoundError(
            f"--model: expected weights as {WEIGHTS} or as shards with {INDEX} in {path}, and neither is there. Weights in "
            "other formats are not read: convert them with save_pretrained, or choose another checkpoint."
        )
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"--model: expected {INDEX} of {path} to map parameters to shards under `weight_map`, and it cannot be read so "
            f"({type(error).__name__}: {error}). Download the checkpoint again."
        ) from error
    found = {name: _fetch(path, name, revision) for name in names}
    missing = [name for name, file in found.items() if file is None]
    if missing or not names:
        raise FileNotFoundError(
            f"--model: expected all shards that {INDEX} of {path} lists; {', '.join(missing) or 'it lists none'}"
            f"{' not found' if missing else ''}. Download the checkpoint again."
        )
    return [file for file in found.values() if file is not None]


def _fetch(path: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a folder or a Hub id, None where it has none of that name.

    Raises:
        ValueError: The Hub id cannot be reached.
    """
    try:
        found = cached_file(
            path,
            name,
            revision=revision or "main",
            _raise_exceptions_for_missing_entries=False,
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--model: expected a local folder or a Hub id that can be reached, and {path!r} is neither "
            f"({str(error).strip().splitlines()[0]}). Check the name, or download it and give the folder."
        ) from error
    return None if found is None else Path(found)


def _check_readable(file: Path) -> None:
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        with file.open("rb") as raw:
            pointer = raw.read(len(_LFS_POINTER)) == _LFS_POINTER
        why = "it is a Git LFS pointer: run `git lfs pull`" if pointer else str(error)
        raise ValueError(
            f"--model: expected {file.name} to be a safetensors file, and it cannot be read ({why}). Download the "
            "checkpoint again."
        ) from error
