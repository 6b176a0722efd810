"""`fairtune compare`: every method at one budget, then the comparison of all."""

from __future__ import annotations

import dataclasses
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fairtune_hf.baselines import METHODS, MethodSpec, listed_place, method_spec
from fairtune_hf.cli.arguments import (
    EvaluateArguments,
)
from fairtune_hf.cli.commands import PARSERS
from fairtune_hf.cli.disk import is_full
from fairtune_hf.cli.inputs import (
    check_run,
    claim_run,
    load_model,
    load_table,
    open_run,
    place_data,
    resolve_config,
)
from fairtune_hf.cli.messages import say
from fairtune_hf.data import ImageTable, stratified_fraction
from fairtune_hf.reports import compare, correct_by_holm, measure, merge_methods, render_comparison
from fairtune_hf.reports.comparison import REFERENCE
from fairtune_hf.reports.loaded_run import read_run
from fairtune_hf.search import SearchArguments
from fairtune_hf.search.interrupt import prompt_exit
from fairtune_hf.search.methods import MethodRun, record_failure
from fairtune_hf.search.objectives import ObjectiveMetrics, parse_objectives
from fairtune_hf.search.workers import count_workers, start_workers
from fairtune_hf.training import Backbone, FitArguments, RunFolder, check_same_inputs
from fairtune_hf.training.refit import read_done
from fairtune_hf.turn import FileTurn

WORKER = "FAIRTUNE_COMPARE_WORKER"  # number of a worker of a comparison, set in its environment
# What can go wrong with one method and leave the others sound.
_METHOD_FAILURES = (ValueError, RuntimeError, FloatingPointError)


PARSER = PARSERS["compare"]


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Everything the processes of a comparison share."""

    specs: tuple[MethodSpec, ...]
    backbone: Backbone
    tables: dict[str, ImageTable]
    folder: Path
    search: SearchArguments
    training: FitArguments
    evaluation: EvaluateArguments
    seeds: range

    def run_of(self, spec: MethodSpec) -> MethodRun:
        return MethodRun(
            spec=spec,
            backbone=self.backbone,
            folder=RunFolder(method_folder(self.folder, spec.name)),
            search=self.search,
            training=self.training,
        )

    def work(self) -> None:
        """Run every method that is not done, long ones first, and last those that another process left undone."""
        with prompt_exit():  # refits included: a worker ends with the process that started it
            # A worker need not wait: the process that started it looks after all.
            for waits in (False,) if WORKER in os.environ else (False, True):
                for spec in sorted(self.specs, key=lambda s: -s.cost):
                    self._run_unless_done(self.run_of(spec), waits=waits)

    def _run_unless_done(self, run: MethodRun, *, waits: bool) -> None:
        if self._is_done(run.folder) or (waits and _failure(run.folder)):
            return
        with _claimed(run.folder.path, waits=waits) as ours:
            # Another process may have finished it since.
            if ours and not self._is_done(run.folder) and not (waits and _failure(run.folder)):
                self._run_or_record(run)

    def _is_done(self, folder: RunFolder) -> bool:
        return is_done(folder, self.search.trials, self.seeds)

    def work_together(self, arguments: Sequence[str], workers: int) -> None:
        """Let worker processes run the methods, replace those that are lost, and say what is done.

        Raises:
            RuntimeError: No worker is left, and a method is not done.
        """
        folders = {spec.name: self.run_of(spec).folder for spec in self.specs}
        open_ones = {name: folder for name, folder in folders.items() if not self._is_done(folder)}
        if not open_ones:
            return
        for folder in open_ones.values():
            with _claimed(folder.path) as ours:
                if ours:
                    reopen(folder)
        words = ["compare", *arguments, f"--out={self.folder}"]
        with start_workers(words, workers, self.folder, WORKER) as pool, prompt_exit():
            pool.watch(lambda: self._are_done(open_ones) or pool.has_ended())

    def _are_done(self, left: dict[str, RunFolder]) -> bool:
        """Whether nothing is left to do; takes what is done out of `left` and says so."""
        for name, folder in list(left.items()):
            failure = _failure(folder)
            if failure or is_measured(folder, self.search.trials, self.seeds):
                del left[name]
                say(f"{name} failed: {failure}" if failure else f"{name} is done.")
        return not left

    def _run_or_record(self, run: MethodRun) -> None:
        try:
            self._run_method(run)
        except _METHOD_FAILURES as error:
            if is_full(error):  # which is no fault of the method
                raise
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
            record_failure(run.folder, run.spec, self.tables["full"], reason)
            say(f"{run.spec.name} failed: {reason}")

    def _run_method(self, run: MethodRun) -> None:
        if not (is_searched(run.folder, self.search.trials) and has_tables(run.folder)):
            run.search_choice(self.tables["search"], show_progress=False)
        record = run.folder.read_chosen()
        check_same_inputs(record, self.tables["full"], self.backbone)
        start = time.perf_counter()
        run.refit_choice(self.tables["full"], seeds=self.seeds)
        spent = (record.own.refit_seconds or 0.0) + time.perf_counter() - start
        with run.folder.editing() as done:
            done.put(run.spec.name, refit_seconds=round(spent, 3), failure=None)
        found = measure(
            run.folder.path,
            n_resamples=self.evaluation.resamples,
            seed=self.evaluation.bootstrap_seed,
        )
        say(
            f"{run.spec.name}: min-group AUC {found.own.result('test').value('min_auc')} on the test rows"
        )

    def finish(self) -> None:
        """Compare each method with full fine-tuning and write the report.

        Raises:
            RuntimeError: A method is neither done nor failed: another process is at it, or was and ended.
        """
        folders = [RunFolder(method_folder(self.folder, spec.name)) for spec in self.specs]
        self._require_all(folders)
        reference = RunFolder(method_folder(self.folder, REFERENCE))
        if any(spec.name == REFERENCE for spec in self.specs) and not _failure(reference):
            for folder in folders:
                if not _failure(folder):
                    compare(
                        folder.path,
                        reference.path,
                        n_resamples=self.evaluation.resamples,
                        seed=self.evaluation.bootstrap_seed,
                    )
        record = merge_methods([folder.read() for folder in folders])
        correct_by_holm(record.comparisons)
        RunFolder(self.folder).write(record)
        page = render_comparison([self.folder], self.folder)
        print((self.folder / "comparison.md").read_text(encoding="utf-8"))
        say(f"Comparison: {page}")

    def _require_all(self, folders: Sequence[RunFolder]) -> None:
        running, lost = [], []
        for folder in folders:
            if self._is_done(folder):
                continue
            with _claimed(folder.path) as ours:
                if not ours:
                    running.append(folder.path.name)
                # It may have ended between the two looks.
                elif not (self._is_done(folder) or _failure(folder)):
                    lost.append(folder.path.name)
        if running:
            raise RuntimeError(
                f"{', '.join(running)}: still trained by another process. Start the same command again when that has "
                "ended; it compares what is then there."
            )
        if lost:
            raise RuntimeError(
                f"{', '.join(lost)}: not finished, because the process that trained it ended. Start the same "
                "command again; it goes on where it stopped."
            )


def plan(arguments: Sequence[str]) -> Callable[[], None]:
    """Parse, load and check; return the comparison to run."""
    (compare, data, options, model, budget, training, evaluation, output), given = PARSER.parse(
        arguments
    )
    if compare.list_methods:
        return lambda: print("\n".join(METHODS))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(
            "--workers: expected no accelerate launch, which puts several processes on one training. Start "
            "`fairtune compare --workers auto` by itself; it spreads the methods over the GPUs."
        )
    place_data(data, given)
    names = sorted(dict.fromkeys(compare.methods or METHODS), key=listed_place)
    specs = tuple(map(method_spec, names))
    output.out = output.out or f"runs/{data.dataset}-compare"
    # No presets, and no trial repeated: every method has the same trials and no more.
    search = SearchArguments(**dataclasses.asdict(budget), presets=False, top_k=0)
    config = resolve_config(data, options, model, budget, training, evaluation)
    folder = open_run(output, config)
    backbone = load_model(model)
    parts = ("train", "validation")
    searched = load_table(data, options, training, backbone, splits=parts)
    check_run(folder, output, searched, backbone)
    comparison = _Comparison(
        specs=specs,
        backbone=backbone,
        tables={
            "search": stratified_fraction(searched, search.search_fraction, seed=training.seed),
            "full": load_table(data, options, training, backbone, splits=(*parts, "test")),
        },
        folder=folder.path,
        search=search,
        training=training,
        evaluation=evaluation,
        seeds=range(training.seed, training.seed + compare.seeds),
    )
    validation = comparison.tables["search"].subset("validation")
    ObjectiveMetrics(parse_objectives(search.objective), validation)
    if WORKER in os.environ:
        return comparison.work

    claim = claim_run(folder, output, config, searched, backbone)

    def execute() -> None:
        workers = count_workers(compare.workers)
        with claim:
            if workers == 1:
                comparison.work()
            else:
                comparison.work_together(arguments, workers)
            comparison.finish()

    return execute


def method_folder(folder: Path, name: str) -> Path:
    """Return the folder of one method."""
    return folder / "methods" / name


def is_searched(folder: RunFolder, trials: int) -> bool:
    """Whether the method's search is complete and its choice written; a damaged run.json tells nothing."""
    record = folder.read_if_whole()
    return record is not None and bool(record.choice) and record.own.search.ended >= trials


def is_measured(folder: RunFolder, trials: int, seeds: range) -> bool:
    """Whether a method's record says that it has been refitted at every seed and measured, and did not fail."""
    if not is_searched(folder, trials) or _failure(folder):
        return False
    return set(seeds) <= {entry.seed for entry in folder.read().own.seeds}


def is_done(folder: RunFolder, trials: int, seeds: range) -> bool:
    """Whether a method is measured, and the files that the numbers are of are whole."""
    if not is_measured(folder, trials, seeds) or not has_tables(folder):
        return False
    predictions = read_done(folder, folder.read().choice, seeds)
    return predictions is not None and set(seeds) <= set(predictions["seed"])


def has_tables(folder: RunFolder) -> bool:
    """Whether the tables of a searched method are whole: the trials that its record counts, and every epoch of them."""
    try:
        run = read_run(folder.path)
    except ValueError:
        return False
    if not all(map(_ends_with_a_line, (folder.trials_file, folder.curves_file))):
        return False
    ended = run.trials["state"].isin(["COMPLETE", "PRUNED"]).sum()
    epochs = run.trials.set_index("number")["epochs"]
    listed = run.curves["number"].value_counts().reindex(epochs.index, fill_value=0)
    return bool(ended == folder.read().own.search.ended and epochs.eq(listed).all())


def _ends_with_a_line(file: Path) -> bool:
    return file.is_file() and file.read_bytes().endswith(b"\n")


def reopen(folder: RunFolder) -> None:
    """Take back what the record says of a method that is to be run again: that it failed, or was measured."""
    record = folder.read_if_whole()
    if record is not None:
        record.own.failure = None
        record.forget_evaluation()
        folder.write(record)


def _failure(folder: RunFolder) -> str | None:
    record = folder.read_if_whole()
    return None if record is None else record.own.failure


@contextmanager
def _claimed(path: Path, *, waits: bool = False) -> Iterator[bool]:
    """Hold a method for this process; False where another one does, unless this one waits. The claim ends with the process."""
    path.mkdir(parents=True, exist_ok=True)
    turn = FileTurn(path / "claim")
    ours = turn.acquire_now()
    if waits and not ours:
        say(f"Another process trains {path.name}; this one waits for its end.")
        turn.acquire()
        ours = True
    try:
        yield ours
    finally:
        turn.release()
