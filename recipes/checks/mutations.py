"""Break the tuner in one place at a time; its tests must notice.

    python recipes/checks/mutations.py [--json FILE] [--only NAME ...]

Works on a copy of the package and the tests in a temporary folder. Each mutation has to make at least
two tests fail. Some minutes.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# name: (file, text that is there, what takes its place)
MUTATIONS = {
    "merge copies nothing": ("layer.py", "base.copy_(parameter)", "pass"),
    "merge keeps no base values": (
        "layer.py",
        "self._base_values[name] = base.detach().clone()",
        "self._base_values[name] = base.detach()",
    ),
    "unmerge restores nothing": (
        "layer.py",
        "self.base_layer.get_parameter(name).copy_(values)",
        "pass",
    ),
    "disable leaves the copies running": (
        "layer.py",
        "if self._disable_adapters or self.merged_adapters:",
        "if self.merged_adapters:",
    ),
    "disable does not unmerge": (
        "layer.py",
        "        if self.merged:\n            self.unmerge()\n        for name",
        "        for name",
    ),
    "keys name the module, not the part": (
        "anatomy.py",
        'return "block", f"blocks.{place.block}.{place.unit}.{within}"',
        'return "block", name',
    ),
    "keys are not renamed within a part": ("anatomy.py", "if renamed != name:", "if False:"),
    "a copy shares what it trains": (
        "layer.py",
        "memo[id(parameter)] = _clone(parameter, on_meta)",
        "pass",
    ),
    "a copy shares nothing": (
        "layer.py",
        "{id(parameter): parameter for parameter in module.parameters()}",
        "{}",
    ),
    "a copy has its own config": ("layer.py", "memo[id(child.config)] = child.config", "pass"),
    "attention and MLP change places": (
        "mask.py",
        '"block3": ("layernorm", "attention", "mlp")',
        '"block3": ("layernorm", "mlp", "attention")',
    ),
    "blocks are counted from the end": (
        "anatomy.py",
        "for index, block in enumerate(self.blocks):\n            for unit",
        "for index, block in enumerate(self.blocks[::-1]):\n            for unit",
    ),
    "the second norm is forgotten": (
        "mask.py",
        '("norm1", "norm2"),\n    "block"',
        '("norm1",),\n    "block"',
    ),
    "the head is not trained": (
        "plan.py",
        'leaf.region == "head" or leaf.region in also',
        "leaf.region in also",
    ),
    "missing keys pass": ("state.py", "if missing else []", "if False else []"),
    "transformers' loading is left as it is": (
        "model.py",
        'model.__dict__["_load_pretrained_model"] = load_pretrained_model',
        "pass",
    ),
}


def run_tests(folder):
    """The names of the failing tests, three at the most."""
    # the quickest to notice come first
    first = ("contract", "keys", "life_cycle", "mask", "counts", "architectures")
    files = [f"tests/tuner/test_{name}.py" for name in first]
    command = [sys.executable, "-m", "pytest", *files, "-q", "--maxfail=3", "--tb=no"]
    command += ["-p", "no:cacheprovider", "-W", "ignore", "-m", "not slow"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)


def mutate(name, folder):
    """Make one mutation in a copy, run the tests and undo it."""
    file, before, after = MUTATIONS[name]
    path = folder / "fairtune_hf" / "tuner" / file
    text = path.read_text()
    if text.count(before) != 1:
        raise SystemExit(f"mutation {name!r}: its text occurs {text.count(before)} times in {file}")
    path.write_text(text.replace(before, after))
    failing = run_tests(folder)
    path.write_text(text)
    return failing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--only", nargs="+", default=list(MUTATIONS), choices=list(MUTATIONS))
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for part in ("fairtune_hf", "tests/tuner"):
            shutil.copytree(ROOT / part, folder / part)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for name in options.only:
            result[name] = mutate(name, folder)
            verdict = "noticed" if len(result[name]) >= 2 else "NOT NOTICED"
            print(f"{verdict:12}{name}: {len(result[name])} failing", flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(len(failing) < 2 for failing in result.values()))


if __name__ == "__main__":
    sys.exit(main())
