"""`--training-arguments`: every field of the library is in the table, and the table says what is so."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import get_peft_model
from transformers import TrainingArguments, set_seed, trainer_pt_utils
from transformers.models.vit.modeling_vit import ViTMLP

from fairtune_hf.cli.main import main
from fairtune_hf.data import ImageTable, load_dataset_table
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.training import (
    FairTrainer,
    FitArguments,
    RunFolder,
    build_datasets,
    load_backbone,
)
from fairtune_hf.training.argument_rules import RULES, write_reference
from fairtune_hf.training.callbacks import epoch_loss
from fairtune_hf.tuner import FairMaskConfig

FIELDS = {f.name: f for f in dataclasses.fields(TrainingArguments)}
HONOURED = [name for name, rule in RULES.items() if rule.verdict == "honoured"]


def test_every_field_of_the_library_is_in_the_table() -> None:
    assert set(FIELDS) <= set(RULES), "say what becomes of these: honoured, decided or refused"


def test_each_field_has_one_verdict_and_words_for_it() -> None:
    for name, rule in RULES.items():
        assert rule.why.endswith("."), name
        assert rule.needs is None or RULES[rule.needs[0]].verdict == "honoured", name


def test_the_page_is_written_from_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "training_arguments.md"
    assert page.read_text(encoding="utf-8") == write_reference()


@pytest.mark.parametrize("name", [n for n in FIELDS if RULES[n].verdict != "honoured"])
def test_what_is_not_honoured_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"--training-arguments: {name} is ") as caught:
        FitArguments(training_arguments=json.dumps({name: "x"}))
    assert RULES[name].why in str(caught.value)


@pytest.mark.parametrize(
    "name", ["label_smoothing_factor", "load_best_model_at_end", "prediction_loss_only", "push_to_hub"]
)  # fmt: skip
def test_the_command_and_its_file_refuse_before_anything_starts(
    name: str, folder_flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"training_arguments: {{{name}: 1}}\n")
    for given in ([f'--training-arguments={{"{name}": 1}}'], [f"--config={config}"]):
        assert main(["search", *folder_flags, f"--out={tmp_path / 'run'}", *given]) == 2
        assert f"{name} is " in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_mapping_is_taken_from_python() -> None:
    given = FitArguments(training_arguments={"max_grad_norm": 0.5})  # type: ignore[arg-type]
    assert given.further_arguments() == {"max_grad_norm": 0.5}
    assert given == FitArguments(training_arguments='{"max_grad_norm": 0.5}')


def test_a_field_of_a_newer_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(RULES, "max_grad_norm")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_grad_norm is newer than this version"):
        FitArguments(training_arguments='{"max_grad_norm": 1}')


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"gradient_accumulation_steps": 0}, "of at least 1, got 0"),
        ({"gradient_accumulation_steps": 1.5}, "a whole number for gradient_accumulation_steps"),
        ({"per_device_eval_batch_size": -1}, "of at least 1, got -1"),
        ({"eval_accumulation_steps": 0}, "of at least 1, got 0"),
        ({"max_grad_norm": float("nan")}, "of at least 0, got nan"),
        ({"adam_beta1": 1.0}, "of at least 0 and below 1, got 1.0"),
        ({"log_level": "loud"}, "expected log_level among debug, "),
        ({"logging_strategy": "no"}, "expected logging_strategy among epoch, steps"),
        ({"logging_steps": 5}, "expected logging_strategy steps beside logging_steps"),
        ({"optim": "sgd", "adam_beta1": 0.5}, "expected optim adamw_torch_fused or adamw_torch"),
        ({"optim": "galore_adamw"}, "expected optim among "),
        ({"optim_args": "momentum=0.9"}, "expected optim sgd or adagrad or rmsprop beside optim_args"),
        ({"optim": "sgd", "optim_args": "nestrov=true"}, "of momentum, dampening, nesterov for sgd"),
        ({"optim": "sgd", "optim_args": "weight_decay=0.1"}, "the weight decay has a flag"),
        ({"activation_checkpointing_kwargs": {}}, "expected activation_checkpointing true beside"),
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
            "leaves blocks above frozen ones untrained",
        ),
    ],
)  # fmt: skip
def test_values_that_cannot_work_or_would_do_nothing(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FitArguments(training_arguments=json.dumps(given))


@pytest.mark.parametrize("name", [n for n, rule in RULES.items() if rule.ignored_by_trainer])
def test_the_trainer_refuses_what_it_would_not_honour(name: str, tiny_vit: Path, tmp_path: Path) -> None:  # fmt: skip
    value: Any = {"kernel": True} if name == "liger_kernel_config" else not FIELDS[name].default
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    setattr(arguments, name, value)
    with pytest.raises(ValueError, match=f"{name} is not for FairTrainer"):
        FairTrainer(model=load_backbone(tiny_vit).copy_with_new_head(), args=arguments)


@pytest.fixture(scope="module")
def table(pictures_template: Path) -> ImageTable:
    return load_dataset_table(
        "folder", pictures_template, image_size=32, label_column="diagnosis", sensitive_column="sex",
        patient_column="person", split_column="part", cache=False, progress=False,
    )  # fmt: skip


Train = Any


@pytest.fixture(scope="module")
def train(table: ImageTable, tiny_vit: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains two epochs of seven steps with further arguments; returns the Trainer and the test scores."""
    backbone, out = load_backbone(tiny_vit), tmp_path_factory.mktemp("out")

    def run(**further: Any) -> tuple[FairTrainer, np.ndarray]:
        fit = FitArguments(
            epochs=2, batch_size=16, transforms="none", training_arguments=json.dumps(further)
        )
        set_seed(0)
        data = build_datasets(table, backbone, fit)
        arguments = fit.to_training_arguments(
            out, learning_rate=1e-2, seed=0, evaluation_rows=len(data["validation"])
        )
        trainer = FairTrainer(
            model=get_peft_model(backbone.copy_with_new_head(), FairMaskConfig(mask="010110")),
            args=arguments, train_dataset=data["train"], eval_dataset=data["validation"],
        )  # fmt: skip
        trainer.train()
        return trainer, trainer.predict_scores(data["test"])

    return run


@pytest.fixture(scope="module")
def plain(train: Train) -> np.ndarray:
    scores: np.ndarray = train()[1]
    return scores


@pytest.mark.parametrize(
    ("further", "optimizer"),
    [
        ({"optim": "adamw_torch"}, torch.optim.AdamW),
        ({"optim": "sgd", "optim_args": "momentum=0.9, nesterov=true"}, torch.optim.SGD),
        ({"optim": "adagrad", "optim_args": "lr_decay=0.5"}, torch.optim.Adagrad),
        ({"optim": "rmsprop", "optim_args": "alpha=0.5, centered=true"}, torch.optim.RMSprop),
        ({"adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 0.1}, torch.optim.AdamW),
    ],
)
def test_the_optimizer_is_the_one_asked_for(
    train: Train, further: dict[str, Any], optimizer: type
) -> None:
    used = train(**further)[0].optimizer.optimizer
    assert type(used) is optimizer
    expected = {"momentum": 0.9, "nesterov": True, "lr_decay": 0.5, "alpha": 0.5, "centered": True}
    if "adam_beta1" in further:
        expected = {"betas": (0.5, 0.6), "eps": 0.1}
    words = further.get("optim_args", "")
    for group in used.param_groups:
        assert all(
            group[k] == v for k, v in expected.items() if k in words or k in ("betas", "eps")
        )


@pytest.mark.parametrize(
    "further",
    [{"max_grad_norm": 0.01}, {"optim": "adafactor"}, {"gradient_accumulation_steps": 3}],
)
def test_what_changes_the_training(
    train: Train, plain: np.ndarray, further: dict[str, Any]
) -> None:
    trainer, scores = train(**further)
    assert np.abs(scores - plain).max() > 1e-3
    steps = 2 * -(-7 // further.get("gradient_accumulation_steps", 1))
    assert (trainer.state.global_step, trainer.state.epoch) == (steps, 2)


@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_checkpointing_runs_trained_blocks_twice_and_changes_no_number(
    train: Train, plain: np.ndarray, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[bool] = []
    forward = ViTMLP.forward

    def count(self: ViTMLP, hidden: torch.Tensor) -> Any:
        calls.append(self.training)
        return forward(self, hidden)

    monkeypatch.setattr(ViTMLP, "forward", count)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the older name
        _, scores = train(**{name: True})
    assert sum(calls) == 2 * 2 * 14  # two blocks, forward and again for the backward pass
    np.testing.assert_array_equal(scores, plain)


@pytest.mark.parametrize("checkpointing", [True, False])
def test_blocks_that_run_as_one_are_left_where_checkpointing_is_asked_for(
    train: Train, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library's blocks checkpoint within their own `forward`, which the fast one would stand in for."""
    trainer, _ = train(activation_checkpointing=checkpointing)
    monkeypatch.setattr(TrainingArguments, "device", torch.device("cuda"))
    monkeypatch.setattr(trainer.args, "bf16", True)
    assert trainer._runs_fast is not checkpointing


SCRIPT = """
import json, os, sys
from pathlib import Path
from transformers import set_seed
from fairtune_hf.data import load_dataset_table
from fairtune_hf.training import FairTrainer, FitArguments, build_datasets, load_backbone

pictures, vit, out = map(Path, sys.argv[1:4])
table = load_dataset_table("folder", pictures, image_size=32, label_column="diagnosis", sensitive_column="sex",
                           patient_column="person", split_column="part", cache=False, progress=False)
backbone = load_backbone(vit)
rows = build_datasets(table, backbone, FitArguments(transforms="none"))["train"]
plain = {"use_cpu": True, "ddp_backend": "gloo"}
told = {"ddp_bucket_cap_mb": 1, "ddp_find_unused_parameters": False, "ddp_broadcast_buffers": False,
        "ddp_static_graph": True, "ddp_timeout": 99, "log_level_replica": "error", "log_on_each_node": False}
found = []
for more in ({}, told):
    fit = FitArguments(epochs=2, batch_size=16, training_arguments=json.dumps(plain | more))
    set_seed(0)
    trainer = FairTrainer(model=backbone.copy_with_new_head(), train_dataset=rows,
                          args=fit.to_training_arguments(out, learning_rate=0.01, seed=3))
    trainer.train()
    wrapped = trainer.model_wrapped
    found.append({"scores": trainer.predict_scores(rows).tolist(), "static": getattr(wrapped, "static_graph", None),
                  "unused": getattr(wrapped, "find_unused_parameters", None)})
if trainer.is_world_process_zero():
    (out / "found.json").write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_train_as_they_are_told(
    run_in_processes: Callable[..., None], pictures: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    run_in_processes(SCRIPT, pictures, tiny_vit, tmp_path, processes=2)
    plain, told = json.loads((tmp_path / "found.json").read_text())
    assert (told["static"], told["unused"]) == (True, False)
    assert plain["static"] is False
    np.testing.assert_allclose(told["scores"], plain["scores"], atol=1e-6)


def test_scores_do_not_depend_on_how_many_rows_are_scored_at_once(
    train: Train, plain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[int] = []
    move = trainer_pt_utils.EvalLoopContainer.to_cpu_and_numpy
    monkeypatch.setattr(
        trainer_pt_utils.EvalLoopContainer, "to_cpu_and_numpy", lambda s: (moves.append(1), move(s))[1]
    )  # fmt: skip
    train()
    few = len(moves)
    trainer, scores = train(per_device_eval_batch_size=7, eval_accumulation_steps=2)
    assert trainer.args.eval_batch_size == 7
    assert len(moves) - few > few
    np.testing.assert_allclose(scores, plain, atol=1e-6)


def test_what_leaves_the_numbers_as_they_are(
    train: Train, plain: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[int] = []
    monkeypatch.setattr("transformers.trainer.clear_device_cache", lambda: emptied.append(1))
    more = {"torch_empty_cache_steps": 2, "use_cpu": True, "tf32": False, "log_level": "critical"}
    trainer, scores = train(**more)
    np.testing.assert_array_equal(scores, plain)
    assert len(emptied) == 7
    assert trainer.args.device.type == "cpu"
    assert logging.getLogger("transformers").level == logging.CRITICAL


def test_only_deterministic_algorithms(train: Train) -> None:
    try:
        train(full_determinism=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_what_several_processes_are_told(train: Train) -> None:
    further = {
        "ddp_bucket_cap_mb": 7, "ddp_static_graph": True, "ddp_find_unused_parameters": False,
        "ddp_broadcast_buffers": False, "ddp_timeout": 77,
    }  # fmt: skip
    trainer, _ = train(**further)
    told = trainer.accelerator.ddp_handler
    assert (told.bucket_cap_mb, told.static_graph) == (7, True)
    assert (told.find_unused_parameters, told.broadcast_buffers) == (False, False)
    assert trainer.args.ddp_timeout_delta.total_seconds() == 77


@pytest.mark.parametrize(
    "more",
    [{"logging_strategy": "steps", "logging_steps": 3}, {"logging_first_step": True}, {"logging_strategy": "steps", "logging_steps": 5}],
)  # fmt: skip
def test_the_loss_of_an_epoch_is_the_same_however_often_it_is_recorded(
    train: Train, more: dict[str, Any]
) -> None:
    plain, often = train()[0].state.log_history, train(**more)[0].state.log_history
    assert sum("loss" in entry for entry in often) > sum("loss" in entry for entry in plain)
    assert epoch_loss(often)["loss"] == pytest.approx(epoch_loss(plain)["loss"], rel=1e-6)
    assert epoch_loss(plain)["loss"] == [e["loss"] for e in plain if "loss" in e][-1]


@pytest.mark.slow
def test_the_curves_of_a_search_hold_the_loss_of_whole_epochs(
    search_table: ImageTable, tiny_vit: Path, tmp_path: Path
) -> None:
    curves = []
    for further in ({}, {"logging_strategy": "steps", "logging_steps": 4}):
        folder = RunFolder(tmp_path / str(len(curves)))
        fit = FitArguments(
            epochs=2, batch_size=16, transforms="none", training_arguments=json.dumps(further)
        )
        arguments = SearchArguments(trials=1, pruner="none")
        search_masks(
            search_table, load_backbone(tiny_vit), folder, arguments, fit, show_progress=False
        )
        curves.append(pd.read_csv(folder.path / "curves.csv"))
    np.testing.assert_allclose(curves[0]["loss"], curves[1]["loss"], rtol=1e-5)
