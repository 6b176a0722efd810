"""Whole searches of a tiny model: several objectives, lengths, failures, controls, memory."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import TrainerCallback

from fairtune_hf.data import ImageTable
from fairtune_hf.search import (
    SearchArguments,
    SearchSpace,
    SearchStudy,
    run_study,
    search_masks,
)
from fairtune_hf.search.storage import Liveness
from fairtune_hf.search.study_plan import StudyPlan
from fairtune_hf.training import (
    Backbone,
    FairTrainer,
    FitArguments,
    RunFolder,
    Training,
    build_datasets,
    load_backbone,
)
from fairtune_hf.training.trial_trainer import TRIAL_FAILURES

FIT = FitArguments(epochs=2, batch_size=36)


@pytest.fixture(scope="module")
def backbone(tiny_vit: Path) -> Backbone:
    return load_backbone(tiny_vit)


@pytest.fixture(scope="module")
def table(search_table: ImageTable) -> ImageTable:
    return search_table


class Break(TrainerCallback):
    """Break the trials with the given numbers."""

    def __init__(
        self, trainer: FairTrainer, numbers: set[int], error: BaseException | None
    ) -> None:
        self.trainer, self.numbers, self.error = trainer, numbers, error

    def on_epoch_end(self, *_: Any, **kwargs: Any) -> None:
        if self.trainer._trial.number not in self.numbers:
            return
        if self.error is not None:
            raise self.error
        for parameter in self.trainer.model.parameters():
            parameter.data.fill_(float("nan"))


def breaking(numbers: set[int], error: BaseException | None = None) -> Any:
    def make(**arguments: Any) -> FairTrainer:
        trainer = FairTrainer(**arguments)
        trainer.add_callback(Break(trainer, numbers, error))
        return trainer

    return make


@pytest.mark.slow
def test_failing_trials_are_noted_with_their_reasons_and_the_search_goes_on(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    memory = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    assert isinstance(memory, TRIAL_FAILURES)
    for name, error, reason in (("nan", None, "not numbers"), ("memory", memory, "2 GiB")):
        study = run_study(
            StudyPlan(
                RunFolder(tmp_path / name), SearchSpace(blocks=2), SearchArguments(trials=3), FIT
            ),
            Training(
                table=table, backbone=backbone, arguments=FIT, make_trainer=breaking({1}, error)
            ),
            show_progress=False,
        )
        trials = pd.read_csv(tmp_path / name / "trials.csv")
        assert list(trials["state"]) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
        assert reason in trials["reason"][1]
        assert study is not None
        assert study.finished() == 3  # the failed one is not counted, and not repeated


def test_ten_failures_in_a_row_end_the_search_with_advice(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match=r"10 trials in a row failed.*--learning-rate-max"):
        run_study(
            StudyPlan(RunFolder(tmp_path), SearchSpace(blocks=2), SearchArguments(trials=20), FIT),
            Training(
                table=table,
                backbone=backbone,
                arguments=FIT,
                make_trainer=breaking(set(range(1, 50))),
            ),
            show_progress=False,
        )
    states = pd.read_csv(tmp_path / "trials.csv")["state"]
    assert list(states) == ["COMPLETE", *["FAIL"] * 10]


def test_several_objectives_leave_a_front_and_the_first_one_decides(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    search = SearchArguments(
        trials=8, objective="min_auc,trainable_parameters", top_k=0, search_epochs="1,2"
    )
    choice = search_masks(table, backbone, RunFolder(tmp_path), search, FIT, show_progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    trials = pd.read_csv(tmp_path / "trials.csv")
    complete = trials[trials["state"].eq("COMPLETE")]
    assert choice is not None
    assert record["choice"]["trial"] in set(
        complete["number"][complete["min_auc"].eq(complete["min_auc"].max())]
    )
    front = pd.DataFrame(record["search"]["pareto_front"])
    for row in complete.itertuples():  # by hand: who is beaten by nobody
        beaten = (
            (complete["min_auc"] >= row.min_auc)
            & (complete["trainable_parameters"] <= row.trainable_parameters)
            & (
                (complete["min_auc"] > row.min_auc)
                | (complete["trainable_parameters"] < row.trainable_parameters)
            )
        ).any()
        assert (row.number in set(front["trial"])) == (not beaten)
    assert set(complete["epochs"]) == {1, 2}
    assert record["choice"]["epochs"] == choice.epochs in (1, 2)
    readout = complete[complete["mask"].astype(str).str.strip("0").eq("")]
    assert readout["trainable_parameters"].iloc[0] == 2 * 16 + 2  # the head alone


@pytest.mark.slow
def test_the_best_trial_is_kept_whole_and_controls_have_their_own_budget(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    search = SearchArguments(trials=3, top_k=2, top_k_seeds=2, control_trials=2)
    search_masks(table, backbone, RunFolder(tmp_path), search, FIT, show_progress=False)
    record = json.loads((tmp_path / "run.json").read_text())
    best = record["search"]["best_trial"]
    trials = pd.read_csv(tmp_path / "trials.csv", dtype={"mask": str})
    assert best["value"] == trials["value"].max()
    model = PeftModel.from_pretrained(backbone.copy_with_new_head(), tmp_path / "best_trial")
    scores = np.load(tmp_path / "best_trial" / "scores.npy")
    rows = build_datasets(table, backbone, FIT)["validation"]
    with torch.no_grad():
        logits = model(rows.__getitems__(range(len(rows)))["pixel_values"]).logits
    assert np.allclose(logits.softmax(1)[:, 1].double().numpy(), scores, atol=1e-6)
    assert {c["trial"] for c in record["search"]["confirmation"]["candidates"]} <= set(
        trials["number"]
    )
    controls = record["controls"]
    assert set(controls) == {"full_blocks", "linear_readout", "random_mask"}
    for name in ("full_blocks", "random_mask"):
        assert controls[name]["trials"] == 2
        own = pd.read_csv(tmp_path / "control_searches" / name / "trials.csv", dtype={"mask": str})
        assert controls[name]["learning_rate"] in set(own["learning_rate"])
    assert set(controls["full_blocks"]["mask"]) == {"1"}
    assert len(set(own["mask"])) == 2  # another random mask in each trial
    assert record["search"]["mask_frequency"]["bits"][0]["name"] == "blocks.0.layernorm"


def test_nothing_of_a_trial_is_left_after_it(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    def count() -> int:
        gc.collect()
        return sum(isinstance(found, torch.nn.Module) for found in gc.get_objects())

    counts = []

    def make(**arguments: Any) -> FairTrainer:
        return FairTrainer(**arguments)

    run_study(
        StudyPlan(RunFolder(tmp_path), SearchSpace(blocks=2), SearchArguments(trials=8), FIT),
        Training(table=table, backbone=backbone, arguments=FIT, make_trainer=make),
        on_candidate=lambda _: counts.append(count()),
        show_progress=False,
    )
    assert len(counts) == 8
    assert counts[1] == counts[-1]  # when the next model is built, the one before is gone


def test_a_trial_that_the_budget_cuts_is_repeated_when_there_is_more(
    table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    def search(folder: str, epochs: int | None) -> pd.DataFrame:
        arguments = SearchArguments(trials=4, trained_epochs=epochs, pruner="none")
        where = RunFolder(tmp_path / folder)
        run_study(
            StudyPlan(where, SearchSpace(blocks=2), arguments, FIT),
            Training(table=table, backbone=backbone, arguments=FIT),
            show_progress=False,
        )
        return pd.read_csv(tmp_path / folder / "trials.csv", dtype={"mask": str})

    cut = search("cut", 3)
    assert list(cut["state"]) == ["COMPLETE", "FAIL"]
    assert cut["reason"][1] == "ended early: 3 epochs are trained"
    assert cut["epochs"][1] == 1
    resumed = search("cut", None)
    whole = search("whole", None)
    complete = resumed[resumed["state"].eq("COMPLETE")]
    assert len(complete) == 4
    same = ["mask", "learning_rate", "value", "preset"]
    pd.testing.assert_frame_equal(
        complete[same].reset_index(drop=True), whole[same], check_exact=True
    )


@pytest.mark.parametrize("layout", ["block3", "block4", "block", "attention"])
def test_controls_take_what_the_search_found_for_them_in_its_own_layout(
    layout: str, table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    search = SearchArguments(trials=8, layout=layout, pruner="none", top_k=0)
    search_masks(table, backbone, RunFolder(tmp_path), search, FIT, show_progress=False)
    controls = json.loads((tmp_path / "run.json").read_text())["controls"]
    trials = pd.read_csv(tmp_path / "trials.csv", dtype={"mask": str})
    tried = {"linear_readout": "0", "full_blocks": "1"}
    if layout == "attention":  # whole blocks are beyond it
        assert controls["full_blocks"]["trial"] is None
        assert controls["full_blocks"]["layout"] == "block3"
        del tried["full_blocks"]
    for name, bit in tried.items():
        own = trials[trials["mask"].str.strip(bit).eq("")]
        best = own.loc[own["value"].idxmax()]
        assert len(own) >= 1
        assert controls[name]["trial"] == best["number"]
        assert controls[name]["learning_rate"] == best["learning_rate"]
        assert controls[name]["layout"] == layout


class Bury(TrainerCallback):
    """Take a trial for dead in its middle or at its end, as a worker does that saw no sign of life of it."""

    def __init__(self, trainer: FairTrainer, folder: Path, epoch: int) -> None:
        self.trainer, self.folder, self.epoch = trainer, folder, epoch

    def on_epoch_end(self, _: Any, state: Any, *__: Any, **kwargs: Any) -> None:
        if self.epoch == 1:
            self.bury(state)

    def on_train_end(self, _: Any, state: Any, *__: Any, **kwargs: Any) -> None:
        if self.epoch == 2:
            self.bury(state)

    def bury(self, state: Any) -> None:
        if self.trainer._trial.number == 0 and round(state.epoch) == self.epoch:
            space, search = SearchSpace(blocks=2), SearchArguments(trials=3)
            other = SearchStudy(
                StudyPlan(RunFolder(self.folder), space, search, FitArguments(epochs=2))
            )
            with patch.object(Liveness, "is_alive", return_value=False):
                other.claim()
            other.end_turn()


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_result_that_is_thrown_away_is_told_and_the_total_stays_exact(
    epoch: int,
    table: ImageTable,
    backbone: Backbone,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def make(**arguments: Any) -> FairTrainer:
        trainer = FairTrainer(**arguments)
        trainer.add_callback(Bury(trainer, tmp_path, epoch))
        return trainer

    run_study(
        StudyPlan(RunFolder(tmp_path), SearchSpace(blocks=2), SearchArguments(trials=1), FIT),
        Training(table=table, backbone=backbone, arguments=FIT, make_trainer=make),
        show_progress=False,
    )
    trials = pd.read_csv(tmp_path / "trials.csv", dtype={"mask": str})
    assert list(trials["state"]) == ["FAIL", "COMPLETE"]
    point = ["mask", "learning_rate"]
    assert list(trials[point].iloc[1]) == list(trials[point].iloc[0])
    # The lost one was saved too if it came to its end, and its repetition takes its place.
    kept = json.loads((tmp_path / "best_trial" / "trial.json").read_text())
    assert kept["number"] == 1
    said = capsys.readouterr().err
    assert said.count("A trial's result is thrown away") == 1
    assert "Trial 0 ended in the middle and is repeated" in said
