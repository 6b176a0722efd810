"""Imports go one way, and the packages that promise no torch import none."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import fairtune_hf

PACKAGE = Path(fairtune_hf.__file__).parent
ORDER = [
    *("tuner", "metrics", "data", "baselines", "training", "search", "reports"),
    *("inference", "export", "hub", "serve", "cli"),
]
INDEPENDENT = {"tuner", "metrics", "data"}
SHARED = {
    "checksums",
    "costs",
    "model_description",
    "plain_data",
    "record_reader",
    "run_folder",
    "run_record",
}  # modules: what every step reads and writes
NEUTRAL = {
    "ages",
    "described",
    "exit_codes",
    "json_values",
    "label_values",
    "lazy",
    "mask",
    "naming",
    "turn",
    "unknown_values",
    "version",
    "whole_files",
}  # modules of words, locks and pandas alone, which every package may ask
WITHOUT_TORCH = ["metrics", "reports"]


def imported_at_run_time(file: Path) -> set[str]:
    """Modules of the package that a file imports, in functions too, but not for type checkers alone."""
    package = ["fairtune_hf", *file.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    todo: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
            continue
        todo += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from package import module` needs the module; `from module import name` that module.
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


def test_no_module_needs_itself_by_way_of_others() -> None:
    """Leave out what nobody waits for, again and again: what is left over goes round in circles."""
    files = {
        f: ".".join(f.relative_to(PACKAGE.parent).with_suffix("").parts)
        for f in PACKAGE.rglob("*.py")
    }
    left = {
        name: imported_at_run_time(f) & set(files.values()) - {name} for f, name in files.items()
    }
    while left:
        free = {name for name, needed in left.items() if not needed & set(left)}
        assert free, f"imports go round in circles: {sorted(left)}"
        left = {name: needed for name, needed in left.items() if name not in free}


def imported_modules(file: Path) -> set[str]:
    """Absolute names of what a file imports, relative imports resolved."""
    package = ["fairtune_hf", *file.relative_to(PACKAGE).parts[:-1]]
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("place", range(len(ORDER)), ids=ORDER)
def test_imports_go_one_way(place: int) -> None:
    name = ORDER[place]
    allowed = {name} | NEUTRAL | ({*ORDER[:place]} if name not in INDEPENDENT else set())
    for file in (PACKAGE / name).rglob("*.py"):
        ours = {m.split(".")[1] for m in imported_modules(file) if m.startswith("fairtune_hf.")}
        assert ours <= allowed | (SHARED if name not in INDEPENDENT else set()), (
            f"{file.name} imports {sorted(ours - allowed)}"
        )


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_packages_of_numbers_and_pages_import_no_torch(name: str) -> None:
    for file in (PACKAGE / name).rglob("*.py"):
        assert not {m for m in imported_modules(file) if m.split(".")[0] == "torch"}, file.name


def test_the_run_folder_needs_neither_torch_nor_the_rest_of_the_package() -> None:
    for name in SHARED:
        imported = imported_modules(PACKAGE / f"{name}.py")
        ours = {m.split(".")[1] for m in imported if m.startswith("fairtune_hf.")}
        assert ours <= SHARED | {"turn", "version", "whole_files"}
        assert "torch" not in {m.split(".")[0] for m in imported}


@pytest.mark.parametrize("name", sorted(NEUTRAL))
def test_neutral_modules_import_nothing_of_the_package_but_each_other(name: str) -> None:
    found = imported_modules(PACKAGE / f"{name}.py")
    assert not {m for m in found if m.split(".")[0] == "torch"}
    ours = {m.split(".")[-1] for m in found if m.startswith("fairtune_hf")}
    assert ours <= NEUTRAL - {name}


def test_every_package_is_in_the_order() -> None:
    packages = {p.parent.name for p in PACKAGE.glob("*/__init__.py")}
    assert packages == set(ORDER)


def test_public_names_exist_and_are_documented() -> None:
    for name in fairtune_hf.__all__:
        assert getattr(fairtune_hf, name).__doc__, name


@pytest.mark.parametrize("name", ORDER[:-1])
def test_every_public_name_of_a_package_is_found_and_is_not_a_file_of_it(name: str) -> None:
    """A file of the same name would hide it as soon as that file is imported."""
    package = importlib.import_module(f"fairtune_hf.{name}")
    files = {file.stem for file in (PACKAGE / name).glob("*.py")}
    assert package.__all__
    assert not files & set(package.__all__)
    for public in package.__all__:
        assert getattr(package, public) is not None
        assert public in dir(package)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = package.no_such_name
