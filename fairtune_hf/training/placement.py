"""Where a split's pictures lie during training: on the device, or on the host when they do not fit.

On the host they stay in the array they came in, also one that is mapped from the prepared cache's file:
a batch is gathered into page-locked memory and sent while the device still computes the batch before.
"""

from __future__ import annotations

import warnings
from typing import Literal, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

Placement = Literal["auto", "device", "host"]

# Of a GPU's memory this share is kept for the training; of the host's what is free, half.
KEPT_FOR_TRAINING = 0.6
KEPT_FREE_ON_THE_HOST = 0.5


class Pictures(Protocol):
    """The uint8 pictures of a split."""

    device: torch.device

    def take(self, rows: Tensor) -> Tensor:
        """Return the pictures of some rows on the device, `(n, c, s, s)`, contiguous."""


def place(
    images: np.ndarray,
    device: torch.device,
    placement: Placement = "auto",
    budget: int | None = None,
) -> Pictures:
    """Put pictures where they fit.

    Args:
        images: `(n, s, s, c)` uint8, perhaps mapped from a file.
        device: Where batches are wanted.
        placement: `device` and `host` leave no choice.
        budget: Bytes the device may spend on them; by default what is free without the share that is
            kept for training.
    """
    if placement == "auto":
        allowed = free_bytes(device) if budget is None else budget
        placement = "device" if images.nbytes <= allowed else "host"
    return OnDevice(images, device) if placement == "device" else OnHost(images, device)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that pictures may take on a device."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, int(free - KEPT_FOR_TRAINING * total))
    return int((1 - KEPT_FREE_ON_THE_HOST) * psutil.virtual_memory().available)


class OnDevice:
    """All pictures on the device; a batch is one gather there."""

    _ROWS_AT_ONCE = 4096

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.device = device
        n, height, width, channels = images.shape
        self.images = torch.empty((n, channels, height, width), dtype=torch.uint8, device=device)
        source = _as_tensor(images)
        for start in range(0, n, self._ROWS_AT_ONCE):  # no second copy of all of them
            part = source[start : start + self._ROWS_AT_ONCE].to(device)
            self.images[start : start + len(part)] = part.permute(0, 3, 1, 2)

    def take(self, rows: Tensor) -> Tensor:
        """Return the pictures of some rows."""
        return self.images[rows.to(self.device, non_blocking=True)]


class OnHost:
    """Pictures left on the host, sent a batch at a time.

    Two page-locked buffers take turns, so that one can be filled while the other is still being read.
    """

    def __init__(self, images: np.ndarray, device: torch.device) -> None:
        self.device = device
        self._source = _as_tensor(images)
        self._buffers: list[Tensor] = [self._source[:0], self._source[:0]]
        self._read: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def take(self, rows: Tensor) -> Tensor:
        """Return the pictures of some rows."""
        rows = rows.cpu()
        if self.device.type == "cpu":
            return self._source[rows].permute(0, 3, 1, 2).contiguous()
        self._turn = 1 - self._turn
        event = self._read[self._turn]
        if event is not None:
            event.synchronize()
        buffer = self._buffer(len(rows))
        torch.index_select(self._source, 0, rows, out=buffer)
        sent = buffer.to(self.device, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._read[self._turn] = event
        return sent.permute(0, 3, 1, 2).contiguous()

    def _buffer(self, rows: int) -> Tensor:
        kept = self._buffers[self._turn]
        if len(kept) < rows:
            kept = torch.empty((rows, *self._source.shape[1:]), dtype=torch.uint8, pin_memory=True)
            self._buffers[self._turn] = kept
        return kept[:rows]


def _as_tensor(images: np.ndarray) -> Tensor:
    """Share an array's memory with a tensor that is only read, as mapped files may not be written."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(images)
