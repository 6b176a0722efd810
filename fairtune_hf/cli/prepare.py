"""`fairtune prepare`: decode and check a data set once, or only write its table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.inputs import given_options, place_data
from fairtune_hf.data import list_datasets, prepare

PARSER = PARSERS["prepare"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and prepare; what is wrong with the data is bad input, found before anything is written."""
    (data, options, preparation, output), given = PARSER.parse(arguments)
    if preparation.list:
        return lambda: print(list_datasets())
    place_data(data, given)
    settings = dataclasses.asdict(data)
    summary = prepare(
        settings.pop("dataset"),
        settings.pop("data_root"),
        out=str(output.out),
        image_size=preparation.image_size,
        seed=preparation.seed,
        metadata_only=preparation.metadata_only,
        overwrite=output.overwrite,
        **settings,
        **given_options(options),
    )
    return lambda: print(summary.render())
