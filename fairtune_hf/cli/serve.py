"""`fairtune serve`: a page on this machine that scores one picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.inference import load_predictor
from fairtune_hf.serve.server import bind, require_gradio, run_page

PARSER = PARSERS["serve"]
_say = partial(print, flush=True)  # who waits for the address may read it through a pipe


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, take the address and load the model; return the serving."""
    (serve,), _ = PARSER.parse(arguments)
    require_gradio()
    bound = bind(serve.host, serve.port)
    try:
        predictor = load_predictor(
            serve.run or serve.model, device=serve.device, base_model=serve.base_model
        )
    except BaseException:
        bound.close()
        raise

    def execute() -> None:
        with bound:
            # Ctrl-C is how a page ends; where it is ignored, as in a script's background, the server just returns.
            with suppress(KeyboardInterrupt):
                run_page(predictor, bound, max_upload_mb=serve.max_upload_mb, say=_say)
            _say("The page is closed. No picture was kept.")

    return execute
