"""Shares the training rows out among processes that train together, each row once an epoch.

Accelerate deals out whole batches and fills up the last round with the epoch's first rows, which then count twice:
of 12,809 rows in batches of 512, two processes take 13,312. Here the last round's rows are divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate.data_loader import BatchSamplerShard
from torch.utils.data import BatchSampler, DataLoader, Sampler


class EvenShares(BatchSampler):
    """Draws the batches of all processes and cuts each into one share a process, yielded in their order.

    The shares of a batch differ by at most one row. A batch of fewer rows than processes is filled up with its own.

    Args:
        sampler: The rows in the order of the epoch, the same in every process.
        batch_size: Rows a step and process.
        drop_last: Whether to leave out the rows that do not fill a batch of all processes.
        processes: How many train together.
    """

    def __init__(
        self, sampler: Sampler[int], batch_size: int, drop_last: bool, processes: int
    ) -> None:
        super().__init__(sampler, batch_size, drop_last)
        self.processes = processes

    def _joint_batches(self) -> BatchSampler:
        return BatchSampler(self.sampler, self.batch_size * self.processes, self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._joint_batches():
            while len(rows) < self.processes:
                rows = (rows + rows)[: self.processes]
            for process in range(self.processes):
                yield rows[process :: self.processes]

    def __len__(self) -> int:
        return self.processes * len(self._joint_batches())


def share_rows(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Let a loader that Accelerate has prepared for several processes serve each row once; return it.

    Any other loader is left as it is: of one process, of an iterable dataset, of batches drawn in another way.
    """
    shard: Any = loader.batch_sampler
    plain = isinstance(shard, BatchSamplerShard) and type(shard.batch_sampler) is BatchSampler
    if plain and not shard.split_batches:
        whole = shard.batch_sampler
        shard.batch_sampler = EvenShares(
            whole.sampler, whole.batch_size, whole.drop_last, shard.num_processes
        )
        shard.even_batches = False  # they are
    return loader
