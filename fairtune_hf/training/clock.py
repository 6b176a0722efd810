"""Where the time of a training goes: marks between its parts, read without stopping the device.

On a GPU a mark is an event in the stream, so the time is the device's; elapsed times are read at the
end of an epoch, when the loop waits for the metrics anyway.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Literal, get_args

import torch

Part = Literal["data", "forward", "backward", "optimizer", "evaluation", "other"]
_MOST_EVENTS = 2048  # kept unread; a training without evaluations never waits for the device
PARTS: tuple[Part, ...] = get_args(Part)


class PartClock:
    """Adds up the seconds of each part; `mark` says which part begins.

    Args:
        device: The device whose time is taken.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._on_gpu = device.type == "cuda"
        self._part: Part | None = None
        self._since = 0.0
        self._events: list[tuple[Part | None, torch.cuda.Event]] = []

    def mark(self, part: Part | None) -> None:
        """Begin a part; None stops the clock."""
        if self._on_gpu:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._events.append((part, event))
            if len(self._events) >= _MOST_EVENTS:
                self._read_finished()
            return
        now = time.perf_counter()
        if self._part is not None:
            self.seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def collect(self) -> None:
        """Read the events so far; waits for the device."""
        if len(self._events) < 2:
            return
        self._events[-1][1].synchronize()
        self._read_finished()

    def _read_finished(self) -> None:
        """Read the events that the device has passed, without waiting for the others."""
        done = 0
        for (part, event), (_, following) in pairwise(self._events):
            if not following.query():
                break
            if part is not None:
                self.seconds[part] += event.elapsed_time(following) / 1000
            done += 1
        self._events = self._events[done:]

    def total(self) -> float:
        """Seconds of all parts."""
        return sum(self.seconds.values())
