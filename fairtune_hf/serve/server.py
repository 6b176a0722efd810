"""Runs the page: which address it is bound to, who is let in, and how it ends."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any

from fairtune_hf.inference import Predictor, load_predictor
from fairtune_hf.serve.gate import Gate
from fairtune_hf.serve.page import build_page
from fairtune_hf.serve.uploads import Uploads
from fairtune_hf.serve.words import STYLE

HOST, PORT, MAX_UPLOAD_MB = "127.0.0.1", 7860, 50.0
_OF_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")
_SECONDS_TO_END = 3
_FOLDER = "GRADIO_TEMP_DIR"


def serve_model(
    path: str | Path,
    *,
    host: str = HOST,
    port: int = PORT,
    max_upload_mb: float = MAX_UPLOAD_MB,
    device: str | None = None,
    base_model: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a page that scores pictures with a trained model, until it is interrupted.

    Args:
        path: The folder of a run, its `adapter/`, or a Hub id.
        host: Address to bind to. Any other than one of this machine's own lets others in, without a
            password and unencrypted.
        port: Port, 0 for any that is free.
        max_upload_mb: Size in MB (10^6 bytes) of the largest file that is taken.
        device: Where the model computes; a GPU where there is one by default.
        base_model: The base model's folder or Hub id, where it is not where the adapter says.
        say: What is called with the address once the page is there.

    Raises:
        ValueError: Gradio is not installed, the address cannot be bound, or the model does not fit.
        FileNotFoundError: There is no model.
    """
    require_gradio()
    bound = bind(host, port)
    with bound:
        predictor = load_predictor(path, device=device, base_model=base_model)
        run_page(predictor, bound, max_upload_mb=max_upload_mb, say=say)


def require_gradio() -> None:
    """Refuse where the page's library is not installed.

    Raises:
        ValueError: It is not.
    """
    if util.find_spec("gradio") is None:
        raise ValueError(
            "The page is made with Gradio, which is not installed. Run pip install 'fairtune_hf[serve]'."
        )


def bind(host: str, port: int) -> socket.socket:
    """Take an address, before anything expensive.

    Raises:
        ValueError: It is not to be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        raise ValueError(
            f"--host, --port: expected an address of this machine that is free, and {host}:{port} is not ({error}). "
            "Give another --port (0: any that is free), or the default --host 127.0.0.1."
        ) from error


def run_page(
    predictor: Predictor,
    bound: socket.socket,
    *,
    max_upload_mb: float = MAX_UPLOAD_MB,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page of a model on a bound socket until it is interrupted."""
    import uvicorn

    address, port = bound.getsockname()[:2]
    with _private_folder():
        hosts = (*_OF_THIS_MACHINE, address) if _is_loopback(address) else None
        app = build_app(predictor, max_upload_mb=max_upload_mb, hosts=hosts)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        name = f"[{address}]" if ":" in address else address
        say(f"Serving at http://{name}:{port} {_who_can(address)}. Ctrl-C ends it.")
        uvicorn.Server(config).run(sockets=[bound])


@contextmanager
def _private_folder() -> Iterator[None]:
    """Give Gradio a folder of its own, which nobody else may read, for the time that the page is there.

    No upload goes there; by default it would make one that all users of the machine share.
    """
    before = os.environ.get(_FOLDER)
    with tempfile.TemporaryDirectory(prefix="fairtune-serve-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            os.environ.pop(_FOLDER)
            if before is not None:
                os.environ[_FOLDER] = before


def build_app(
    predictor: Predictor,
    *,
    max_upload_mb: float = MAX_UPLOAD_MB,
    hosts: Collection[str] | None = _OF_THIS_MACHINE,
) -> Gate:
    """Build the ASGI application of a model's page.

    Args:
        predictor: The model.
        max_upload_mb: Size in MB (10^6 bytes) of the largest file that is taken.
        hosts: Names that a browser may call this machine by; any where it is None.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read as it is imported
    import gradio
    from fastapi import FastAPI

    uploads = Uploads(int(max_upload_mb * 1_000_000))
    outer: Any = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app = gradio.mount_gradio_app(
        outer,
        build_page(predictor, uploads),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        css=STYLE,
    )
    return Gate(app, uploads, hosts)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def _who_can(address: str) -> str:
    if _is_loopback(address):
        return "(this machine alone)"
    return "to everybody who reaches this machine, without a password and unencrypted"
