"""What stands before Gradio: the few addresses that the page needs, and the way in for pictures.

Gradio alone would write uploads to a disk, hand out any of them to whoever names its path, fetch
addresses for visitors, and offer an interface for programs. None of that is reached through here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fairtune_hf.serve.uploads import Upload, Uploads

Message = Any  # of ASGI, as are the three below
Scope = Any
Receive = Any
Send = Any

_API = "/gradio_api"
UPLOAD = f"{_API}/upload"
_PROGRESS = f"{_API}/upload_progress"
_JOIN = f"{_API}/queue/join"
_READ = frozenset(
    {
        *("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"),
        f"{_API}/queue/data",
    }
)
_READ_BELOW = ("/assets/", "/static/", f"{_API}/heartbeat/")
_LONGEST_QUESTION = 64 * 1024  # bytes of what the page sends to ask for an answer
_AROUND = 64 * 1024  # bytes of an upload's request beside the file
# Nothing of the page may be fetched from, or sent to, anywhere else: the browser itself refuses.
_POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "form-action 'self'; base-uri 'self'; object-src 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class Gate:
    """An ASGI application around Gradio's.

    Args:
        app: Gradio's.
        uploads: Where pictures wait for their answer.
        hosts: Names that a browser may call this server by; any where it is None. A page elsewhere can make
            its own name lead to this machine, and would then be let in as if it were ours.
    """

    def __init__(self, app: Any, uploads: Uploads, hosts: Collection[str] | None) -> None:
        self.app, self.uploads, self.hosts = app, uploads, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it to Gradio."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1000})
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        send = _with_headers(send)
        if self.hosts is not None and _host(headers) not in self.hosts:
            return await _say(send, 403, "This page is for the machine it runs on alone.")
        method, path = scope["method"], scope["path"]
        if method == "POST" and path == UPLOAD:
            return await self._take(scope, headers, receive, send)
        if method == "GET" and path == _PROGRESS:  # all of it is there when the upload is answered
            return await _answer(send, 200, b'data: {"msg": "done"}\n\n', b"text/event-stream")
        if method == "POST" and path == _JOIN:
            return await self._ask(scope, receive, send)
        if method in ("GET", "HEAD") and (path in _READ or path.startswith(_READ_BELOW)):
            return await self.app(scope, receive, send)
        return await _say(send, 404, "There is nothing here.")

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a question to Gradio, which would take one of any length."""
        try:
            body = await _read_body(receive, _LONGEST_QUESTION)
        except _GoneError:
            return None
        if body is None:
            return await _say(send, 413, "A question to this page is shorter than that.")
        return await self.app(scope, _receiving(body, receive), send)

    async def _take(
        self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send
    ) -> None:
        """Take one file into memory and answer with its token, in the form that Gradio's page expects.

        The page learns of a refusal as of every other answer, in words; programs by the status code.
        """
        try:
            found = await self._read(headers, receive)
        except _GoneError:
            return None
        from_page = "upload_id" in parse_qs(scope["query_string"].decode("latin-1"))
        if found.refusal and not from_page:
            return await _say(send, 413, found.refusal)
        token = self.uploads.keep(found)
        return await _answer(send, 200, json.dumps([token]).encode(), b"application/json")

    async def _read(self, headers: dict[str, str], receive: Receive) -> Upload:
        """Read the one file of a form."""
        from starlette.datastructures import Headers
        from starlette.formparsers import MultiPartException, MultiPartParser

        body = await _read_body(receive, self.uploads.limit + _AROUND)
        if body is None:
            return self._too_large("The file")
        parser = MultiPartParser(Headers(headers), _once(body), max_files=1, max_fields=4)
        parser.spool_max_size = len(body) + 1  # else a large file would be written to a disk
        try:
            form = await parser.parse()
        except (MultiPartException, KeyError):
            return Upload("", refusal="Expected one file of a form, and something else came.")
        async with _closing(form):
            for item in form.values():
                if not isinstance(item, str):
                    return self._checked(item.filename or "The file", await item.read())
        return Upload("", refusal="Expected one file of a form, and none came.")

    def _checked(self, name: str, content: bytes) -> Upload:
        return self._too_large(name) if len(content) > self.uploads.limit else Upload(name, content)

    def _too_large(self, name: str) -> Upload:
        most = self.uploads.limit / 1_000_000
        words = f"{name} is larger than {most:g} MB, which is the most that this page takes."
        return Upload(name, refusal=words)


class _GoneError(Exception):
    """The browser closed the connection."""


@asynccontextmanager
async def _closing(form: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await form.close()


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _read_body(receive: Receive, most: int) -> bytes | None:
    """Read a request's body; None for one of more than `most` bytes.

    That one is read to its end too, and dropped: a browser whose upload is cut off shows no answer.
    """
    body, size, more = bytearray(), 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _GoneError
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= most:
            body += part
        else:
            body.clear()
    return bytes(body) if size <= most else None


def _host(headers: dict[str, str]) -> str:
    """Return the name that a browser called this server by, without the port."""
    return urlsplit(f"//{headers.get('host', '')}").hostname or ""


def _receiving(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read already, and then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return waiting.pop() if waiting else await receive()

    return receiving


def _with_headers(send: Send) -> Send:
    """Add to every answer what the browser must not do with it."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return sending


async def _say(send: Send, status: int, words: str) -> None:
    await _answer(send, status, words.encode(), b"text/plain; charset=utf-8")


async def _answer(send: Send, status: int, content: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
