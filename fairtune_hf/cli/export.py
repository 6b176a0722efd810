"""`fairtune export`: a run's model as files that others open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairtune_hf.cli.arguments import (
    DataArguments,
    DataOptions,
    ExportArguments,
    restore,
)
from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.inputs import load_table, place_data, quiet_libraries
from fairtune_hf.cli.messages import RefusedError, say
from fairtune_hf.cli.stored_run import require_run
from fairtune_hf.data import ImageTable
from fairtune_hf.export import Bounds, ExportRefused, Request, export_run
from fairtune_hf.export.run import RECORD
from fairtune_hf.inference import Predictor, load_predictor
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.training import FitArguments
from fairtune_hf.training.external import require_adapter

PARSER = PARSERS["export"]


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, load and check; return the export to write."""
    (run, export), _ = PARSER.parse(arguments)
    request = _request(export)
    request.check()
    out = _require_place(export)
    folder = require_run(run)
    require_adapter(folder)
    quiet_libraries()
    predictor = load_predictor(folder.path, device="cpu", base_model=export.base_model)
    predictor.others.clear()  # what is exported is the refit that the run's groups were measured with
    table = _load_test(folder, predictor, export.data_root)

    def execute() -> None:
        try:
            record = export_run(predictor, folder, table, out, request)
        except ExportRefused as error:
            raise RefusedError(f"the export was refused: {error}") from error
        for check in record["checks"]:
            print(
                f"{check['compared']}: {check['largest_difference']:.2g} at most on {check['pictures']} pictures "
                f"({check['allowed']:g} is allowed)"
            )
        _print_groups(record.get("groups_after_export"))
        say(f"Export in {out}; how to use it is in {out / 'README.md'}")

    return execute


def _request(export: ExportArguments) -> Request:
    return Request(
        format=export.format,
        int8=export.int8,
        half=export.half,
        batch_size=export.batch_size,
        bounds=Bounds(
            auc_loss=export.max_auc_loss,
            shift=export.max_shift,
            calibration_loss=export.max_calibration_loss,
            turned=export.max_turned,
        ),
    )


def _require_place(export: ExportArguments) -> Path:
    """Return where the export goes: a new or empty folder, or an earlier export that may be replaced."""
    out = Path(str(export.out)).expanduser()
    if out.is_file():
        raise ValueError(f"--out: expected a folder, and {out} is a file. Choose another name.")
    if not out.is_dir() or not any(out.iterdir()):
        return out
    if not (out / RECORD).is_file():
        raise ValueError(
            f"--out: expected a new or empty folder, or an earlier export; {out} holds other files. Choose another folder."
        )
    if not export.overwrite:
        raise ValueError(
            f"--out: expected a new or empty folder, and {out} holds an export. Add --overwrite to replace it."
        )
    return out


def _load_test(folder: RunFolder, predictor: Predictor, data_root: str | None) -> ImageTable:
    """Load the run's test rows, on which the export is checked."""
    config = folder.read_config()
    data = restore(DataArguments, config)
    if data_root is not None:
        data.data_root = data_root
        place_data(data, {"dataset"})  # which the run's own record names
    options: Any = restore(DataOptions, config)
    table = load_table(data, options, restore(FitArguments, config), predictor, splits=("test",))
    told = folder.read_chosen().dataset.split_hash
    if told != table.split_hash:
        raise ValueError(
            f"--data-root: expected the rows and the split of the run (split hash {told[:12]}), got {table.split_hash[:12]}: an "
            "export is checked on the run's own test pictures. Restore the data, or say with --data-root where they are."
        )
    return table


def _print_groups(after: dict[str, Any] | None) -> None:
    for name, group in (after or {"groups": {}})["groups"].items():
        difference = group["auc_difference"]
        print(
            f"{name}: AUC {'not known' if difference is None else format(difference, '+.4f')}, mean score "
            f"{group['mean_shift']:+.4f}, calibration error {group['calibration_error_rise']:+.4f}, decisions turned "
            f"{100 * group['turned_share']:.1f} %"
        )
