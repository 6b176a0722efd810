"""What the files of a folder must hold: a digest of each, kept beside them, so that a flipped bit is seen.

The digest of what a file is about to hold is noted before the file gets its name, and the last few are kept:
a kill in between leaves the old file, whose digest is still there. A file without a note, as in folders of
earlier releases, is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fairtune_hf.turn import FileTurn
from fairtune_hf.whole_files import write_text

NOTES = ".checksums.json"
LOCK = f"{NOTES}.lock"
_OWN = "digest"  # of the notes themselves
_KEPT = 8
_LOOKS = 3
_CHUNK = 1 << 24


def write_noted(folder: Path, texts: Mapping[str, str], **facts: Any) -> None:
    """Write text files of a folder, each whole and with its digest noted first.

    Args:
        folder: Where they go; it is made if need be.
        texts: What each is to hold, by its name.
        facts: What else is noted, by name, in place of what was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileTurn(folder / LOCK):  # what another process notes meanwhile would be lost
        notes = _read_notes(folder) | facts
        for name, text in texts.items():
            digest = digest_of(text.encode())
            notes[name] = [*(d for d in notes.get(name, []) if d != digest), digest][-_KEPT:]
        held = {_OWN: _digest_notes(notes), **notes}
        write_text(folder / NOTES, json.dumps(held, indent=1) + "\n")
        for name, text in texts.items():
            write_text(folder / name, text)


def read_noted(file: Path) -> bytes:
    """Read a file, and hold it against its digest where there is one.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It holds something else than was written; the message is the reason, without the file's name.
    """
    for _ in range(_LOOKS):  # others may write it many times between the two readings
        content = file.read_bytes()
        noted = read_fact(file.parent, file.name)  # after the file, since it is noted before it
        if not noted or digest_of(content) in noted:
            return content
    raise ValueError(f"it was damaged or edited: its checksum is none of those in {NOTES}")


def read_fact(folder: Path, name: str) -> Any:
    """Return what is noted in a folder under a name; None where nothing is."""
    return _read_notes(folder).get(name)


def digest_of(content: bytes) -> str:
    """Return the sha256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def hash_files(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _read_notes(folder: Path) -> dict[str, Any]:
    """Read the notes of a folder; damaged ones say nothing, and are made again with the next file."""
    file = folder / NOTES
    if not file.is_file():
        return {}
    try:
        notes = json.loads(file.read_bytes())
        whole = notes.pop(_OWN) == _digest_notes(notes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return dict(notes) if whole else {}


def _digest_notes(notes: Mapping[str, Any]) -> str:
    return digest_of(json.dumps(notes, sort_keys=True).encode())
