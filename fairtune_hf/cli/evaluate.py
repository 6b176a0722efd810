"""`fairtune evaluate`: the numbers of a run, from its predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairtune_hf.cli.arguments import EvaluateArguments, RunArguments
from fairtune_hf.cli.inputs import say
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.reports import evaluate_run, format_table
from fairtune_hf.training import RunFolder

PARSER = RecipeParser(
    "evaluate",
    "Measure every refit of a run on whole splits, with intervals by patient, and compare the chosen mask "
    "with its controls. Numbers go to run.json.",
    "fairtune evaluate --run runs/nih",
    (RunArguments, EvaluateArguments),
)


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check; return the evaluation to run."""
    (run, evaluation), _ = PARSER.parse(arguments)
    folder = require_run(run)
    require_predictions(folder)

    def execute() -> None:
        record = evaluate_run(
            folder.path, n_resamples=evaluation.resamples, seed=evaluation.bootstrap_seed
        )
        print(format_table(record))
        print(record["verdict"])
        say(f"Next: fairtune report --run {folder.path}")

    return execute


def require_run(run: RunArguments) -> RunFolder:
    """Return the folder `--run` names.

    Raises:
        ValueError: No `--run`.
        FileNotFoundError: No run there.
    """
    if run.run is None:
        raise ValueError(
            "--run: expected the folder of an earlier step, got none. Example: --run runs/demo"
        )
    folder = RunFolder(run.run)
    folder.read()
    return folder


def require_predictions(folder: RunFolder) -> None:
    """Refuse a run whose refits have not been done.

    Raises:
        FileNotFoundError: The choice or a control has no predictions.
    """
    controls = folder.read()["controls"] or {}
    for where in (folder, *(folder.control(name) for name in controls)):
        if not where.predictions_file.is_file():
            raise FileNotFoundError(
                f"--run: expected the predictions of the refits in {where.predictions_file}, and there are none. "
                f"Run `fairtune finetune --run {folder.path}` first; it goes on where it stopped."
            )
