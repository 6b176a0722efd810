"""Break the tuner in one place at a time; its tests must notice.

    python recipes/checks/mutations.py [--json FILE] [--only NAME ...]

Works on a copy of the package and the tests in a temporary folder. Each mutation has to make at least
two of the tests fail that are asked about it. Some minutes.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import peft  # noqa: F401  loaded once for all forks, as are torch, timm and transformers
import pytest
import timm  # noqa: F401
import torch
import transformers.models.vit.modeling_vit  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]

# name: (file, text that is there, what takes its place, tests that are asked: files and words)
LIFE, CONTRACT, KEYS = "life_cycle", "contract", "keys"
MUTATIONS = {
    "merge copies nothing": (
        "layer.py",
        "base.copy_(parameter)",
        "pass",
        ([CONTRACT], "merge"),
    ),
    "merge keeps no base values": (
        "layer.py",
        "self._base_values[name] = base.detach().clone()",
        "self._base_values[name] = base.detach()",
        ([CONTRACT], "merge_unmerge"),
    ),
    "unmerge restores nothing": (
        "layer.py",
        "self.base_layer.get_parameter(name).copy_(values)",
        "pass",
        ([CONTRACT], "merge_unmerge"),
    ),
    "disable leaves the copies running": (
        "layer.py",
        "if self._disable_adapters or self.merged_adapters:",
        "if self.merged_adapters:",
        ([CONTRACT], "disable"),
    ),
    "disable does not unmerge": (
        "layer.py",
        "        if self.merged:\n            self.unmerge()\n        for name",
        "        for name",
        ([LIFE], "disabling"),
    ),
    "keys name the module, not the part": (
        "anatomy.py",
        'return "block", f"blocks.{place.block}.{place.unit}.{within}"',
        'return "block", name',
        ([KEYS, CONTRACT], "names or keys"),
    ),
    "keys are not renamed within a part": (
        "anatomy.py",
        "if renamed != name:",
        "if False:",
        ([KEYS, CONTRACT], "names or keys"),
    ),
    "a copy shares what it trains": (
        "layer.py",
        "memo[id(parameter)] = _clone(parameter, on_meta)",
        "pass",
        ([CONTRACT], "base_weights or disable"),
    ),
    "a copy shares nothing": (
        "layer.py",
        "{id(parameter): parameter for parameter in module.parameters()}",
        "{}",
        ([CONTRACT], "save_and_load or gradients"),
    ),
    "a copy has its own config": (
        "layer.py",
        "memo[id(child.config)] = child.config",
        "pass",
        ([LIFE], "attention_implementation"),
    ),
    "attention and MLP change places": (
        "mask.py",
        '"block3": ("layernorm", "attention", "mlp")',
        '"block3": ("layernorm", "mlp", "attention")',
        (["mask", CONTRACT], "block3 or keys_name or canonical"),
    ),
    "blocks are counted from the end": (
        "anatomy.py",
        "enumerate(self.blocks):\n            for unit",
        "enumerate(self.blocks[::-1]):\n            for unit",
        (["architectures"], "each_bit"),
    ),
    "the second norm is forgotten": (
        "mask.py",
        '"layernorm": ("norm1", "norm2"),',
        '"layernorm": ("norm1",),',
        ([KEYS, CONTRACT, "mask"], ""),
    ),
    "the head is not trained": (
        "plan.py",
        'leaf.region == "head" or leaf.region in also',
        "leaf.region in also",
        ([CONTRACT], "keys or untrained"),
    ),
    "missing keys pass": (
        "state.py",
        "if missing else []",
        "if False else []",
        ([LIFE], "does_not_fit"),
    ),
    "transformers' loading is left as it is": (
        "model.py",
        'model.__dict__["_load_pretrained_model"] = load_pretrained_model',
        "pass",
        ([CONTRACT], "transformers"),
    ),
}


class Failing:
    """Pytest plugin: the names of the tests that fail."""

    def __init__(self):
        self.names = []

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.names.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.names.append(report.nodeid)


def run_tests(folder, files, words):
    """The names of the failing tests, two at the most, from a fork that has the libraries loaded."""
    reading, writing = os.pipe()
    if pid := os.fork():
        os.close(writing)
        with os.fdopen(reading) as pipe:
            names = json.loads(pipe.read() or '["the process died"]')
        os.waitpid(pid, 0)
        return names
    os.close(reading)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    failing = Failing()
    arguments = [*(f"tests/tuner/test_{name}.py" for name in files), "-q", "--maxfail=2", "--tb=no"]
    arguments += ["-p", "no:cacheprovider", "-W", "ignore", *(["-k", words] if words else [])]
    code = pytest.main(arguments, plugins=[failing])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        failing.names = []  # no test has run
    with os.fdopen(writing, "w") as pipe:
        pipe.write(json.dumps(failing.names))
    os._exit(0)


def mutate(name, folder):
    """Make one mutation in a copy, run the tests and undo it."""
    file, before, after, (files, words) = MUTATIONS[name]
    path = folder / "fairtune_hf" / "tuner" / file
    text = path.read_text()
    if text.count(before) != 1:
        raise SystemExit(f"mutation {name!r}: its text occurs {text.count(before)} times in {file}")
    path.write_text(text.replace(before, after))
    failing = run_tests(folder, files, words)
    path.write_text(text)
    return failing


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--only", nargs="+", default=list(MUTATIONS), choices=list(MUTATIONS))
    options = parser.parse_args()
    result = {}
    torch.set_num_threads(1)
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
