"""The run folders of the report tests, for the tests of cards and push."""

import importlib.util
from pathlib import Path

_file = Path(__file__).parents[1] / "reports" / "conftest.py"
_spec = importlib.util.spec_from_file_location("report_fixtures", _file)
_fixtures = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)

evaluated = _fixtures.evaluated
searched = _fixtures.searched
nasty = _fixtures.nasty
make_run = _fixtures.make_run
