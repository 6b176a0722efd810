"""The Trainer's own parts: loss, class weights, determinism, divergence; the backbone and the arguments."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from sklearn.metrics import log_loss
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher, set_seed
from transformers.utils import is_torch_tf32_available

from fairtune_hf.data import ImageTable, load_dataset_table
from fairtune_hf.run_record import ChoiceRecord
from fairtune_hf.training import (
    Backbone,
    FairTrainer,
    FitArguments,
    RunFolder,
    Training,
    build_datasets,
    load_backbone,
)
from fairtune_hf.training.refit import refit
from fairtune_hf.training.train import class_weights
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


FIT = FitArguments(epochs=1, batch_size=16, transforms="none")


def make_trainer(table: ImageTable, backbone: Backbone, **settings: object) -> FairTrainer:
    set_seed(0)
    model = get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask="full_blocks"))
    arguments = FIT.to_training_arguments(Path(tempfile.gettempdir()), learning_rate=1e-3, seed=0)
    train = build_datasets(table, backbone, FIT)["train"]
    return FairTrainer(model=model, args=arguments, train_dataset=train, **settings)


def test_loss_is_the_cross_entropy_of_the_label(table: ImageTable, backbone: Backbone) -> None:
    trainer = make_trainer(table, backbone)
    batch = trainer.train_dataset.__getitems__(range(20))
    with torch.no_grad():
        loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    expected = log_loss(batch["labels"].numpy(), outputs["logits"].double().softmax(-1).numpy())
    assert float(loss) == pytest.approx(expected, abs=1e-6)


def test_gradients_added_up_over_two_half_batches_are_those_of_the_whole(
    table: ImageTable, backbone: Backbone
) -> None:
    changes, losses = [], []
    for rows, steps in ((16, 1), (8, 2)):
        trainer = make_trainer(table, backbone)
        before = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        trainer.args.per_device_train_batch_size = trainer._train_batch_size = rows
        trainer.args.gradient_accumulation_steps = steps
        trainer.args.optim = "sgd"  # Adam would hide a factor
        trainer.args.max_grad_norm = 0.0
        trainer.args.max_steps = 2  # whole batches only
        trainer.train()
        after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
        changes.append(after - before)
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert float((changes[0] - changes[1]).norm()) < 1e-3 * float(changes[0].norm())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_class_weights_are_one_minus_the_share_in_the_training_rows(
    table: ImageTable, backbone: Backbone
) -> None:
    weights = class_weights(table, FitArguments(class_weight="inverse_share"))
    share = table.subset("train").labels.mean()
    assert weights == pytest.approx((share, 1 - share))
    plain, weighted = (
        make_trainer(table, backbone),
        make_trainer(table, backbone, class_weights=(0.0, 2.0)),
    )
    batch = plain.train_dataset.__getitems__(range(30))
    positives = {name: values[batch["labels"] == 1] for name, values in batch.items()}
    with torch.no_grad():
        alone = float(plain.compute_loss(plain.model, positives))
        both = float(weighted.compute_loss(weighted.model, batch))
    assert both == pytest.approx(2.0 * alone * len(positives["labels"]) / 30, rel=1e-5)


def test_same_seed_same_scores_other_seed_other_scores(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    choice = ChoiceRecord(mask="111111", layout="block3", learning_rate=1e-3)
    scores = [
        refit(
            Training(table=table, backbone=backbone, arguments=FIT),
            RunFolder(tmp_path / name),
            choice,
            seeds=[seed],
        )["score"].to_numpy()
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_base_weights_are_never_trained(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    choice = ChoiceRecord(mask="111111", layout="block3", learning_rate=1e-2)
    refit(
        Training(table=table, backbone=backbone, arguments=FIT),
        RunFolder(tmp_path),
        choice,
        seeds=[0],
    )
    assert all(torch.equal(before[n], v) for n, v in backbone.model.state_dict().items())


def test_a_diverged_training_is_named(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    choice = ChoiceRecord(mask="111111", layout="block3", learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="the training diverged"):
        refit(
            Training(table=table, backbone=backbone, arguments=FIT),
            RunFolder(tmp_path),
            choice,
            seeds=[0],
        )


def test_a_new_head_comes_from_the_seed_and_the_rest_is_kept(backbone: Backbone) -> None:
    set_seed(3)
    one = backbone.copy_with_new_head()
    set_seed(3)
    two = backbone.copy_with_new_head()
    set_seed(4)
    other = backbone.copy_with_new_head()
    assert torch.equal(one.classifier.weight, two.classifier.weight)
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert one.classifier.out_features == 2
    name = "vit.layernorm.weight"
    assert torch.equal(one.state_dict()[name], backbone.model.state_dict()[name])


def test_a_new_head_is_drawn_whatever_the_architecture_calls_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    settings = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "hidden_size": 16,
    }
    config = DeiTConfig(**settings, image_size=32, patch_size=16, num_labels=5)
    DeiTForImageClassificationWithTeacher(config).save_pretrained(tmp_path)
    plain = load_backbone(tmp_path)
    set_seed(1)
    copied = plain.copy_with_new_head()
    for name in ("cls_classifier", "distillation_classifier"):
        head, before = getattr(copied, name), getattr(plain.model, name)
        assert head.out_features == 2
        assert not torch.equal(head.weight, before.weight)
        assert float(head.bias.detach().abs().sum()) == 0


@pytest.mark.parametrize("rows", [7, 512])
def test_the_size_of_evaluation_batches_changes_no_score(
    table: ImageTable, backbone: Backbone, rows: int
) -> None:
    trainer = make_trainer(table, backbone)
    validation = build_datasets(table, backbone, FIT)["validation"]
    expected = trainer.predict_scores(validation)
    trainer.args.per_device_eval_batch_size = rows
    np.testing.assert_allclose(trainer.predict_scores(validation), expected, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("mask", ["none", "layernorm", "attention", "full_blocks"])
@pytest.mark.parametrize("compiled", ["on", "off"])
def test_a_bf16_training_on_the_gpu_scores_like_fp32(
    table: ImageTable, backbone: Backbone, tmp_path: Path, mask: str, compiled: str
) -> None:
    choice = ChoiceRecord(mask=mask, layout="block3", learning_rate=1e-3)
    scores = {}
    for precision in ("fp32", "bf16"):
        arguments = replace(FIT, epochs=2, precision=precision, compile=compiled)
        folder = RunFolder(tmp_path / precision)
        scores[precision] = refit(
            Training(table=table, backbone=backbone, arguments=arguments), folder, choice, seeds=[0]
        )["score"]
    assert scores["bf16"].std() > 0
    np.testing.assert_allclose(scores["bf16"], scores["fp32"], atol=0.03)


def test_checkpoints_without_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"\*\.safetensors not found"):
        load_backbone(tmp_path)


@pytest.fixture
def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Has PyTorch report a CUDA device of a generation: 8 is Ampere; older ones emulate bf16 and have no TF32."""

    def pretend(major: int) -> None:
        properties = SimpleNamespace(major=major, minor=0)
        for name, value in {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "get_device_properties": lambda device=None: properties,
            "_check_bf16_tensor_supported": lambda device: True,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        is_torch_tf32_available.cache_clear()

    backends: Any = torch.backends
    before = backends.fp32_precision
    yield pretend
    backends.fp32_precision = before
    is_torch_tf32_available.cache_clear()


@pytest.mark.parametrize(("major", "precision", "tf32"), [(7, "fp32", None), (9, "bf16", True)])
def test_bf16_and_tf32_are_used_where_the_gpu_computes_in_them(
    pretend_gpu: Callable[[int], None], tmp_path: Path, major: int, precision: str, tf32: bool
) -> None:
    pretend_gpu(major)
    kept_off = FitArguments(training_arguments='{"use_cpu": true}')  # there is no GPU to train on
    assert kept_off.to_training_arguments(tmp_path, learning_rate=1e-4, seed=0).tf32 is tf32
    assert FitArguments().resolved_precision() == precision


def test_a_training_that_is_kept_off_the_gpu_is_in_fp32(
    pretend_gpu: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpu(9)
    assert FitArguments().resolved_precision() == "bf16"
    kept_off = FitArguments(training_arguments='{"use_cpu": true}')
    assert kept_off.resolved_precision() == "fp32"
    monkeypatch.setenv("ACCELERATE_USE_CPU", "1")
    assert FitArguments().resolved_precision() == "fp32"
    assert FitArguments(precision="bf16").resolved_precision() == "bf16"  # asked for


def test_accelerate_wins_over_the_configured_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    assert FitArguments(precision="fp32").resolved_precision() == "fp32"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert FitArguments(precision="fp32").resolved_precision() == "bf16"
    monkeypatch.setenv(
        "ACCELERATE_MIXED_PRECISION", "no"
    )  # what launch sets when nothing was asked for
    assert FitArguments(precision="fp16").resolved_precision() == "fp16"


def test_one_process_trains_on_one_gpu_however_many_are_visible(
    table: ImageTable, backbone: Backbone
) -> None:
    arguments = FIT.to_training_arguments(Path(tempfile.gettempdir()), learning_rate=1e-3, seed=0)
    assert arguments.device
    arguments._n_gpu = 2  # as transformers finds it where two are visible
    train = build_datasets(table, backbone, FIT)["train"]
    trainer = FairTrainer(model=backbone.copy_with_new_head(), args=arguments, train_dataset=train)
    assert trainer.args.n_gpu == 1
    assert trainer.args.train_batch_size == FIT.batch_size
