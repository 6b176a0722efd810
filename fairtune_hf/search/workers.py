"""Several processes on one study: one on each GPU, or as many as asked for on the CPU.

The workers run the same command; the process that started them shows where the search stands, replaces
workers that are lost, and takes them with it when it ends.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

import torch
from tqdm.auto import tqdm

from fairtune_hf.exit_codes import DISK_FULL, PARENT
from fairtune_hf.search.interrupt import end_processes
from fairtune_hf.search.study import REPLACEMENT

WORKER = "FAIRTUNE_WORKER"  # number of a worker of a search, set in its environment
_REPLACEMENTS = 3  # a worker lost more often than that is not started again
_POLL_SECONDS = 0.5


def count_workers(setting: str) -> int:
    """Read `--workers`: a number, or one for each visible GPU (one without any)."""
    return max(1, torch.cuda.device_count()) if setting == "auto" else int(setting)


def is_worker() -> bool:
    """Whether this process was started as a worker."""
    return WORKER in os.environ


def start_workers(
    words: Sequence[str], count: int, folder: Path, variable: str = WORKER
) -> WorkerPool:
    """Return a pool of `fairtune` with these words, which says where its workers' words go: to the folder's `workers/`."""
    logs = folder / "workers"
    tqdm.write(f"{count} workers; what they say is in {logs}.", file=sys.stderr)
    command = [sys.executable, "-m", "fairtune_hf.cli.main", *words]
    return WorkerPool(command, count, logs, variable)


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    starts: int = field(default=1)


class WorkerPool:
    """Runs copies of a command, each with a GPU of its own.

    Args:
        command: What each worker runs.
        count: How many.
        logs: Folder for what the workers say, one file each.
        variable: Name in each worker's environment of its number, by which it knows what it is.
    """

    def __init__(
        self, command: Sequence[str], count: int, logs: Path, variable: str = WORKER
    ) -> None:
        self._command, self._count, self._logs = list(command), count, logs
        self._variable = variable
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        self._logs.mkdir(parents=True, exist_ok=True)
        for number in range(self._count):
            log = (self._logs / f"{number}.log").open("ab")  # after what earlier ones said
            self._workers.append(_Worker(number, self._start(number, log), log))
        return self

    def __exit__(self, *exception: object) -> None:
        end_processes(worker.process for worker in self._workers)
        for worker in self._workers:
            worker.log.close()

    def watch(self, look: Callable[[], bool]) -> None:
        """Look after the workers until what they are for is done.

        Args:
            look: Shows what has come since the last look, and tells whether all is done.

        Raises:
            RuntimeError: No worker is left, and it is not done.
            OSError: The last one ended because a disk is full.
        """
        while not look():
            self.look_after(look)
            time.sleep(_POLL_SECONDS)

    def has_ended(self) -> bool:
        """Whether every worker has ended as it should."""
        return all(worker.process.poll() == 0 for worker in self._workers)

    def look_after(self, is_done: Callable[[], bool]) -> None:
        """Start lost workers again, up to a limit.

        Args:
            is_done: Tells whether what the workers are for is done, so that all may have ended.

        Raises:
            RuntimeError: No worker is left, and it is not done.
            OSError: The last one ended because a disk is full.
        """
        for worker in self._workers:
            code = worker.process.poll()
            if code in (None, 0, DISK_FULL) or worker.starts > _REPLACEMENTS:
                continue
            tqdm.write(
                f"Worker {worker.number} ended with exit code {code} and is started again ({worker.starts} of "
                f"{_REPLACEMENTS}); what it said is in {worker.log.name}.",
                file=sys.stderr,
            )
            worker.starts += 1
            worker.process = self._start(worker.number, worker.log, replaces=True)
        if all(w.process.poll() is not None for w in self._workers) and not is_done():
            self._give_up()

    def _give_up(self) -> NoReturn:
        lost = [w for w in self._workers if w.process.returncode != 0] or self._workers
        last = max(lost, key=lambda w: os.fstat(w.log.fileno()).st_mtime_ns)
        words = (
            f"All {self._count} workers have ended (exit codes {[w.process.returncode for w in self._workers]}) before "
            f"all was done. What was finished is saved. The last words of worker {last.number}:\n{_last_words(last)}"
        )
        if last.process.returncode == DISK_FULL:
            raise OSError(errno.ENOSPC, words)
        raise RuntimeError(words)

    def _start(
        self, number: int, log: IO[bytes], *, replaces: bool = False
    ) -> subprocess.Popen[bytes]:
        # In a session of its own, so that Ctrl-C reaches it through us, once.
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._environment(number) | ({REPLACEMENT: "1"} if replaces else {}),
            start_new_session=True,
        )

    def _environment(self, number: int) -> dict[str, str]:
        environment = {**os.environ, self._variable: str(number), PARENT: str(os.getpid())}
        gpus = torch.cuda.device_count()
        if gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus))))
            names = visible.split(",")
            environment["CUDA_VISIBLE_DEVICES"] = names[number % len(names)]
        else:  # threads that fight over cores cost more than they bring
            share = max(1, (os.cpu_count() or 1) // self._count)
            environment.setdefault("OMP_NUM_THREADS", str(share))
        return environment


def _last_words(worker: _Worker) -> str:
    text = Path(worker.log.name).read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-15:])
