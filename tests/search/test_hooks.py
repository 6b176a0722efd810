"""The pieces for an unmodified Trainer: the placeholder is not trained, the best trial's mask travels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import BestRun

from fairtune_hf import collate_batch, use_best_trial
from fairtune_hf.data import ImageTable
from fairtune_hf.metrics.trainer_metrics import ComputeMetrics
from fairtune_hf.search import HpSpace, ModelInit, SearchSpace, model_init
from fairtune_hf.training import Backbone, FitArguments, build_datasets, load_backbone


@pytest.fixture(scope="module")
def backbone(tiny_vit: Path) -> Backbone:
    return load_backbone(tiny_vit)


SPACE = SearchSpace(blocks=2, learning_rate=(1e-3, 1e-1), epochs=(1, 2), seeds=(3, 4))


def make_trainer(table: ImageTable, backbone: Backbone, out: Path, space: SearchSpace) -> Trainer:
    data = build_datasets(table, backbone, FitArguments(transforms="none"))
    arguments = TrainingArguments(
        str(out), num_train_epochs=1, eval_strategy="epoch", save_strategy="no", use_cpu=True,
        per_device_train_batch_size=16, label_names=["labels", "sensitive"], report_to="none",
        remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True,
    )  # fmt: skip
    return Trainer(
        args=arguments, model_init=ModelInit(backbone, space), data_collator=collate_batch,
        compute_metrics=ComputeMetrics(group_names=table.groups),
        train_dataset=data["train"], eval_dataset=data["validation"],
    )  # fmt: skip


def search(trainer: Trainer, space: SearchSpace) -> BestRun:
    found: BestRun = trainer.hyperparameter_search(
        hp_space=HpSpace(space), direction="maximize", backend="optuna", n_trials=3,
        compute_objective=lambda metrics: metrics["eval_min_auc"],
        sampler=optuna.samplers.RandomSampler(seed=5),
    )  # fmt: skip
    return found


def trained_names(model: Any) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.slow
def test_the_placeholder_is_scored_but_not_trained(
    search_table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    trainer = make_trainer(search_table, backbone, tmp_path, SPACE)
    assert 0 <= trainer.evaluate()["eval_min_auc"] <= 1
    with pytest.raises(ValueError, match="expected a mask to train, and none is chosen"):
        trainer.train()
    best = search(trainer, SPACE)
    for name, value in best.hyperparameters.items():  # the recipe of the Trainer's documentation
        setattr(trainer.args, name, value)
    with pytest.raises(ValueError, match="use_best_trial"):
        trainer.train()


@pytest.mark.slow
def test_the_best_trial_is_trained_again_to_its_very_value(
    search_table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    trainer = make_trainer(search_table, backbone, tmp_path, SPACE)
    best = search(trainer, SPACE)
    candidate = use_best_trial(trainer, best)
    assert trainer.args.learning_rate == best.hyperparameters["learning_rate"]
    assert trainer.args.num_train_epochs == best.hyperparameters["epochs"]
    assert trainer.args.seed == best.hyperparameters["seed"]
    trainer.train()
    bits = [best.hyperparameters[name] for name in SPACE.bit_names]
    assert candidate.mask == "".join(map(str, bits))
    expected = trained_names(
        ModelInit(backbone, SPACE)(optuna.trial.FixedTrial(best.hyperparameters))
    )
    assert trained_names(trainer.model) == expected
    assert trainer.evaluate()["eval_min_auc"] == pytest.approx(best.objective, abs=1e-9)


def test_the_choice_is_checked(
    backbone: Backbone, tmp_path: Path, search_table: ImageTable
) -> None:
    trainer = make_trainer(search_table, backbone, tmp_path, SPACE)
    best = BestRun("0", 0.5, {"learning_rate": 1e-3})
    with pytest.raises(ValueError, match="and 3 more are missing"):
        use_best_trial(trainer, best)
    with pytest.raises(TypeError, match="expected the one best run of a search, got list"):
        use_best_trial(trainer, [best])  # type: ignore[arg-type]
    trainer.model_init = lambda: None
    with pytest.raises(TypeError, match="expected a ModelInit as model_init, got function"):
        use_best_trial(trainer, best)


def test_choosing_leaves_the_original_as_it_is() -> None:
    names = model_init.space.parameter_names
    values = dict.fromkeys(names, 1) | {"learning_rate": 1e-4}
    assert model_init.choose(values).chosen is not None
    assert model_init.chosen is None
    assert np.isclose(model_init.choose(values).chosen.learning_rate, 1e-4)
