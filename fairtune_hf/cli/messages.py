"""What is said to the user while a command runs."""

from __future__ import annotations

import os
import sys


def say(message: str) -> None:
    """Tell the user something, once, whatever the number of processes."""
    if is_first_process():
        print(message, file=sys.stderr)


def is_first_process() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0
