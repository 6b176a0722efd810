"""The search space: idempotent, complete in its parameters, readable."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from fairtune_hf.baselines import Hyperparameter
from fairtune_hf.search import Candidate, HpSpace, SearchSpace, startup_points

TUNED = (
    Hyperparameter(name="eta", low=1e-3, high=1e-1, log=True),
    Hyperparameter(name="head", choices=("linear", "mlp")),
)
SPACES = {
    "free": SearchSpace(blocks=3),
    "integers": SearchSpace(blocks=3, integer_bits=True),
    "fixed": SearchSpace(blocks=3, mask="full_blocks"),
    "random": SearchSpace(blocks=3, mask="random"),
    "everything": SearchSpace(
        blocks=3, layout="attention", epochs=(3, 5), seeds=(7, 8), hyperparameters=TUNED
    ),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_candidate_is_the_same_when_asked_again_and_from_its_parameters_alone(name: str) -> None:
    space = SPACES[name]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(5):
        trial = study.ask()
        first = space.suggest(trial)
        assert space.suggest(trial) == first
        elsewhere = optuna.trial.FixedTrial(trial.params)  # as the other processes get it
        assert space.suggest(elsewhere) == first
        assert set(trial.params) == set(space.parameter_names)
        if name != "fixed":
            assert space.mask_of(trial.params) == first.mask


def test_random_masks_differ_from_trial_to_trial_and_are_half_ones() -> None:
    space = SearchSpace(mask="random")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    masks = [space.suggest(study.ask()).mask for _ in range(60)]
    assert len(set(masks)) == 60
    ones = "".join(masks).count("1") / (36 * 60)
    assert ones == pytest.approx(0.5, abs=0.05)  # five standard errors


def test_the_trainer_is_given_what_it_can_set_and_nothing_else() -> None:
    trial = optuna.create_study().ask()
    given = HpSpace(SPACES["everything"])(trial)
    assert given == {
        "learning_rate": trial.params["learning_rate"],
        "num_train_epochs": trial.params["epochs"],
        "seed": trial.params["seed"],
    }


def test_a_fixed_mask_starts_at_learning_rates_spread_over_the_range() -> None:
    points = startup_points(SPACES["fixed"], seed=0)
    rates = sorted(point.params["learning_rate"] for point in points)
    assert rates == pytest.approx([1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3])


def test_a_method_of_the_literature_keeps_what_it_trains_outside_the_blocks() -> None:
    candidate = Candidate(mask="attention_tuning", layout="block3", learning_rate=1e-4)
    assert candidate.config().train_also == ["position_embeddings"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": (1e-3, 1e-5)}, "0 < low <= high"),
        ({"mask": "atention"}, "attention"),
        ({"hyperparameters": (Hyperparameter(name="learning_rate", low=0, high=1),)}, "is taken"),
        ({"hyperparameters": (Hyperparameter(name="blocks.0.mlp", low=0, high=1),)}, "is taken"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchSpace(blocks=3, **settings)


def test_a_hyperparameter_without_a_range_is_refused() -> None:
    with pytest.raises(ValueError, match="eta: expected low and high, or choices"):
        Hyperparameter(name="eta")
