"""`fairtune demo`: the whole way of a run on what the package embeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fairtune_hf.cli import evaluate, finetune, report, search
from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.messages import command_line, say
from fairtune_hf.cli.recipes import recipes_folder

PARSER = PARSERS["demo"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and check the search; return the four steps to run, one after the other."""
    (demo,), _ = PARSER.parse(arguments)
    recipe = recipes_folder() / "demo" / "search.yaml"
    overrides = [f"--{name}={getattr(demo, name)}" for name in ("out", "trials", "epochs", "seed")]
    run_search = search.plan(
        ["--config", str(recipe), *overrides, *(["--overwrite"] if demo.overwrite else [])]
    )

    def execute() -> None:
        say("1 of 4: search")
        run_search()
        say("2 of 4: refit of the choice and its controls")
        finetune.plan(["--run", demo.out, f"--seeds={demo.seeds}"])()
        say("3 of 4: evaluation")
        evaluate.plan(["--run", demo.out])()
        say("4 of 4: report")
        report.plan(["--run", demo.out])()
        say("\nNext, a picture of your own:")
        say(f"  {command_line('predict', demo.out, 'PICTURE.png')}")
        say(f"  {command_line('serve', demo.out)}   # the same as a page; needs the extra `serve`")

    return execute
