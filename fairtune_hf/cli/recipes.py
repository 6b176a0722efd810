"""`fairtune recipes`: the configurations that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairtune_hf.cli.commands import PARSERS

PARSER = PARSERS["recipes"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse; return the listing to print."""
    PARSER.parse(arguments)
    return lambda: print("\n".join(f"{path}  {_purpose(path)}" for path in list_recipes()))


def recipes_folder() -> Path:
    """Return the folder of the recipes: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).parents[1]
    shipped = package / "_shipped" / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def list_recipes() -> list[Path]:
    """Return every recipe, sorted by path."""
    return sorted(recipes_folder().rglob("*.yaml"))


def _purpose(path: Path) -> str:
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    return first.removeprefix("# ") if first.startswith("#") else ""
