"""The subcommands as the help shows them: purpose, example, flags, and the flags that must not be missing.

Imports neither PyTorch nor the Hugging Face libraries, so that a page of help, a mistyped flag or a
missing one is answered at once. What a subcommand does is in the module of its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairtune_hf import data as data_sets
from fairtune_hf.cli.arguments import (
    AuditArguments,
    CardArguments,
    CompareArguments,
    DataArguments,
    DemoArguments,
    EvaluateArguments,
    ExportArguments,
    ExternalArguments,
    MaskArguments,
    ModelArguments,
    OutputArguments,
    PredictArguments,
    PrepareArguments,
    ProfileArguments,
    PushArguments,
    RefitArguments,
    ReportArguments,
    RunArguments,
    ServeArguments,
    data_options,
)
from fairtune_hf.cli.parser import RecipeParser
from fairtune_hf.naming import flag_of
from fairtune_hf.search import BudgetArguments, SearchArguments
from fairtune_hf.training import FitArguments

_WITH_RUN = frozenset({"run", "seeds", "keep_seeds", "data_root", "config"})


def _check_data(data: Any, options: Any, given: frozenset[str]) -> None:
    """Refuse what is wrong with the words for a data set, before its folder is looked at."""
    if data.dataset is None or (data.data_root is not None and "dataset" not in given):
        return  # a prepared folder says its name itself
    choices = {name: value for name, value in vars(data).items() if name.endswith("_column")}
    choices |= {name: value for name, value in vars(options).items() if value is not None}
    request = data_sets.ReadRequest.of(choices, sensitive=data.sensitive)
    data_sets.check_request(data.dataset, data.data_root, request)


def _check_with_data(parts: Sequence[Any], given: frozenset[str]) -> None:
    """Check the two parts that speak of data."""
    data = next(part for part in parts if isinstance(part, DataArguments))
    _check_data(data, next(part for part in parts if isinstance(part, data_options())), given)


def _check_compare(parts: Sequence[Any], given: frozenset[str]) -> None:
    if not parts[0].list_methods:
        _check_with_data(parts, given)


def _check_prepare(parts: Sequence[Any], given: frozenset[str]) -> None:
    data, options, preparation, output = parts
    if preparation.list:
        return
    if output.out is None:
        raise ValueError(
            "--out: expected the folder to prepare into, got none. Example: --out prepared/ham"
        )
    _check_data(data, options, given)


def _check_finetune(parts: Sequence[Any], given: frozenset[str]) -> None:
    run, _, mask, *_ = parts
    if run.run is None:
        if mask.mask is None or mask.learning_rate is None:
            raise ValueError(
                "--run: expected the folder of a search, or --mask and --learning-rate for a refit without one; got neither. "
                "Example: fairtune finetune --run runs/demo"
            )
        return _check_with_data(parts, given)
    contradicting = sorted(given - _WITH_RUN)
    if contradicting:
        flags = ", ".join(flag_of(name) for name in contradicting)
        raise ValueError(
            f"{flags}: with --run, everything but --seeds, --keep-seeds and --data-root comes from the run's own record. "
            "Leave it out, or search again with it."
        )
    return None


def _need_run(parts: Sequence[Any], given: frozenset[str]) -> None:
    if parts[0].run is None:
        raise ValueError(
            "--run: expected the folder of an earlier step, got none. Example: --run runs/demo"
        )


def _check_evaluate(parts: Sequence[Any], given: frozenset[str]) -> None:
    _, _, audit, external, options = parts
    if audit.predictions is None:
        _need_run(parts, given)
        _check_data(external, options, given)


def _check_predict(parts: Sequence[Any], given: frozenset[str]) -> None:
    run, asked = parts
    if (run.run is None) == (asked.model is None):
        raise ValueError(
            "--run: expected the folder of a run, or --model with an adapter's folder or a Hub id, and not both; got "
            f"{'neither' if run.run is None else 'both'}. Example: fairtune predict --run runs/demo picture.png"
        )
    if (asked.pictures is None) == (asked.table is None):
        raise ValueError(
            "PICTURES: expected files or folders of pictures, or --table with a table of them, and not both; got "
            f"{'neither' if asked.table is None else 'both'}. Example: fairtune predict --run runs/demo picture.png"
        )


def _check_export(parts: Sequence[Any], given: frozenset[str]) -> None:
    _need_run(parts, given)
    if parts[1].out is None:
        raise ValueError(
            "--out: expected the folder to export into, got none. Example: --out exported"
        )


def _check_report(parts: Sequence[Any], given: frozenset[str]) -> None:
    report = parts[1]
    if report.runs is None:
        _need_run(parts, given)
    elif report.out is None:
        raise ValueError(
            "--out: expected a folder for the comparison of --runs, got none. Example: --out runs/all"
        )


def _check_push(parts: Sequence[Any], given: frozenset[str]) -> None:
    _need_run(parts, given)
    if parts[1].repo_id is None:
        raise ValueError(
            "--repo-id: expected the repository to push to, got none. Example: --repo-id ORG/NAME"
        )


def _check_serve(parts: Sequence[Any], given: frozenset[str]) -> None:
    if (parts[0].run is None) == (parts[0].model is None):
        got = "both" if parts[0].run else "neither"
        raise ValueError(
            f"--run, --model: expected one of them, the model to serve; got {got}. Example: --run runs/demo"
        )


_ALL = (
    RecipeParser(
        "demo",
        "Search, refit, evaluate and report on the embedded demo set with the embedded backbone: about two "
        "minutes on two cores, no download.",
        "fairtune demo --out runs/demo",
        (DemoArguments,),
    ),
    RecipeParser(
        "prepare",
        "Decode a data set's pictures once, check it for leaks and groups too small, and write table.csv, the "
        "pictures and data_report.html; the folder can then be given as --data-root.",
        "fairtune prepare --dataset ham10000 --data-root DIR --label-rule clinical --out prepared/ham",
        (DataArguments, data_options, PrepareArguments, OutputArguments),
        check=_check_prepare,
    ),
    RecipeParser(
        "search",
        "Search which blocks' LayerNorm, attention and MLP to fine-tune, and the learning rate, so that the "
        "worst group's validation AUC is highest. The same command on its own folder resumes.",
        "fairtune search --dataset nih_chestxray14 --data-root DIR --sensitive sex --trials 20 --out runs/nih",
        (
            DataArguments,
            data_options,
            ModelArguments,
            SearchArguments,
            FitArguments,
            OutputArguments,
        ),
        check=_check_with_data,
    ),
    RecipeParser(
        "finetune",
        "Train the mask and learning rate a search chose, and its controls, at several seeds; or, without "
        "--run, a mask given by hand. Writes the adapter and the predictions of validation and test.",
        "fairtune finetune --run runs/nih",
        (
            RunArguments,
            RefitArguments,
            MaskArguments,
            DataArguments,
            data_options,
            ModelArguments,
            FitArguments,
            OutputArguments,
        ),
        check=_check_finetune,
    ),
    RecipeParser(
        "evaluate",
        "Measure every refit of a run on whole splits, with intervals by patient, and compare the chosen mask "
        "with its controls (numbers go to run.json); with --dataset, score another data set with the run's adapter; with "
        "--predictions, measure any model's predictions.",
        "fairtune evaluate --run runs/nih",
        (RunArguments, EvaluateArguments, AuditArguments, ExternalArguments, data_options),
        check=_check_evaluate,
    ),
    RecipeParser(
        "compare",
        "Search, refit and measure every method of the paper and its rivals at one budget, on the same rows, "
        "seeds and epochs, and set them side by side with paired tests against full fine-tuning. The same "
        "command on its own folder resumes; a method that failed is a row that says why, and is tried again.",
        "fairtune compare --config recipes/demo/compare.yaml --out runs/compare",
        (
            CompareArguments,
            DataArguments,
            data_options,
            ModelArguments,
            BudgetArguments,
            FitArguments,
            EvaluateArguments,
            OutputArguments,
        ),
        check=_check_compare,
    ),
    RecipeParser(
        "report",
        "Write report.html (one self-contained page) and README.md (the model card) into a run's folder; or, "
        "with --runs, a comparison of several runs as HTML, Markdown, LaTeX and CSV.",
        "fairtune report --run runs/nih",
        (RunArguments, ReportArguments),
        check=_check_report,
    ),
    RecipeParser(
        "card",
        "Write README.md, the model card, into an evaluated run's folder.",
        "fairtune card --run runs/nih",
        (RunArguments, CardArguments),
        check=_need_run,
    ),
    RecipeParser(
        "predict",
        "Score pictures with a run's model, decoded and prepared as in its training: score of label 1, and the label at "
        "the operating point. What cannot be read is listed; what is unlike the training pictures in size, colour or "
        "brightness is said.",
        "fairtune predict --run runs/demo picture.png folder/ --out scores.csv",
        (RunArguments, PredictArguments),
        check=_check_predict,
    ),
    RecipeParser(
        "export",
        "Write a run's model without PEFT, with labels and what prepares its pictures, and check it against the run's own "
        "scores of its test pictures; what differs, or costs a group more than the bounds, is not written. onnx needs "
        "pip install 'fairtune_hf[export]'.",
        "fairtune export --run runs/demo --out exported --format onnx",
        (RunArguments, ExportArguments),
        check=_check_export,
    ),
    RecipeParser(
        "push",
        "Upload a run's adapter with all that belongs to it, model card, run.json and report to the Hub, where nobody "
        "else sees them without --public. Patient ids never leave, nothing pickled is sent, and predictions only "
        "when asked for.",
        "fairtune push --run runs/nih --repo-id ORG/NAME --dry-run",
        (RunArguments, PushArguments),
        check=_check_push,
    ),
    RecipeParser(
        "serve",
        "Open a page on this machine that scores one picture at a time with a trained model, and shows its operating "
        "point and what was measured in each group. No picture is kept, and nothing is asked of other machines. "
        "Needs pip install 'fairtune_hf[serve]'.",
        "fairtune serve --run runs/nih",
        (ServeArguments,),
        check=_check_serve,
    ),
    RecipeParser(
        "profile",
        "Train a few steps of a recipe and one evaluation, and show the time of an epoch by part, the rate, the "
        "share of the device's matrix peak where it can be measured, what a whole search would take, and advice. "
        "Writes nothing.",
        "fairtune profile --config recipes/demo/search.yaml",
        (
            ProfileArguments,
            DataArguments,
            data_options,
            ModelArguments,
            FitArguments,
            SearchArguments,
            RefitArguments,
        ),
        unlisted={SearchArguments: "fairtune search", RefitArguments: "fairtune finetune"},
        check=_check_with_data,
    ),
    RecipeParser(
        "recipes",
        "List the recipes that come with the package, with the first line of each. Use one with --config.",
        "fairtune recipes",
        (),
    ),
)
PARSERS = {parser.command: parser for parser in _ALL}
