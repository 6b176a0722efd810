"""One method of a comparison in a folder of its own: its search, its choice, its refits.

Every method has the same rows, transforms, epochs, trials, first learning rates and seeds; what it
tunes beside the learning rate is what it declares. Each step goes on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

from fairtune_hf.baselines import Method, MethodSpec
from fairtune_hf.baselines.method import trainable_parameters
from fairtune_hf.data import ImageTable
from fairtune_hf.run_folder import RunFolder
from fairtune_hf.run_record import MethodRecord, RunRecord, SearchRecord
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.loop import run_study
from fairtune_hf.search.record import describe_choice, describe_search, search_cost, selected_by
from fairtune_hf.search.samplers import SAMPLERS
from fairtune_hf.search.sampling import startup_points
from fairtune_hf.search.soundness import set_aside_if_damaged
from fairtune_hf.search.space import FREE, RANDOM, SearchSpace
from fairtune_hf.search.study import SearchStudy
from fairtune_hf.search.study_plan import STUDY_NAME, StudyPlan
from fairtune_hf.training.arguments import FitArguments
from fairtune_hf.training.backbone import Backbone
from fairtune_hf.training.description import (
    describe_dataset,
    describe_hardware,
    describe_versions,
)
from fairtune_hf.training.refit import refit
from fairtune_hf.training.train import Training
from fairtune_hf.tuner import PRESETS, FairMaskConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodRun:
    """What one method's search and refits need.

    Attributes:
        spec: The method, its mask and its objective.
        backbone: Where every training starts.
        folder: The method's own folder.
        search: Trials, objective, sampler and pruner, the same for all methods.
        training: How a model is trained; `epochs` is the budget of all stages together.
        study_name: Name of the method's study in its storage.
        storage: SQLAlchemy URL of the storage; by default a file in the folder.
    """

    spec: MethodSpec
    backbone: Backbone
    folder: RunFolder
    search: SearchArguments
    training: FitArguments
    study_name: str = STUDY_NAME
    storage: str | None = None

    @property
    def space(self) -> SearchSpace:
        """What the search may vary."""
        return SearchSpace(
            blocks=self.backbone.blocks,
            layout=self.spec.layout,
            mask=self.spec.mask,
            learning_rate=(self.search.learning_rate_min, self.search.learning_rate_max),
            epochs=self.search.epoch_choices(),
            integer_bits=SAMPLERS[self.search.sampler].integer_bits,
            hyperparameters=self.spec.method.hyperparameters,
        )

    @property
    def objective(self) -> str:
        """What the search looks for."""
        return self.spec.objective or self.search.objective

    def search_choice(self, table: ImageTable, *, show_progress: bool = True) -> None:
        """Run the method's study and write its choice to run.json.

        Args:
            table: Training and validation rows; test rows are refused.
            show_progress: Draw a progress bar.

        Raises:
            ValueError: The table holds test rows.
            RuntimeError: No trial completed.
        """
        refuse_test_rows(table)
        set_aside_if_damaged(self.folder)  # one method's damage is not the comparison's end
        study = self._run_study(table, show_progress)
        best = study.best()
        if best is None:
            reasons = {t.user_attrs.get("reason") for t in study.trials(TrialState.FAIL)}
            raise RuntimeError(
                f"No trial of {self.spec.name} completed ({'; '.join(sorted(filter(None, reasons))) or 'see trials.csv'})."
            )
        study.write_tables()  # also where nothing was left to try, and the tables were damaged
        self._write_record(study, best, table)

    def refit_choice(self, table: ImageTable, *, seeds: Sequence[int]) -> None:
        """Train the choice of run.json at each seed and keep predictions and the first adapter."""
        choice = self.folder.read_chosen().choice
        refit(self.training_on(table, len(seeds)), self.folder, choice, seeds=seeds)
        with self.folder.editing() as record:
            record.dataset = describe_dataset(table)

    def training_on(self, table: ImageTable, trainings: int = 1) -> Training:
        """Return how the method's candidates are trained, so many of them by this process."""
        return Training(
            table=table,
            backbone=self.backbone,
            arguments=self.training,
            method=self.spec.method,
            trainings=trainings,
        )

    @property
    def plan(self) -> StudyPlan:
        """The study of the method's learning rate and of whatever else it tunes."""
        # Of the last stage only its length is known before a candidate is.
        last = self.spec.method().stages(self.training.epochs)[-1]
        return StudyPlan(
            self.folder,
            self.space,
            dataclasses.replace(self.search, objective=self.objective),
            dataclasses.replace(self.training, epochs=last.epochs),
            name=self.study_name,
            storage=self.storage,
        )

    def _run_study(self, table: ImageTable, show_progress: bool) -> SearchStudy:
        # The same first learning rates for every method, free masks included: no presets.
        plain = dataclasses.replace(self.space, mask="none", layout="block3")
        rates = tuple(startup_points(plain, seed=self.training.seed))
        study = run_study(
            dataclasses.replace(self.plan, startup=rates),
            self.training_on(table),
            keep_best=False,
            show_progress=show_progress,
        )
        if study is None:
            raise RuntimeError(
                "A comparison was started under accelerate launch. Start `fairtune compare --workers N` by itself; it spreads "
                "the methods over the GPUs."
            )
        return study

    def _write_record(self, study: SearchStudy, best: FrozenTrial, table: ImageTable) -> None:
        candidate = self.space.suggest(best)
        config = candidate.config()
        method = self.spec.method.from_values(candidate.hyperparameters)
        choice = describe_choice(
            mask=study.mask_of(best),
            layout=candidate.layout,
            learning_rate=candidate.learning_rate,
            blocks=self.backbone.blocks,
            training=self.training,
            selected_by=selected_by(study),
            trial=best.number,
        )
        choice.preset = candidate.mask if candidate.mask in PRESETS else None
        choice.train_also = list(config.train_also)
        choice.hyperparameters = candidate.hyperparameters
        # A record of its own: of what is chosen now, nothing is measured yet.
        record = new_record(self.spec, table)
        record.model = self.backbone.describe()
        record.put(
            self.spec.name,
            choice=choice,
            trainable_parameters=self._count_trainable(method, config),
            search=self._describe_search(study, method),
            cost=search_cost(study),
        )
        self.folder.write(record)

    def _count_trainable(self, method: Method, config: FairMaskConfig) -> int:
        model = method.prepare_model(self.backbone.copy_with_new_head(), config)
        counts = []
        for stage in method.stages(self.training.epochs):
            model = stage.method.start_stage(model)
            counts.append(trainable_parameters(model))
        return max(counts)

    def _describe_search(self, study: SearchStudy, method: Method) -> SearchRecord:
        found = describe_search(study)
        earlier = sum(stage.epochs for stage in method.stages(self.training.epochs)[:-1])
        begun = sum(1 for trial in study.trials() if trial.user_attrs.get("curve"))
        epochs = (found.trained_epochs or 0) + earlier * begun
        return dataclasses.replace(found, trained_epochs=epochs, best_value=best_value(study))


def refuse_test_rows(table: ImageTable) -> None:
    """Raise a ValueError where a search would see test rows."""
    if "test" in table.splits:
        raise ValueError(
            'table: expected training and validation rows only, got test rows too. Load it with splits=("train", "validation").'
        )


def best_value(study: SearchStudy) -> float | None:
    """Return the best validation value of a study's first objective, None where nothing completed."""
    best = study.best()
    return None if best is None else float(best.values[0])


def new_record(spec: MethodSpec, table: ImageTable) -> RunRecord:
    """Return the record of a method of which nothing is chosen yet."""
    tunes = ["learning_rate", *(h.name for h in spec.method.hyperparameters)]
    if spec.mask in (FREE, RANDOM):
        tunes.append("mask")
    return RunRecord(
        dataset=describe_dataset(table),
        chosen=spec.name,
        methods={spec.name: MethodRecord(source=spec.method.source, tunes=tunes)},
        versions=describe_versions(),
        hardware=describe_hardware(),
        warnings=list(table.warnings),
    )


def record_failure(folder: RunFolder, spec: MethodSpec, table: ImageTable, reason: str) -> None:
    """Write that a method failed and why, as a row of the comparison."""
    before = folder.read_if_whole()
    record = new_record(spec, table)
    if before is not None and before.own:
        record.model = before.model
        record.methods[spec.name] = before.own
    record.put(spec.name, failure=reason)
    folder.write(record)
