#!/usr/bin/env bash
# Gradio 6.31.0: defining a class that derives from one of its components writes a .pyi file beside the module it stands in.
#
# The metaclass of all components renders a stub with every event method and writes it to the source file's name with
# .pyi in place of .py, at the moment the class statement runs: on import, or, for a class inside a function, on its
# call. Nothing is displayed, no instance is needed, and a folder that cannot be written to is passed over in silence. A
# program that is installed so changes its own site-packages when it is started, and in a checkout the new file shadows the
# module for type checkers. Of a class inside a function the stub is not even valid Python: the lines before the class
# are copied up to the blank line above it, and the class follows with the indentation it had. Changing the one instance (its
# `preprocess` and the like are looked up on it) has the effect without the file.
#
# Seen: before ['fields.py'], after ['fields.py', 'fields.pyi']; the stub is valid Python: False
# Exits 0 while this is so, 1 if it changes.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install gradio==6.31.0 >&2
mkdir "$folder/program"
cat > "$folder/program/fields.py" <<'PY'
"""A program's own field for a file."""

import gradio


def make_field():
    """Derive the field's class."""

    class OneFile(gradio.File):
        """A field for a file that hands it on as it is."""

        is_template = True

    return OneFile
PY
cd "$folder/program"
GRADIO_ANALYTICS_ENABLED=False PYTHONDONTWRITEBYTECODE=1 "$folder/env/bin/python" - <<'PY'
import ast
import os
import sys
from pathlib import Path

sys.path.insert(0, os.getcwd())
import fields
import gradio

before = sorted(os.listdir())
fields.make_field()
after = sorted(os.listdir())
try:
    ast.parse(Path("fields.pyi").read_text()) if "fields.pyi" in after else None
    valid = True
except SyntaxError:
    valid = False
print(f"gradio {gradio.__version__}")
print(f"before {before}, after {after}; the stub is valid Python: {valid}")
sys.exit((before, after, valid) != (["fields.py"], ["fields.py", "fields.pyi"], False))
PY
