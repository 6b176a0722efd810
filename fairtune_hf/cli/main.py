"""The `fairtune` command: finds the subcommand, turns what goes wrong into messages and exit codes.

A subcommand first plans (parses, loads and checks; what fails there is bad input, exit code 2, and
nothing was written), then runs (what fails there is a failed run, exit code 1, with its traceback).
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from types import FrameType

from fairtune_hf.cli.disk import closed_words, full_words, is_closed, is_full
from fairtune_hf.cli.messages import RefusedError
from fairtune_hf.exit_codes import (
    BAD_INPUT,
    DISK_FULL,
    DONE,
    FAILED,
    INTERRUPTED,
    NO_READER,
    PARENT,
)
from fairtune_hf.naming import closest_name
from fairtune_hf.version import __version__

COMMANDS = {
    "demo": "Search, refit, evaluate and report on the embedded demo set; no download.",
    "prepare": "Decode a data set once, check it, and show its groups, labels and splits.",
    "search": "Search the mask and the learning rate with the best worst-group AUC.",
    "finetune": "Train the mask a search chose, and its controls, with several seeds.",
    "evaluate": "Measure the refits on whole splits, with intervals and paired comparisons.",
    "compare": "Compare the paper's methods at one budget, with paired tests, ranks and cost.",
    "report": "Write report.html and the model card of a run.",
    "card": "Write the model card of an evaluated run.",
    "predict": "Score pictures with a run's model, an adapter or a Hub id.",
    "export": "Write a run's model as files that transformers, ONNX or PyTorch open, checked.",
    "push": "Upload adapter, card, numbers and report of a run to the Hub.",
    "serve": "Open a local page that scores one picture at a time, and keeps none.",
    "profile": "Train a few steps of a recipe and show where the time goes, with advice.",
    "recipes": "List the recipes that come with the package.",
}

_AT_ONCE = frozenset({"predict"})  # what writes all or nothing, at its end
_KEPT = "What was finished is saved; go on"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code: 0 done, 1 failed, 2 bad input, 130 interrupted.

    Where the reader of its output ends first, as `head` does, so does the command, quietly, with 141.
    """
    _open_standard_streams()
    try:
        code = _main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _write_no_more()
        return NO_READER
    except OSError as error:
        if not is_full(error):
            raise
        _write_no_more()
        return _refuse("fairtune", f"standard output could not be written: {error.strerror}.")
    return code


def _open_standard_streams() -> None:
    """Open those that were closed (`>&-`) to nowhere: a file of ours would else get their number, and what is printed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _write_no_more() -> None:
    """Send standard output nowhere: Python would write what is left once more, at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return DONE if words else BAD_INPUT
    if words[0] == "--version":
        print(f"fairtune_hf {__version__}")
        return DONE
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        close = closest_name(command, COMMANDS)
        hint = f"Did you mean {close}?" if close else f"The commands are {', '.join(COMMANDS)}."
        return _refuse("fairtune", f"expected a command, got {command!r}. {hint}")
    previous = signal.signal(signal.SIGTERM, _as_keyboard_interrupt)
    try:
        return _plan_and_run(command, rest)
    except KeyboardInterrupt:
        kept = "Nothing was written; begin again" if command in _AT_ONCE else _KEPT
        print(f"\nInterrupted. {kept} with\n  fairtune {' '.join(words)}", file=sys.stderr)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _plan_and_run(command: str, arguments: list[str]) -> int:
    from fairtune_hf.cli.commands import PARSERS

    if {"-h", "--help", "--help-all"} & set(arguments):
        print(PARSERS[command].format_help(whole="--help-all" in arguments), end="")
        return DONE
    who = f"fairtune {command}"
    try:
        PARSERS[command].parse(arguments)  # what is mistyped is said before PyTorch is imported
        run = _plan(command, arguments)
    except Exception as error:
        _raise_if_of_output(error)
        if is_full(error):
            return _end_by_disk(who, error, arguments)
        if isinstance(error, ValueError | OSError):
            return _refuse(who, str(error))
        raise
    try:
        run()
    except RefusedError as error:
        return _refuse(who, str(error))
    except Exception as error:  # the one place that turns a failed run into its exit code
        _raise_if_of_output(error)
        if is_full(error):
            return _end_by_disk(who, error, arguments)
        if is_closed(error):
            return _refuse(who, closed_words(error))
        traceback.print_exc()
        print(f"{who}: the run failed; what was finished before is kept.", file=sys.stderr)
        return FAILED
    return DONE


def _plan(command: str, arguments: list[str]) -> Callable[[], None]:
    plan: Callable[[list[str]], Callable[[], None]]
    plan = importlib.import_module(f"fairtune_hf.cli.{command}").plan
    return plan(arguments)


def _end_by_disk(who: str, error: Exception, arguments: Sequence[str]) -> int:
    """Say that a disk is full; a worker tells whoever started it by its exit code."""
    _refuse(who, full_words(error, arguments))
    return DISK_FULL if PARENT in os.environ else BAD_INPUT


def _raise_if_of_output(error: Exception) -> None:
    """Raise on what is wrong with standard output alone: its reader has gone, or it is a file on a full disk."""
    if isinstance(error, BrokenPipeError) and _has_no_reader():
        raise error
    if is_full(error):
        print(flush=True)  # fails as well where it is this that cannot be written


def _has_no_reader() -> bool:
    """Whether it is standard output that broke, not a connection of the run."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _refuse(who: str, message: str) -> int:
    print(
        textwrap.fill(f"{who}: {message}", 100, break_long_words=False, break_on_hyphens=False),
        file=sys.stderr,
    )
    return BAD_INPUT


def _as_keyboard_interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _help() -> str:
    lines = [
        "fairtune: search which modules of a pre-trained ViT to fine-tune, so that the worst group does well.",
        "",
        "Example: fairtune demo --out runs/demo",
        "",
        *(f"  {name:<10} {purpose}" for name, purpose in COMMANDS.items()),
        "",
        "`fairtune COMMAND --help` shows the flags of a command and an example. For research; not a medical device.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
