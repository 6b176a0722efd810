"""What a search looks for and how much it may spend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from fairtune_hf.described import described
from fairtune_hf.metrics.registry import COMPARISON, TRAINABLE, shown_in
from fairtune_hf.naming import flag_of, unknown_name
from fairtune_hf.search.samplers import FOR_METHODS, SAMPLERS

if TYPE_CHECKING:
    MethodSampler: TypeAlias = str
    MaskSampler: TypeAlias = str
else:  # the flags' choices
    MethodSampler, MaskSampler = Literal[FOR_METHODS], Literal[tuple(SAMPLERS)]

_T = TypeVar("_T")


@dataclass(kw_only=True)
class BudgetArguments:
    """What a search may spend and how it goes about it, the same for a mask search and for every compared method."""

    # Named by --help, explained by --help-all.
    rare: ClassVar[frozenset[str]] = frozenset(
        {"reduction_factor", "judge_after", "search_fraction"}
    )

    trials: int = described(20, "Finished trials of a search (the paper: 40 to 100).")
    objective: str = described(
        "min_auc", "Validation metric that decides, as of `fairtune search`."
    )
    learning_rate_min: float = described(1.0e-5, "Lower end of the log-uniform learning rate.")
    learning_rate_max: float = described(1.0e-3, "Upper end of the log-uniform learning rate.")
    sampler: MethodSampler = described("tpe", "How trials after the start-up points are drawn.")
    pruner: Literal["successive_halving", "median", "hyperband", "none"] = described(
        "successive_halving", "Which trials end early; none: all train equally long."
    )
    reduction_factor: int = described(2, "Halving: one in so many trials passes a rung.")
    judge_after: float = described(
        0.4, "Share of a trial's epochs before which it is never pruned; nor is its warm-up."
    )
    search_fraction: float = described(
        1.0,
        "Share of the training rows that a search trains on, drawn by label and group (the paper's CheXpert: 0.1).",
    )


def check_workers(setting: str) -> None:
    """Raise a ValueError unless `--workers` is a number of processes or auto."""
    if not (setting == "auto" or (setting.isdigit() and int(setting) >= 1)):
        raise ValueError(f"--workers: expected a number of at least 1, or auto, got {setting!r}.")


@dataclass(kw_only=True)
class SearchArguments(BudgetArguments):
    """Settings of the outer loop."""

    rare: ClassVar[frozenset[str]] = BudgetArguments.rare | {
        "hours", "trained_epochs", "layout", "shared_epochs", "search_epochs", "top_k_seeds", "se_multiple", "control_trials",
        "storage", "study_name", "presets",
    }  # fmt: skip

    objective: str = described(
        "min_auc",
        f"Validation metric that decides: {' '.join(shown_in(COMPARISON))} ...; "
        "several by commas (a Pareto front); NAME_lcb, its lower bound; "
        "package.module.function, your own.",
    )
    sampler: MaskSampler = described("tpe", "How trials after the start-up points are drawn.")
    hours: float | None = described(
        None,
        "Hours with a trial running, restarts counted in, after which the search ends; its repetitions and "
        "the control searches follow.",
    )
    trained_epochs: int | None = described(
        None, "Epochs over all trials after which the search ends; as with --hours, more follows."
    )
    layout: Literal["block3", "block4", "attention", "layernorm", "mlp", "block"] = described(
        "block3", "What a bit of the mask stands for (block3: the paper's 36 bits)."
    )
    search_epochs: str | None = described(
        None, "Lengths of the schedule to search too, e.g. 3,5,10; replaces --epochs."
    )
    protocol: Literal["default", "paper"] = described(
        "default",
        "paper: every setting not given is the paper's (univariate TPE without presets, halving by 4 "
        "from the first epoch, 30 epochs with 10 of warm-up, batch 512).",
    )
    policy: Literal["trials", "shared"] | None = described(
        None,
        "shared: one training ranks all masks.",
    )
    shared_epochs: int | None = described(
        None, "Epochs of the shared training; by default three times --epochs."
    )
    presets: bool = described(
        True, "Try the presets, which are the baselines, first; they are never pruned."
    )
    top_k: int = described(3, "Best trials trained again with new seeds; 0: none.")
    top_k_seeds: int = described(2, "New seeds for each of them.")
    se_multiple: float = described(
        1.0, "The choice is by mean minus so many of its standard errors over the seeds."
    )
    control_trials: int = described(
        0,
        "Trials of a search of the learning rate of full fine-tuning, and as many of random masks; "
        "--trials for the same budget; 0 takes the controls from the search itself.",
    )
    workers: str = described(
        "1", "Processes sharing the search: a number, or auto: one on each GPU."
    )
    storage: str | None = described(
        None,
        "postgresql://... to share the search between machines (or the environment variable FAIRTUNE_STORAGE); else a file.",
    )
    study_name: str | None = described(
        None, "With --storage: name of the study; by default from the configuration."
    )

    def __post_init__(self) -> None:
        _check_counts(self)
        _check_shares(self)
        # Here and not above: the help of a command needs no metrics.
        from fairtune_hf.search.objectives import parse_objectives

        objectives = parse_objectives(self.objective)
        if self.policy == "shared" and (len(objectives) > 1 or objectives[0].name == TRAINABLE):
            raise ValueError(
                f"--policy: expected trials for the objective {self.objective}, got shared, which ranks masks by one value of "
                "the validation rows' scores. Name one such objective, or choose --policy trials."
            )
        if len(objectives) > 1 and SAMPLERS[self.sampler].one_objective:
            several = [name for name, sampler in SAMPLERS.items() if not sampler.one_objective]
            raise ValueError(
                f"--sampler: expected one that can follow several objectives, got {self.sampler}. "
                f"Use {' or '.join(several)}."
            )
        check_workers(self.workers)
        # What lies in memory only is gone with the process, and no other one sees it.
        in_memory = self.storage in ("sqlite:///", "sqlite:///:memory:")
        known = not in_memory and str(self.storage).startswith(("postgresql", "sqlite:///"))
        if self.storage is not None and not known:
            raise ValueError(
                f"--storage: expected postgresql://USER:PASSWORD@HOST/DATABASE, got {self.storage!r}. "
                "Leave it out to keep the study in the run's folder."
            )
        self.epoch_choices()

    def epoch_choices(self) -> tuple[int, ...]:
        """Read `search_epochs`: the lengths in rising order; empty if the length is not searched.

        Raises:
            ValueError: Not whole numbers of at least 1, parted by commas.
        """
        if self.search_epochs is None:
            return ()
        words = [word.strip() for word in str(self.search_epochs).split(",")]
        if not all(word.isdigit() and int(word) >= 1 for word in words):
            raise ValueError(
                f"--search-epochs: expected whole numbers parted by commas, got {self.search_epochs!r}. Example: 3,5,10."
            )
        return tuple(sorted({int(word) for word in words}))


def _check_counts(search: SearchArguments) -> None:
    if search.sampler not in SAMPLERS:
        raise unknown_name("--sampler:", search.sampler, tuple(SAMPLERS))
    for name, low in (("trials", 1), ("reduction_factor", 2), ("top_k", 0), ("control_trials", 0)):
        if getattr(search, name) < low:
            raise ValueError(
                f"{flag_of(name)}: expected at least {low}, got {getattr(search, name)}. Give a larger number."
            )
    if search.top_k and search.top_k_seeds < 2:
        raise ValueError(
            f"--top-k-seeds: expected at least 2, since one seed has no standard error, got {search.top_k_seeds}. "
            "Use --top-k 0 to choose by the search's values alone."
        )
    for name in ("hours", "trained_epochs", "shared_epochs"):
        value = getattr(search, name)
        if value is not None and value <= 0:
            raise ValueError(
                f"{flag_of(name)}: expected more than 0, got {value}. Leave it out for {'the default' if name == 'shared_epochs' else 'no limit'}."
            )


def _check_shares(search: SearchArguments) -> None:
    if not 0 < search.learning_rate_min < search.learning_rate_max:
        raise ValueError(
            "--learning-rate-min, --learning-rate-max: expected 0 < min < max, got "
            f"{search.learning_rate_min} and {search.learning_rate_max}. The paper uses 1.0e-5 and 1.0e-3."
        )
    if not 0 < search.search_fraction <= 1:
        raise ValueError(
            f"--search-fraction: expected a share in (0, 1], got {search.search_fraction}. 1 searches on all training rows."
        )
    if not 0 <= search.judge_after <= 1:
        raise ValueError(
            f"--judge-after: expected a share in [0, 1], got {search.judge_after}. 0.4 is the default."
        )
    if search.se_multiple < 0:
        raise ValueError(
            f"--se-multiple: expected at least 0, got {search.se_multiple}. 0 chooses by the mean alone."
        )


# Section 4 and appendix A of the paper with its published code: Optuna's TPE and successive halving as they
# were then, every epoch judged. (That code reported once, after the last epoch, so that its pruning saved nothing.)
PAPER = {
    "sampler": "tpe_univariate",
    "presets": False,
    "pruner": "successive_halving",
    "reduction_factor": 4,
    "judge_after": 0.0,
    "layout": "block3",
    "learning_rate_min": 1.0e-5,
    "learning_rate_max": 1.0e-3,
    "top_k": 0,
    "epochs": 30,
    "batch_size": 512,
    "schedule": "cosine",
    "warmup_fraction": 1 / 3,
    "weight_decay": 1.0e-4,
    "transforms": "paper",
}


# Two masks at two learning rates, which nothing is left to repeat for.
SHARED = {"trials": 4, "top_k": 0}


def apply_protocol(settings: _T, protocol: str, given: Collection[str]) -> _T:
    """Return search or training settings with the paper's values where none was given."""
    return _where_not_given(settings, PAPER, given) if protocol == "paper" else settings


def apply_policy(search: SearchArguments, given: Collection[str]) -> SearchArguments:
    """Return search settings with the trials of the policy where their number was not given."""
    return _where_not_given(search, SHARED, given) if search.policy == "shared" else search


def _where_not_given(settings: _T, values: Mapping[str, Any], given: Collection[str]) -> _T:
    fresh: dict[str, Any] = {
        name: value
        for name, value in values.items()
        if hasattr(settings, name) and name not in given
    }
    return replace(settings, **fresh)  # type: ignore[type-var]
