"""`fairtune push`: adapter, card, numbers and report of a run to the Hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fairtune_hf.cli.arguments import PushArguments, RunArguments
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.cli.stored_run import require_run
from fairtune_hf.hub import plan_push, push_run

PARSER = RecipeParser(
    "push",
    "Upload a run's adapter, model card, run.json and report to the Hub. Patient ids never leave, nothing "
    "pickled is sent, and predictions only when asked for.",
    "fairtune push --run runs/nih --repo-id ORG/NAME --dry-run",
    (RunArguments, PushArguments),
)


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check what would be sent; return the upload to run."""
    (run, push), _ = PARSER.parse(arguments)
    folder = require_run(run)
    if push.repo_id is None:
        raise ValueError(
            "--repo-id: expected the repository to push to, got none. Example: --repo-id ORG/NAME"
        )
    settings = {
        "with_base": push.with_base,
        "base_dir": None if push.base_dir is None else Path(push.base_dir),
        "with_predictions": push.with_predictions,
        "private": push.private,
    }
    planned = plan_push(folder.path, push.repo_id, **settings)
    if push.dry_run:
        return lambda: print(planned.render())
    return lambda: print(push_run(folder.path, push.repo_id, **settings).render())
