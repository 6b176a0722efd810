"""The policy `shared`: what it trains, what it keeps, and that it comes out the same however it was run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fairtune_hf.baselines.shared_masks import SharedMasks
from fairtune_hf.data import ImageTable
from fairtune_hf.metrics import group_metrics
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.search.arguments import apply_policy
from fairtune_hf.training import Backbone, FitArguments, RunFolder, Training, load_backbone
from fairtune_hf.training.candidate import Candidate

FIT = FitArguments(epochs=1, batch_size=36)
SHARED = apply_policy(SearchArguments(policy="shared", shared_epochs=2), set())


@pytest.fixture(scope="module")
def backbone(tiny_vit: Path) -> Backbone:
    return load_backbone(tiny_vit)


@pytest.fixture(scope="module")
def shared_run(
    search_table: ImageTable, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "run"
    search_masks(search_table, backbone, RunFolder(folder), SHARED, FIT, show_progress=False)
    return folder


def test_the_trials_are_the_best_masks_at_two_learning_rates(shared_run: Path) -> None:
    ranking = json.loads((shared_run / "shared" / "ranking.json").read_text())
    trials = pd.read_csv(shared_run / "trials.csv", dtype={"mask": str})
    assert len(trials) == 4
    assert trials["mask"].tolist() == 2 * [pick["mask"] for pick in ranking["picks"]]
    low, high = 1e-5, 1e-3
    rates = [low * (high / low) ** place for place in (0.8, 0.8, 0.6, 0.6)]
    assert trials["learning_rate"].tolist() == pytest.approx(rates)
    record = json.loads((shared_run / "run.json").read_text())
    assert record["choice"]["mask"] in set(trials["mask"])
    assert record["search"]["policy"] == "shared"
    assert record["search"]["shared"] == ranking
    pictures = 108 * (2 + 4)  # two shared epochs, four trials of one
    assert record["cost"]["search"]["images"] == pictures


def test_the_scores_that_are_kept_give_the_values_that_were_ranked(
    shared_run: Path, search_table: ImageTable
) -> None:
    """The estimate goes up with objective and overall AUC together, by the package's other road to metrics."""
    kept = np.load(shared_run / "shared" / "scores.npz")
    validation = search_table.subset("validation")
    assert kept["scores"].shape == (len(kept["masks"]), len(validation.labels))
    names = np.asarray(validation.groups)[validation.group_codes]
    found = [
        group_metrics(validation.labels, s.astype(float), sensitive_features=names)
        for s in kept["scores"]
    ]
    values = np.array([[m.min_auc, m.overall.auc] for m in found])
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    assert np.corrcoef(values.sum(axis=1), kept["estimates"])[0, 1] > 0.3


@pytest.mark.slow
def test_a_ranking_that_was_cut_short_is_made_again_the_same(
    shared_run: Path, search_table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    again = Path(shutil.copytree(shared_run, tmp_path / "run"))
    file = again / "shared" / "ranking.json"
    whole = json.loads(file.read_text())
    file.write_text(file.read_text()[:100])
    for made in ("run.json", "trials.csv", "curves.csv", *again.glob("study.sqlite3*")):
        (again / made).unlink(missing_ok=True)
    search_masks(search_table, backbone, RunFolder(again), SHARED, FIT, show_progress=False)
    made = json.loads(file.read_text())
    del made["cost"], whole["cost"]
    assert made == whole
    trials = [pd.read_csv(run / "trials.csv", dtype=str) for run in (shared_run, again)]
    columns = [c for c in trials[0] if "seconds" not in c]
    pd.testing.assert_frame_equal(trials[0][columns], trials[1][columns])


def test_a_step_trains_what_its_mask_names_through_the_trainer(
    search_table: ImageTable, backbone: Backbone, tmp_path: Path
) -> None:
    """After one step, what moved is the head and the parts whose bit was 1."""
    fit = FitArguments(epochs=1, batch_size=108, weight_decay=0.5, warmup_fraction=0.0)
    seed = next(s for s in range(50) if 0 < sum(masks(s)) < 6)
    training = Training(
        table=search_table, backbone=backbone, arguments=fit, method=SharedMasks, folder=tmp_path
    )
    trainer = training.train(
        Candidate(mask="1" * 6, layout="block3", learning_rate=1e-3, hyperparameters={"seed": seed})
    )
    model = trainer.accelerator.unwrap_model(trainer.model)
    base = dict(backbone.model.named_parameters())
    moved = set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "classifier" not in name:
            plain = name.replace("base_model.model.", "").replace(".fairmask_copies.default", "")
            if not torch.equal(parameter.cpu(), base[plain]):
                moved.add((int(plain.split(".layers.")[1][0]), part_of(plain)))
    bits = masks(seed)
    parts = ("layernorm", "attention", "mlp")
    assert moved == {(i // 3, parts[i % 3]) for i, bit in enumerate(bits) if bit}


def masks(seed: int) -> tuple[int, ...]:
    """The first mask of a seed, by the documented recipe."""
    rng = np.random.default_rng([seed, 0])
    density = rng.choice([0.15, 0.35, 0.5, 0.7, 1.0])
    return tuple(int(bit) for bit in rng.random(6) < density)


def part_of(name: str) -> str:
    return next(p for p in ("layernorm", "attention", "mlp") if p in name)


def test_refuses_what_it_cannot_rank() -> None:
    for objective in ("min_auc,trainable_parameters", "trainable_parameters"):
        with pytest.raises(ValueError, match="--policy: expected trials"):
            SearchArguments(policy="shared", objective=objective)
    with pytest.raises(ValueError, match="--shared-epochs: expected more than 0"):
        SearchArguments(policy="shared", shared_epochs=0)


TOGETHER = """
import json, sys
from pathlib import Path
from fairtune_hf.data import load_dataset_table
from fairtune_hf.search import SearchArguments, search_masks
from fairtune_hf.search.arguments import apply_policy
from fairtune_hf.training import FitArguments, RunFolder, load_backbone

pictures, vit, out = sys.argv[1:]
table = load_dataset_table("folder", pictures, image_size=32, label_column="diagnosis", sensitive_column="sex",
                           patient_column="person", split_column="part", splits=("train", "validation"),
                           cache=False, progress=False)
fit = FitArguments(epochs=1, batch_size=18, training_arguments='{"use_cpu": true, "ddp_backend": "gloo"}')
search = apply_policy(SearchArguments(policy="shared", shared_epochs=2), set())
search_masks(table, load_backbone(vit), RunFolder(out), search, fit, show_progress=False)
"""


@pytest.mark.slow
def test_two_processes_train_the_same_masks_together(
    run_in_processes, pictures_template: Path, tiny_vit: Path, tmp_path: Path
) -> None:
    out = tmp_path / "together"
    run_in_processes(TOGETHER, pictures_template, tiny_vit, out, processes=2)
    record = json.loads((out / "run.json").read_text())
    assert record["search"]["completed"] == 4
    assert (
        len(np.load(out / "shared" / "scores.npz")["scores"]) == record["search"]["shared"]["masks"]
    )
