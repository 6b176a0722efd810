"""What an installation gets: the wheel's files, the libraries it asks for, names of files that exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from transformers.integrations.peft import MIN_PEFT_VERSION

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CORE = {r.name: r for r in map(Requirement, PROJECT["dependencies"])}
ALL = [*CORE.values()] + [
    Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines
]
ONLY_IN_A_CHECKOUT = ("benchmarks", "checks", "results", "RESULTS.md", "examples", "pretrain_")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files of the wheel, built here and now, without the network."""
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling")
    out = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def test_the_wheel_has_what_a_user_runs(shipped: set[str]) -> None:
    recipes = [*ROOT.glob("recipes/*/*.yaml"), *ROOT.glob("recipes/slurm/*")]
    recipes += [
        ROOT / f"recipes/{name}.py" for name in ("search", "finetune", "evaluate", "compare")
    ]
    wanted = [*recipes, *ROOT.glob("hub_cards/*.jinja"), *ROOT.glob("hub_cards/space/*")]
    assert len(wanted) > 40
    for file in wanted:
        assert f"fairtune_hf/_shipped/{file.relative_to(ROOT).as_posix()}" in shipped
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "fairtune_hf").rglob("*.py")}
    assert code <= shipped
    assert {
        "fairtune_hf/py.typed",
        "fairtune_hf/training/demo_backbone/model.safetensors",
    } <= shipped


def test_the_wheel_has_nothing_that_only_a_checkout_needs(shipped: set[str]) -> None:
    inside = [name for name in shipped if name.startswith("fairtune_hf/_shipped/")]
    for name in inside:
        parts = name.split("/")[2:]
        assert not any(part.startswith(ONLY_IN_A_CHECKOUT) for part in parts), name
        assert (
            name.endswith((".yaml", ".jinja", ".sbatch")) or len(parts) == 2 or "space" in parts
        ), name
    others = {name.split("/")[0] for name in shipped}
    assert {n.rpartition("-")[0] or n for n in others} <= {"fairtune_hf", "fairtune_hf-0.1.0.dist"}


def test_the_installed_transformers_and_peft_suit_each_other() -> None:
    """`add_adapter` and its like raise for every PEFT method where they do not."""
    assert Version(metadata.version("peft")) >= Version(MIN_PEFT_VERSION)


def test_transformers_5_24_is_left_out_only_until_there_is_a_peft_for_it() -> None:
    left_out = not CORE["transformers"].specifier.contains("5.24.0")
    exists = Version(metadata.version("peft")) >= Version("0.22")
    assert left_out != exists, "PEFT 0.22 is there: allow transformers 5.24.0 again"


@pytest.mark.hub
def test_peft_0_22_is_still_unpublished() -> None:
    ask = [sys.executable, "-m", "pip", "index", "versions", "peft"]
    found = subprocess.run(ask, check=True, capture_output=True, text=True).stdout
    newest = re.search(r"Available versions: ([\w.]+)", found)
    assert newest is not None
    assert Version(newest[1]) < Version("0.22"), "allow transformers 5.24.0 again, with peft>=0.22"


def lower_bounds() -> dict[str, Version]:
    bounds = {}
    for requirement in ALL:
        low = [s.version for s in requirement.specifier if s.operator == ">="]
        if requirement.name != "fairtune_hf":
            bounds[requirement.name.lower().replace("_", "-")] = Version(low[0])
    return bounds


def test_what_is_installed_lies_within_the_bounds() -> None:
    for requirement in CORE.values():
        assert requirement.specifier.contains(metadata.version(requirement.name)), requirement


@pytest.mark.hub
@pytest.mark.slow
def test_a_lowest_install_gets_exactly_the_lower_bounds(tmp_path: Path) -> None:
    """A lower bound that nobody can get promises more than is so."""
    out = tmp_path / "lowest.txt"
    ask = (
        "uv pip compile -q --all-extras --no-header --no-annotate --resolution lowest-direct "
        "--python-version 3.11 pyproject.toml -o"
    )
    subprocess.run([*ask.split(), str(out)], cwd=ROOT, check=True)
    found = dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==([\w.]+)", out.read_text(), re.MULTILINE))
    assert {name: Version(found[name]) for name in lower_bounds()} == lower_bounds()


# Of other projects, named as such where they are cited.
ELSEWHERE = {
    *("utilities/presets.py", "datasets/utils.py"),
    *("tests/test_config.py", "tests/test_custom_models.py", "testing_common.py"),  # PEFT's
}
NAMED_FILE = re.compile(r"[\w./-]*\w\.(?:py|md|sh|toml|sbatch|jinja|lock|yaml)\b")
OF_A_USER = {"config.yaml", "README.md", "FILE.yaml"}


def prose(file: Path) -> str:
    """Docstrings and comments of a file."""
    text = file.read_text(encoding="utf-8")
    parts = [
        ast.get_docstring(node, clean=False) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return "\n".join([*parts, *re.findall(r"(?m)(?:^|\s)#\s.*$", text)])


@pytest.mark.parametrize("folder", ["fairtune_hf", "recipes", "tests"])
def test_files_that_docstrings_and_comments_name_exist(folder: str) -> None:
    known = [p for top in ("fairtune_hf", "recipes", "tests", "docs", "hub_cards") for p in (ROOT / top).rglob("*")]  # fmt: skip
    paths = [p.relative_to(ROOT).as_posix() for p in [*known, *ROOT.iterdir()]]
    for file in (ROOT / folder).rglob("*.py"):
        for name in set(NAMED_FILE.findall(prose(file))) - ELSEWHERE - OF_A_USER:
            assert any(f"/{path}".endswith(f"/{name.lstrip('./')}") for path in paths), (
                f"{file.relative_to(ROOT)} names {name}, which is not there"
            )
