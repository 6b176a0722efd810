"""`fairtune predict`: the scores of pictures by a trained model."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from fairtune_hf.cli.arguments import PredictArguments
from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.messages import RefusedError, say
from fairtune_hf.data.image_source import ImageError
from fairtune_hf.inference import Prediction, Predictor, load_predictor
from fairtune_hf.inference.listing import Listing, list_pictures, read_listing
from fairtune_hf.inference.results import as_text, check_out, tabulate, write_results
from fairtune_hf.naming import shortened

PARSER = PARSERS["predict"]
_BAR_AFTER_SECONDS = 2.0


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, list the pictures and load the model; return the scoring to run."""
    (run, asked), _ = PARSER.parse(arguments)
    if asked.out is not None:
        check_out(asked.out)
    listing = _list(asked)
    # Deprecations that the Hugging Face libraries raise in each other are not the user's to mend.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", module="PIL")  # odd EXIF data is no news
    transformers_logging.set_verbosity_error()
    predictor = load_predictor(
        run.run or asked.model,
        device=asked.device,
        batch_size=asked.batch_size,
        base_model=asked.base_model,
        threshold=asked.threshold,
    )

    def execute() -> None:
        found = _score(predictor, listing, asked.workers)
        _say_unreadable(listing, found, asked.strict)
        frame = tabulate(listing, found)
        if asked.out is None:
            print(as_text(frame), end="")
        else:
            write_results(frame, Path(asked.out), predictor)
        _say_what_it_is(predictor, found)
        if asked.out is not None:
            say(f"Scores of {len(found)} pictures in {asked.out}")

    return execute


def _list(asked: PredictArguments) -> Listing:
    if asked.table is not None:
        return read_listing(asked.table, asked.image_column)
    listing = list_pictures(asked.pictures or [])
    for note in listing.notes:
        say(note)
    return listing


def _score(
    predictor: Predictor, listing: Listing, workers: int | None
) -> list[Prediction | ImageError]:
    each = predictor.each(listing.paths, workers=workers)
    bar = tqdm(each, total=len(listing.paths), desc="predict", unit="img", delay=_BAR_AFTER_SECONDS)
    return list(bar)


def _say_unreadable(
    listing: Listing, found: Sequence[Prediction | ImageError], strict: bool
) -> None:
    """Name the pictures that cannot be read; refuse where that is to end it, or none can be.

    Raises:
        RefusedError: `strict` was asked, or nothing was scored.
    """
    bad = [
        f"{name} {told}"
        for name, told in zip(listing.names, found, strict=True)
        if isinstance(told, ImageError)
    ]
    if not bad:
        return
    if strict or len(bad) == len(found):
        raise RefusedError(
            f"PICTURES: expected every picture to be readable and {len(bad)} of {len(found)} are not: "
            f"{shortened(bad)}. {'Leave --strict out to go on without them.' if strict else 'Nothing was written.'}"
        )
    for line in bad:
        print(f"Cannot be read: {line}", file=sys.stderr)
    say(f"{len(bad)} of {len(found)} pictures cannot be read and have no score.")


def _say_what_it_is(predictor: Predictor, found: Sequence[Prediction | ImageError]) -> None:
    """Say what the scores are, what was measured, and in what the pictures are unlike the training's."""
    told, word = predictor.described, predictor.id2label[1]
    say(
        f"Score: probability of {word!r} by the refit with seed {told.seed}"
        + (
            f" (beside it those of seeds {', '.join(map(str, predictor.others))})"
            if predictor.others
            else ""
        )
        + f"; {word!r} is called from {predictor.threshold:.4g} on, {_origin(predictor)}."
    )
    groups = [
        f"{name} {row['auc']:.3f}"
        for name, row in predictor.groups.items()
        if row.get("auc") is not None
    ]
    if groups:
        say(f"Measured on {told.measured_on}, AUC by {told.sensitive}: {', '.join(groups)}.")
    if told.input.made_from:
        say(
            f"Warning: the training pictures of {told.dataset} were made from arrays ({told.input.made_from}), which is not "
            "repeated here: give pictures that were made so."
        )
    scored = [each for each in found if isinstance(each, Prediction)]
    kinds = Counter(words.split(" is ")[0] for each in scored for words in each.warnings)
    for kind, count in kinds.most_common():
        say(f"Warning: {count} of {len(scored)} pictures are unlike the training pictures: {kind}.")
    say("For research; not a medical device.")


def _origin(predictor: Predictor) -> str:
    point = predictor.operating_point
    if point is None:
        return "a threshold that nobody chose: the run was not evaluated"
    if point.rule == "given":
        return "as was asked"
    return (
        f"chosen on {point.chosen_on}"
        if point.rule != "fixed"
        else "fixed beforehand, not chosen for any use"
    )
