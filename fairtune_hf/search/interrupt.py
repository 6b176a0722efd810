"""An end within seconds of Ctrl-C or SIGTERM, and with the process that started this one.

Python handles a signal only when the main thread comes back from whatever it waits for, and a process
that waits for others in a collective may never come back. The study needs no farewell: what is finished
is saved. So a thread, told by the signal handler in C, ends the process if it has not ended itself.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fairtune_hf.exit_codes import INTERRUPTED, PARENT

GRACE_SECONDS = 8.0
_NOTICE_SECONDS = 0.2  # in which the thread hears of a signal that has come
_installed = threading.Lock()


@contextmanager
def prompt_exit(grace_seconds: float = GRACE_SECONDS) -> Iterator[None]:
    """End the process with code 130 so many seconds after SIGINT or SIGTERM, at the latest.

    Raises:
        KeyboardInterrupt: In place of any other exception that comes after one of these signals.
    """
    if threading.current_thread() is not threading.main_thread() or not _installed.acquire(
        blocking=False
    ):
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    over, asked = threading.Event(), threading.Event()
    arguments = (reader, over, asked, grace_seconds)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)
    thread.start()
    try:
        yield
    except Exception as error:
        # Python drops an interrupt that it raises in a callback of its garbage collection. What fails next,
        # as when the other processes have ended, is then of the same origin.
        if asked.wait(_NOTICE_SECONDS):
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.set_wakeup_fd(previous)
        over.set()
        os.write(writer, b"\0")
        thread.join()
        os.close(reader)
        os.close(writer)
        _installed.release()


def end_processes(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask processes to end, and after the grace make those end that have not."""
    running = [process for process in processes if process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _watch(
    reader: int, over: threading.Event, asked: threading.Event, grace_seconds: float
) -> None:
    parent = int(os.environ.get(PARENT, "0"))
    while not over.is_set():
        ready, _, _ = select.select([reader], [], [], 1.0)
        if parent and os.getppid() != parent:
            os._exit(INTERRUPTED)
        if ready and {signal.SIGINT, signal.SIGTERM} & set(os.read(reader, 64)):
            asked.set()
            if not over.wait(grace_seconds):
                print(
                    "\nInterrupted while waiting for another process. What was finished is saved; the same command goes on.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(INTERRUPTED)
            return
