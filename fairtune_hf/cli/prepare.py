"""`fairtune prepare`: decode and check a data set once, or only write its table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from fairtune_hf.cli.arguments import (
    DataArguments,
    DataOptions,
    OutputArguments,
    PrepareArguments,
)
from fairtune_hf.cli.inputs import given_options, place_data
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.data import list_datasets, prepare

PARSER = RecipeParser(
    "prepare",
    "Decode a data set's pictures once, check it for leaks and groups too small, and write table.csv, the "
    "pictures and data_report.html; the folder can then be given as --data-root.",
    "fairtune prepare --dataset ham10000 --data-root DIR --label-rule clinical --out prepared/ham",
    (DataArguments, DataOptions, PrepareArguments, OutputArguments),
)


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse and prepare; what is wrong with the data is bad input, found before anything is written."""
    (data, options, preparation, output), given = PARSER.parse(arguments)
    if preparation.list:
        return lambda: print(list_datasets())
    if output.out is None:
        raise ValueError(
            "--out: expected the folder to prepare into, got none. Example: --out prepared/ham"
        )
    place_data(data, given)
    settings = dataclasses.asdict(data)
    summary = prepare(
        settings.pop("dataset"),
        settings.pop("data_root"),
        out=output.out,
        image_size=preparation.image_size,
        seed=preparation.seed,
        metadata_only=preparation.metadata_only,
        overwrite=output.overwrite,
        **settings,
        **given_options(options),
    )
    return lambda: print(summary.render())
