"""Shares of the training rows: of the loader that Accelerate prepares, and of a training over two processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from fairtune_hf.training.sharding import share_rows


def shares(
    rows: int, batch_size: int, processes: int, *, drop_last: bool = False, shuffle: bool = False
) -> list[list[list[int]]]:
    """Batches of every process, as rows' numbers."""
    PartialState(cpu=True)
    found = []
    for process in range(processes):
        loader = DataLoader(
            TensorDataset(torch.arange(rows)),
            batch_size=batch_size,
            drop_last=drop_last,
            shuffle=shuffle,
            generator=torch.Generator().manual_seed(5) if shuffle else None,
        )
        prepared = share_rows(
            prepare_data_loader(
                loader,
                num_processes=processes,
                process_index=process,
                use_seedable_sampler=True,
                data_seed=7,
            )
        )
        batches = [batch.tolist() for (batch,) in prepared]
        assert len(prepared) == len(batches)
        found.append(batches)
    return found


@settings(deadline=None, max_examples=150)
@given(
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    processes=st.integers(2, 5),
    drop_last=st.booleans(),
)
def test_every_step_is_the_batch_of_one_process_divided(
    rows: int, batch_size: int, processes: int, drop_last: bool
) -> None:
    found = shares(rows, batch_size, processes, drop_last=drop_last)
    expected = list(BatchSampler(range(rows), batch_size * processes, drop_last))
    assert {len(batches) for batches in found} == {len(expected)}  # or some would wait for ever
    for step, whole in enumerate(expected):
        parts = [batches[step] for batches in found]
        sizes = [len(part) for part in parts]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= 1
        drawn = Counter(row for part in parts for row in part)
        if len(whole) >= processes:
            assert drawn == Counter(whole)
        else:
            assert set(drawn) == set(whole)
            assert drawn.total() == processes


def test_an_epoch_has_every_row_once_in_a_new_order() -> None:
    first, second = shares(41, 4, 3, shuffle=True), shares(41, 4, 3, shuffle=True)
    assert first == second
    drawn = [row for batches in first for batch in batches for row in batch]
    assert sorted(drawn) == list(range(41))
    assert drawn != sorted(drawn)


def test_batches_drawn_in_another_way_are_left_alone() -> None:
    PartialState(cpu=True)
    data = TensorDataset(torch.arange(10))
    alone = DataLoader(data, batch_size=4)
    assert share_rows(alone) is alone
    assert type(alone.batch_sampler) is BatchSampler
    split = prepare_data_loader(
        DataLoader(data, batch_size=4), num_processes=2, process_index=0, split_batches=True
    )
    kept = share_rows(split).batch_sampler
    assert isinstance(kept, BatchSamplerShard)
    assert kept.even_batches


SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from transformers import set_seed
from fairtune_hf.data import load_dataset_table
from fairtune_hf.training import FairTrainer, FitArguments, build_datasets, load_backbone

pictures, vit, out = map(Path, sys.argv[1:4])
batch = 32 // int(os.environ["WORLD_SIZE"])
table = load_dataset_table("folder", pictures, image_size=32, label_column="diagnosis", sensitive_column="sex",
                           patient_column="person", split_column="part", cache=False, progress=False)
backbone = load_backbone(vit)
rows = build_datasets(table, backbone, FitArguments(transforms="none"))["train"]
more = {"use_cpu": True, "ddp_backend": "gloo", "optim": "sgd", "max_grad_norm": 0.0}
arguments = FitArguments(epochs=3, batch_size=batch, training_arguments=json.dumps(more)).to_training_arguments(
    out, learning_rate=0.05, seed=3)
set_seed(0)
trainer = FairTrainer(model=backbone.copy_with_new_head(), args=arguments, train_dataset=rows, eval_dataset=rows)
trainer.train()
scores = trainer.predict_scores(rows)
cost = trainer.cost.record()
if trainer.is_world_process_zero():
    (out / "found.json").write_text(json.dumps(
        {"rows": len(rows), "steps": trainer.state.global_step, "images": cost["images"],
         "processes": cost["processes"], "scores": scores.tolist()}))
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does_on_the_joint_batch(
    run_alone_and_in_two: Callable[..., dict[int, Any]], pictures: Path, tiny_vit: Path
) -> None:
    found = run_alone_and_in_two(SCRIPT, pictures, tiny_vit)
    one, two = found[1], found[2]
    assert one["rows"] % 32  # the last batch is smaller,
    assert one["rows"] % 2 == 0  # and divides
    assert one["images"] == two["images"] == 3 * one["rows"]
    assert one["steps"] == two["steps"] == 3 * -(-one["rows"] // 32)
    spread = max(one["scores"]) - min(one["scores"])
    assert spread > 0.01
    assert two["scores"] == pytest.approx(one["scores"], abs=1e-5 * spread)
