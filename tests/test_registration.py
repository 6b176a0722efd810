"""`import fairtune_hf` imports neither PEFT nor torch, and PEFT knows the tuner in any order."""

from __future__ import annotations

import subprocess
import sys

import pytest

KNOWN = """
import peft
from peft import mapping
assert "FAIRMASK" in peft.PeftType.__members__
config_class = mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType.FAIRMASK]
assert config_class is fairtune_hf.FairMaskConfig
"""
LIGHT = """
import sys
import fairtune_hf
assert not {"peft", "torch", "transformers"} & set(sys.modules)
"""
THREADS = """
import threading
import fairtune_hf
failures, barrier = [], threading.Barrier(4)
def check(work):
    barrier.wait()
    try:
        work()
    except BaseException as error:
        failures.append(error)
def by_peft():
    import peft
    assert "FAIRMASK" in peft.PeftType.__members__
def by_name():
    assert fairtune_hf.FairMaskConfig(mask="attention").peft_type == "FAIRMASK"
def by_part():
    from peft.utils import PeftType
threads = [threading.Thread(target=check, args=(w,)) for w in (by_peft, by_name, by_part, by_name)]
for thread in threads: thread.start()
for thread in threads: thread.join(120)
assert not any(thread.is_alive() for thread in threads)
assert not failures, failures
"""
CASES = {
    "fairtune_hf first": LIGHT + "import peft\n",
    "a part of PEFT first": LIGHT + "from peft.utils import PeftType\n",
    "through importlib": LIGHT + "import importlib; importlib.import_module('peft.config')\n",
    "PEFT first": "import peft\nimport fairtune_hf\n",
    "a public name first": "from fairtune_hf import FairMaskConfig\nimport fairtune_hf\n",
    "the tuner first": "import fairtune_hf.tuner\n",
    "imported again": LIGHT
    + "import importlib; importlib.reload(fairtune_hf)\n"
    + "import peft; importlib.reload(peft); importlib.reload(fairtune_hf)\n",
    "in threads": THREADS,
    "another hook in front": LIGHT
    + "class Nothing:\n    @staticmethod\n    def find_spec(*_): return None\n"
    + "sys.meta_path[:0] = [Nothing]\nimport peft\n",
}


def run(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("case", [
    "fairtune_hf first", "PEFT first", "in threads",
    *(pytest.param(name, marks=pytest.mark.slow) for name in CASES
      if name not in ("fairtune_hf first", "PEFT first", "in threads")),
])  # fmt: skip
def test_peft_knows_the_tuner(case: str) -> None:
    done = run(CASES[case] + KNOWN)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_hook_is_left_on_peft() -> None:
    done = run(
        "import fairtune_hf, peft, inspect\n"
        "assert type(peft.__loader__).__module__ == '_frozen_importlib_external'\n"
        "assert peft.__spec__.loader is peft.__loader__\n"
        "assert 'PeftModel' in inspect.getsource(peft)\n",
        "-X",
        "importtime",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "fairtune_hf.tuner" in done.stderr


def test_a_missing_peft_is_still_a_missing_peft() -> None:
    done = run(
        "import sys, fairtune_hf\n"
        "sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        "import peft\n"
    )
    assert done.returncode == 1
    assert "No module named 'peft'" in done.stderr


def test_the_audit_needs_neither_torch_nor_peft() -> None:
    done = run(
        "import sys, fairtune_hf.cli.main, fairtune_hf.cli.evaluate\n"
        "print(sorted({'torch', 'peft', 'datasets'} & set(sys.modules)))\n"
    )
    assert done.stdout.strip() == "[]", done.stderr
