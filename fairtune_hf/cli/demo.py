"""`fairtune demo`: the whole way of a run on what the package embeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fairtune_hf.cli import evaluate, finetune, report, search
from fairtune_hf.cli.messages import say
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.cli.recipes import recipes_folder


@dataclass(kw_only=True)
class DemoArguments:
    """The few things a demo can be asked for."""

    out: str = field(default="runs/demo", metadata={"help": "Folder of the run."})
    trials: int = field(default=12, metadata={"help": "Finished trials in all."})
    epochs: int = field(default=3, metadata={"help": "Epochs of one training."})
    seeds: int = field(default=3, metadata={"help": "Refits of the choice and of each control."})
    seed: int = field(
        default=0, metadata={"help": "Seed of the demo set, the search and the first refit."}
    )
    overwrite: bool = field(
        default=False, metadata={"help": "Delete what the folder holds and start again."}
    )


PARSER = RecipeParser(
    "demo",
    "Search, refit, evaluate and report on the embedded demo set with the embedded backbone: about two "
    "minutes on two cores, no download.",
    "fairtune demo --out runs/demo",
    (DemoArguments,),
)


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

    return execute
