"""`fairtune evaluate`: the numbers of a run from its predictions, or of anybody's predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairtune_hf.cli.audit import plan_audit
from fairtune_hf.cli.commands import PARSERS

PARSER = PARSERS["evaluate"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check; return the evaluation to run."""
    (run, evaluation, audit, external, options), given = PARSER.parse(arguments)
    if audit.predictions is not None:
        return plan_audit(audit, evaluation, options)
    # Only now: the Trainer takes seconds to import, and an audit does not need it.
    from fairtune_hf.cli.stored_run import (
        place_external,
        plan_evaluation,
        plan_external,
        require_run,
    )

    folder = require_run(run)
    place_external(external, given)
    if external.dataset is not None:
        return plan_external(folder, evaluation, audit, external, options)
    return plan_evaluation(folder, evaluation)
