"""Methods in the Trainer: stages, views, drawing of rows, the last step; timm checkpoints as backbones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from fairtune_hf.baselines import FSCL, GroupDRO, LoRA, Method, Resampling
from fairtune_hf.data import ImageTable, load_dataset_table
from fairtune_hf.training import Backbone, Candidate, FitArguments, Training, load_backbone
from fairtune_hf.training.fast_forward import FastForward, find_vit, run_by_module
from fairtune_hf.training.train import stage_arguments
from fairtune_hf.training.trainer import FairTrainer
from fairtune_hf.tuner import FairMaskConfig


@pytest.fixture(scope="module")
def table(pictures_template: Path) -> ImageTable:
    return load_dataset_table(
        "folder", pictures_template, image_size=32, label_column="diagnosis", sensitive_column="sex",
        patient_column="person", split_column="part",
    )  # fmt: skip


@pytest.fixture(scope="module")
def backbone(tiny_vit: Path) -> Backbone:
    return load_backbone(tiny_vit)


def training_of(table: ImageTable, backbone: Backbone, epochs: int = 2) -> Training:
    arguments = FitArguments(epochs=epochs, batch_size=16, transforms="flip")
    return Training(table=table, backbone=backbone, arguments=arguments)


def trained(
    training: Training, method: type[Method], *, mask: str = "full", seed: int = 0, **tuned: object
) -> FairTrainer:
    candidate = Candidate(
        mask=mask, layout="block3", learning_rate=1e-3, seed=seed, hyperparameters=tuned
    )
    its_own = training.at(training.folder, method=method)
    return its_own.train(candidate)


def test_views_are_served_side_by_side_and_augmented_apart(table, backbone) -> None:
    dataset = training_of(table, backbone).datasets["train"]
    dataset.views = 2
    batch = dataset.__getitems__(range(40))
    assert len(batch["pixel_values"]) == 80
    assert torch.equal(batch["labels"][:40], batch["labels"][40:])
    assert torch.equal(batch["group"][:40], dataset.group[:40])
    first, second = batch["pixel_values"].split(40)
    same = (first == second).all(dim=(1, 2, 3))
    mirrored = (first.flip(-1) == second).all(dim=(1, 2, 3))
    assert same.any()
    assert mirrored.any()
    assert (same | mirrored).all()


def test_readout_leaves_the_encoder_of_the_first_stage(table, backbone) -> None:
    """The encoder after both stages is that of the contrastive stage alone, and it did move."""
    training = training_of(table, backbone, epochs=3)
    method, seen = FSCL(readout_learning_rate=0.01), {}

    class Watched(FSCL):
        def stages(self, epochs):
            first, second = super().stages(epochs)
            start = second.method.start_stage

            def note(model):
                classifier = start(model)
                seen.update({n: p.detach().clone() for n, p in classifier.named_parameters()})
                return classifier

            second.method.start_stage = note
            return first, second

    trainer = trained(training, Watched, readout_learning_rate=0.01)
    after = dict(trainer.model.named_parameters())
    assert method.stages(3)[0].epochs == 2
    moved = {n for n in after if not torch.equal(after[n], seen[n])}
    assert moved
    assert all("classifier.fairmask_copies" in n for n in moved)
    copies = [n for n in after if "fairmask_copies" in n and "q_proj.weight" in n]
    bases = [n.replace("fairmask_copies.default", "base_layer") for n in copies]
    assert not any(torch.equal(after[c], after[b]) for c, b in zip(copies, bases, strict=True))
    assert training.datasets["train"].views == 1  # the readout sees each picture once


def test_a_stage_s_own_settings_win() -> None:
    arguments = FitArguments(epochs=9, weight_decay=1e-4)
    (stage,) = GroupDRO(weight_decay=0.05).stages(9)
    assert stage_arguments(arguments, stage).weight_decay == 0.05
    (stage,) = Method().stages(9)
    assert stage_arguments(arguments, stage) == arguments


def test_trainer_draws_rows_by_the_method_s_weights(table, backbone) -> None:
    trainer = trained(training_of(table, backbone, epochs=1), Resampling, by="group")
    drawn = list(trainer._get_train_sampler())
    assert len(drawn) == len(trainer.train_dataset)
    assert len(set(drawn)) < len(drawn)  # with replacement
    plain = trained(training_of(table, backbone, epochs=1), Method)
    assert sorted(plain._get_train_sampler()) == list(range(len(plain.train_dataset)))


def test_groupdro_s_weights_move_in_training_and_not_in_scoring(table, backbone) -> None:
    trainer = trained(training_of(table, backbone), GroupDRO, step_size=0.1)
    method = trainer.method
    weights = method.weights.clone()
    assert not torch.allclose(weights, torch.tensor([0.5, 0.5]))
    assert float(weights.sum()) == pytest.approx(1.0)
    trainer.predict_scores(trainer.eval_dataset)
    assert torch.equal(method.weights, weights)


def test_the_last_step_comes_once_after_the_last_epoch(table, backbone) -> None:
    calls = []

    class Doubling(Method):
        def finish(self, model, train, validation):
            calls.append((len(train), len(validation)))
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "classifier.fairmask_copies" in name:
                        parameter.mul_(2)

    training = training_of(table, backbone)
    plain = trained(training, Method, mask="none").predict_scores(training.datasets["validation"])
    twice = trained(training, Doubling, mask="none").predict_scores(training.datasets["validation"])
    assert calls == [(108, 36)]
    logit = np.log(plain / (1 - plain))
    np.testing.assert_allclose(np.log(twice / (1 - twice)), 2 * logit, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_seed_fixes_a_training_of_two_stages(table, backbone) -> None:
    training = training_of(table, backbone)
    one, same, other = (
        trained(training, FSCL, seed=seed).predict_scores(training.datasets["validation"])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_blocks_with_foreign_layers_are_not_run_the_fast_way(backbone) -> None:
    plain = Method().prepare_model(backbone.copy_with_new_head(), FairMaskConfig(mask="full"))
    assert find_vit(plain) is not None
    adapted = LoRA().prepare_model(backbone.copy_with_new_head(), FairMaskConfig(mask="full"))
    assert find_vit(adapted) is None


@pytest.mark.parametrize(
    "mask",
    [
        {"mask": "full"},
        {"mask": "bitfit"},
        {"mask": "layernorm_tuning"},
        {"mask": {"attention": "01", "mlp": "10"}},
        {"mask": "0110" * 2, "layout": "attention_params"},
    ],
    ids=str,
)
def test_the_fast_way_runs_the_adapter_s_own_values_and_trains_them(backbone, mask) -> None:
    torch.manual_seed(1)
    model = Method().prepare_model(backbone.copy_with_new_head(), FairMaskConfig(**mask))
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for parameter in own.values():
            parameter.add_(0.2 * torch.randn_like(parameter))
    inputs = torch.randn(5, 3, 32, 32)
    expected = model(pixel_values=inputs).logits
    gradients = torch.autograd.grad(expected.square().sum(), list(own.values()), allow_unused=True)
    FastForward(model, dtype=torch.float32, residual=torch.float32)
    found = model(pixel_values=inputs).logits
    torch.testing.assert_close(found, expected)
    fast = torch.autograd.grad(found.square().sum(), list(own.values()), allow_unused=True)
    for name, one, other in zip(own, fast, gradients, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5, msg=name)


def test_running_by_module_is_for_a_while(backbone) -> None:
    model = backbone.copy_with_new_head()
    layer = model.vit.layers[0]

    def fast(*arguments):
        raise AssertionError

    layer.forward = fast
    with run_by_module(model):
        model(pixel_values=torch.zeros(1, 3, 32, 32))
    assert layer.forward is fast


def test_a_timm_checkpoint_says_its_own_size_and_normalisation(tmp_path: Path) -> None:
    network = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, num_classes=3, depth=2, embed_dim=24, num_heads=2
    )
    cfg = {**network.pretrained_cfg, "input_size": (3, 32, 32), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}  # fmt: skip
    size = {"img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}
    config = TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", pretrained_cfg=cfg, num_labels=3, model_args=size
    )
    TimmWrapperForImageClassification(config).save_pretrained(tmp_path)
    loaded = load_backbone(tmp_path)
    assert (loaded.image_size, loaded.blocks) == (32, 2)
    assert loaded.image_mean == (0.1, 0.2, 0.3)
    assert loaded.image_std == (0.4, 0.5, 0.6)
    model = Method().prepare_model(loaded.copy_with_new_head(), FairMaskConfig(mask="full"))
    assert model(pixel_values=torch.zeros(2, 3, 32, 32)).logits.shape == (2, 2)
