"""Only what the page needs is reached, and an upload goes from the form to memory and out of it once."""

from __future__ import annotations

import asyncio
import os
import tempfile

import pytest

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from fairtune_hf.serve import uploads as held
from fairtune_hf.serve.gate import UPLOAD, Gate
from fairtune_hf.serve.uploads import Upload, Uploads

LIMIT = 3_000_000
HOSTS = ("localhost", "127.0.0.1", "::1")


class Behind:
    """What stands behind the gate: notes the addresses that reach it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.seen.append(scope["path"])
            self.body = (await receive())["body"]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"in"})


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def uploads() -> Uploads:
    return Uploads(LIMIT)


@pytest.fixture
def client(behind, uploads):
    return TestClient(Gate(behind, uploads, HOSTS), "http://127.0.0.1:7860")


@pytest.mark.parametrize(
    "path",
    [
        "/", "/config", "/theme.css", "/assets/index.js", "/static/img/x.svg",
        "/gradio_api/queue/data", "/gradio_api/heartbeat/abc",
    ],
)  # fmt: skip
def test_what_the_page_needs_is_reached(client, behind, path):
    answer = client.get(path)
    assert (answer.status_code, behind.seen) == (200, [path])
    assert "connect-src 'self'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/hostname", "/gradio_api/file=http://example.org/", "/gradio_api/file/x",
        "/gradio_api/proxy=http://example.org/", "/gradio_api/run/predict", "/gradio_api/call/show",
        "/gradio_api/api/show", "/gradio_api/info", "/gradio_api/openapi.json", "/gradio_api/runs",
        "/gradio_api/stream/x", "/gradio_api/vibe-edit/", "/gradio_api/mcp/", "/monitoring", "/docs",
        "/openapi.json", "/gradio_api/custom_component/a/client/b/c", "/gradio_api/process_recording",
        "/gradio_api/deep_link", "/svelte/x", "/gradio_api/upload/", "//gradio_api/file=/etc/hostname",
    ],
)  # fmt: skip
def test_nothing_else_is(client, behind, method, path):
    assert client.request(method, f"http://127.0.0.1:7860{path}").status_code == 404
    assert behind.seen == []


def test_a_page_elsewhere_that_points_its_name_here_is_not_let_in(client, behind):
    for host in ("evil.example:7860", "127.0.0.1.evil.example", ""):
        answer = client.get("/", headers={"host": host})
        assert answer.status_code == 403
        assert "the machine it runs on" in answer.text
    assert behind.seen == []
    for host in ("localhost:7860", "LOCALHOST", "[::1]:7860"):
        assert client.get("/", headers={"host": host}).status_code == 200


def test_a_question_is_handed_on_unless_it_is_long(client, behind):
    ask = "/gradio_api/queue/join"
    assert client.post(ask, content=b"x" * 100_000).status_code == 413
    assert client.post(ask, content=iter([b"x" * 1000] * 100)).status_code == 413
    assert behind.seen == []
    for content in (b"a question", iter([b"a ", b"question"])):
        assert client.post(ask, content=content).status_code == 200
        assert behind.body == b"a question"


def send(client, content: bytes, query: str = ""):
    return client.post(UPLOAD + query, files={"files": ("a.png", content)})


def test_an_upload_is_taken_out_once_by_a_name_that_nobody_guesses(client, uploads):
    content = os.urandom(100_000) + b"\r\n--boundary--\r\n"
    first, again = (send(client, content).json()[0] for _ in range(2))
    assert first != again, "the same picture of two visitors is two uploads"
    assert len(first) == 32
    assert uploads.take(first) == Upload("a.png", content)
    assert uploads.take(first) is None
    assert uploads.take(again) == Upload("a.png", content)
    assert len(uploads) == 0


def test_an_upload_never_touches_a_disk(client, uploads, monkeypatch):
    """Whatever is larger than a megabyte is otherwise written to a temporary file."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    content = os.urandom(2_900_000)
    assert uploads.take(send(client, content).json()[0]).content == content


def test_what_is_too_large_is_refused_in_words(client, uploads):
    for size in (LIMIT + 1, LIMIT + 1_000_000):
        answer = send(client, bytes(size))
        assert answer.status_code == 413
        assert "larger than 3 MB" in answer.text
    assert len(uploads) == 0
    # The page shows words only of an upload that went through.
    token = send(client, bytes(LIMIT + 1), query="?upload_id=x").json()[0]
    assert uploads.take(token) == Upload(
        "a.png", refusal="a.png is larger than 3 MB, which is the most that this page takes."
    )
    assert send(client, bytes(LIMIT)).status_code == 200


@pytest.mark.parametrize(
    "given",
    [
        {"data": {"files": "words"}},
        {"content": b"not a form"},
        {"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        {"files": [("files", ("a", b"1")), ("files", ("b", b"2"))]},
    ],
)
def test_what_is_no_form_with_one_file_is_refused_in_words(client, uploads, given):
    answer = client.post(UPLOAD, **given)
    assert answer.status_code == 413
    assert answer.text.startswith("Expected one file")
    assert len(uploads) == 0


def test_an_upload_that_nobody_asks_about_is_dropped(monkeypatch):
    monkeypatch.setattr(held, "KEPT_SECONDS", 0.0)

    async def upload() -> int:
        uploads = Uploads(10)
        uploads.keep(Upload("a", b"1"))
        assert len(uploads) == 1
        for _ in range(3):
            await asyncio.sleep(0)
        return len(uploads)

    assert asyncio.run(upload()) == 0


def test_many_waiting_uploads_are_refused_in_words():
    async def upload() -> list[Upload]:
        uploads = Uploads(10)
        tokens = [uploads.keep(Upload("a", b"1")) for _ in range(30)]
        return [uploads.take(token) for token in tokens]

    found = asyncio.run(upload())
    assert sum(bool(each.content) for each in found) == 16
    assert "Try again" in found[-1].refusal
