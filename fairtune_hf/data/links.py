"""Links in a data folder: they are followed wherever they lead, and those that lead out of it are counted.

A file name comes with the table, from anyone, and must stay in the folder (see `safe_relative`). A link was
laid on this disk by whoever set the folder up, as the cache of the Hub and shared stores of pictures do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def walk_folders(root: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    """Give each folder down to `depth` below `root`, links to folders followed, with its sorted file names.

    Hidden folders are left out, and so are links to a folder that they lie in, which have no end.
    """
    for folder, inner, names in os.walk(root, followlinks=True):
        here = Path(folder)
        is_last = len(here.relative_to(root).parts) >= depth
        inner[:] = [] if is_last else sorted(d for d in inner if _leads_on(here / d))
        yield here, sorted(names)


def _leads_on(folder: Path) -> bool:
    if folder.name.startswith("."):
        return False
    if not folder.is_symlink():
        return True
    above = {parent.resolve() for parent in folder.parents} | {*folder.parent.resolve().parents}
    return folder.resolve() not in above


def say_links(root: Path, names: Iterable[str]) -> list[str]:
    """Say how many of the files of these names lie outside `root`, behind links; nothing where none does.

    Args:
        root: The data folder, which may be a link itself.
        names: Relative file names with forward slashes.
    """
    inside = os.path.join(os.path.realpath(root), "")  # noqa: PTH118  over many thousand names
    folders: dict[str, str] = {}
    count = 0
    for name in set(names):
        folder, _, last = name.rpartition("/")
        if folder not in folders:
            folders[folder] = os.path.realpath(root / folder)
        path = f"{folders[folder]}{os.sep}{last}"
        real = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114
        count += not real.startswith(inside)
    if not count:
        return []
    return [f"{count} pictures lie outside {root}, behind links, which are followed"]
