"""What one study is: what it varies, how its trials are trained and counted, and where they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fairtune_hf.run_folder import RunFolder
from fairtune_hf.search.arguments import SearchArguments
from fairtune_hf.search.sampling import StartupPoint, startup_points
from fairtune_hf.search.space import SearchSpace
from fairtune_hf.training.arguments import FitArguments

STUDY_NAME = "fairtune"


@dataclass(frozen=True)
class StudyPlan:
    """One study, known before anything of it is opened.

    Attributes:
        folder: Where its tables go, and its file unless `storage` says otherwise.
        space: What may vary; never changes within a study.
        search: Objective, sampler, pruner and budget.
        training: Epochs of a trial that a judge sees where the space does not search them, warm-up and seed.
        startup: The first trials; by default those of `startup_points`, if presets are wanted.
        name: Name of the study in its storage.
        storage: SQLAlchemy URL of the storage; by default a file in the folder.
        repeats: Whether it trains other trials again, as often as planned: a failed trial counts too, and the
            folder's tables may be of an earlier study of another name.
    """

    folder: RunFolder
    space: SearchSpace
    search: SearchArguments
    training: FitArguments
    startup: tuple[StartupPoint, ...] | None = None
    name: str = STUDY_NAME
    storage: str | None = None
    repeats: bool = False

    @property
    def url(self) -> str:
        """URL of the storage."""
        return self.storage or file_url(self.folder)

    def first_trials(self) -> list[StartupPoint]:
        """The trials that are queued before the sampler decides."""
        if self.startup is not None:
            return list(self.startup)
        wanted = self.search.presets
        return startup_points(self.space, seed=self.training.seed) if wanted else []


def file_url(folder: RunFolder) -> str:
    """Return the URL of the file that a folder's study is kept in by default."""
    return f"sqlite:///{Path(folder.study_file).resolve()}"
