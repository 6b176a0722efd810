"""Run PEFT's own shared tests on FairMask cases.

    python recipes/checks/peft_shared_tests.py [--peft VERSION] [--json FILE] [-- PYTEST ARGUMENTS]

Downloads the source distribution of the installed (or given) peft with pip into a temporary folder,
and runs its `tests/test_custom_models.py` (with `testing_common.py`) and `tests/test_config.py` there
with the rows of their tables replaced by FairMask's: 7 architectures x 6 masks. The tests' code is
PEFT's, unchanged; nothing of it is kept. About ten minutes on two cores.
"""

import argparse
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent


def fetch_tests(peft_version, folder):
    """Download and unpack the source distribution; return the folder that holds `tests`."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        ":all:",
    ]
    subprocess.run([*command, "--dest", folder, f"peft=={peft_version}"], check=True)
    with tarfile.open(next(Path(folder).glob("peft-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    root = next(path for path in Path(folder).iterdir() if (path / "tests").is_dir())
    (root / "tests" / "__init__.py").touch()
    return root


def run(root, arguments):
    """Run the two files with the plugin that puts FairMask's rows in; return the text and the code."""
    command = [
        *(
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "fairmask_rows",
            "-p",
            "no:cacheprovider",
            "-q",
            "-rs",
        ),
        *("--rootdir", str(root), "-c", "/dev/null", "--import-mode=importlib"),
        *("tests/test_custom_models.py", "tests/test_config.py"),
        *arguments,
    ]
    environment = {
        **__import__("os").environ,
        "PYTHONPATH": f"{HERE}:{HERE.parent.parent}:{root}",
        "HF_HUB_OFFLINE": "1",
    }
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines = []
    for line in process.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return "".join(lines), process.wait()


def summarise(text):
    """Read the counts of pytest's last line and of the plugin's line."""
    last = [line for line in text.splitlines() if re.search(r"\d+ (passed|failed|error)", line)][
        -1:
    ]
    counts = {
        key: int(n)
        for n, key in re.findall(
            r"(\d+) (passed|failed|skipped|errors?|deselected)", last[0] if last else ""
        )
    }
    left_out = re.search(r"left out: (\{.*\})", text)
    return {**counts, "left_out": json.loads(left_out.group(1)) if left_out else {}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peft", default=version("peft"), help="version whose tests are run")
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("arguments", nargs="*", help="passed to pytest, after --")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text, code = run(fetch_tests(options.peft, folder), options.arguments)
    result = {"peft": options.peft, **summarise(text)}
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
