"""PEFT knows FairMask as soon as both are imported, and neither waits for the other."""

from __future__ import annotations

import subprocess
import sys

import pytest

KNOWN = """
from peft import mapping
assert {"FAIRMASK"} <= set(peft.PeftType.__members__)
config = mapping.PEFT_TYPE_TO_CONFIG_MAPPING["FAIRMASK"](mask="none")
assert type(config).__module__ == "fairtune_hf.tuner.config"
assert peft.__spec__.loader is peft.__loader__ and peft.__loader__.get_source("peft")
"""


def run(code: str) -> None:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_our_import_alone_loads_neither_torch_nor_peft() -> None:
    run("import fairtune_hf, sys; assert not {'torch', 'peft', 'numpy'} & set(sys.modules)")


@pytest.mark.slow
def test_peft_imported_later_knows_fairmask() -> None:
    # Asked for, but not imported yet, by who wants to know whether it is there.
    first = "import fairtune_hf, importlib.util, sys; assert importlib.util.find_spec('peft')"
    run(f"{first}; assert 'peft' not in sys.modules; import peft\n{KNOWN}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    [
        "import peft, fairtune_hf",
        "from fairtune_hf.tuner.config import FairMaskConfig; import peft",
    ],
)
def test_peft_imported_earlier_or_by_us_knows_fairmask(imports: str) -> None:
    run(f"{imports}\n{KNOWN}")
