"""`FairnessMetric` of the `evaluate` library: offline, the same for any batches and processes."""

import multiprocessing
import os

import numpy as np
import pytest

from fairtune_hf.metrics import FairnessMetric, group_metrics
from fairtune_hf.metrics.groups import flat_metrics


def rows(n=333):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    return rng.random(n) + 0.2 * labels, labels, rng.choice(["f", "m", "x"], n)


def expected():
    scores, labels, groups = rows()
    return flat_metrics(group_metrics(labels, scores, sensitive_features=groups))


@pytest.mark.parametrize("batch", [1, 7, 64, 333])
def test_any_batch_size_gives_the_same_bits(batch, tmp_path):
    metric = FairnessMetric(cache_dir=str(tmp_path))
    scores, labels, groups = rows()
    for start in range(0, 333, batch):
        part = slice(start, start + batch)
        metric.add_batch(
            predictions=scores[part], references=labels[part], sensitive_features=groups[part]
        )
    assert metric.compute() == expected()


def test_compute_takes_the_arguments_of_group_metrics(tmp_path):
    metric = FairnessMetric(cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="Group 'm' has 1 positive and 0 negative"):
        metric.compute(
            predictions=[0.1, 0.2, 0.3], references=[0, 1, 1],
            sensitive_features=["f", "f", "m"], errors="raise",
        )  # fmt: skip


def one_process(index, folder, queue):
    os.environ["HF_HUB_OFFLINE"] = "1"
    metric = FairnessMetric(num_process=2, process_id=index, experiment_id="two", cache_dir=folder)
    scores, labels, groups = rows()
    part = slice(index, None, 2)
    queue.put(
        metric.compute(
            predictions=scores[part], references=labels[part], sensitive_features=groups[part]
        )
    )


@pytest.mark.slow
def test_two_processes_give_the_same_bits(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    workers = [
        context.Process(target=one_process, args=(index, str(tmp_path), queue))
        for index in range(2)
    ]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert [found for found in results if found is not None] == [expected()]
