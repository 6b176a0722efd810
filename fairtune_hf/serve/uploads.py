"""What visitors upload, between the upload and its answer: in memory alone, each taken out once.

Nothing is written to a disk, so that nothing is left there when the process ends, however it ends.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

KEPT_SECONDS = 120.0
"""An upload that nobody asks about is dropped then: its page was closed."""
_HELD_UPLOADS = 16


@dataclass(frozen=True)
class Upload:
    """One uploaded file, or why it was not taken.

    Attributes:
        name: What the visitor's machine calls it.
        content: Its bytes; none where it was refused.
        refusal: Why it was refused, empty where it was not.
    """

    name: str
    content: bytes = b""
    refusal: str = ""


class Uploads:
    """The uploads that wait for their answer, each under a name that cannot be guessed.

    Args:
        limit: Bytes that one upload may have.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[str, Upload] = {}

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, upload: Upload) -> str:
        """Keep an upload for a while and return its token; on an event loop."""
        if len(self._held) >= _HELD_UPLOADS:
            upload = Upload(
                upload.name, refusal="Too many pictures wait for an answer. Try again in a minute."
            )
        token = secrets.token_hex(16)
        self._held[token] = upload
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._held.pop, token, None)
        return token

    def take(self, token: str) -> Upload | None:
        """Take an upload out; None where there is none of that token."""
        return self._held.pop(token, None)
