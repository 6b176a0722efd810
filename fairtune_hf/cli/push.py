"""`fairtune push`: adapter, card, numbers and report of a run to the Hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.stored_run import require_run
from fairtune_hf.hub import plan_push, push_run

PARSER = PARSERS["push"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check what would be sent; return the upload to run."""
    (run, push), _ = PARSER.parse(arguments)
    folder = require_run(run)
    repo_id = str(push.repo_id)
    settings = {
        "with_base": push.with_base,
        "base_dir": None if push.base_dir is None else Path(push.base_dir),
        "with_predictions": push.with_predictions,
        "private": not push.public,
    }
    planned = plan_push(folder.path, repo_id, **settings)
    if push.dry_run:
        return lambda: print(planned.render())
    return lambda: print(push_run(folder.path, repo_id, **settings).render())
