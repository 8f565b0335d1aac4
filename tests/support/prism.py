"""Prism (stoplight/prism), which serves an OpenAPI document or stands between and compares."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.openapi import load_whole
from tests.support.processes import clean_environment
from tests.support.waiting import LIMIT_S, wait_until

# Where contrib/test puts npm's packages.
_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key")
_MODULES = os.environ.get("DCS_PROXY_NODE_MODULES", "")
_PROGRAM = Path(_MODULES) / ".bin" / "prism"
needs_prism = pytest.mark.skipif(
    not (_MODULES and _PROGRAM.exists() and shutil.which("node")),
    reason="DCS_PROXY_NODE_MODULES does not say where Prism is, or there is no node",
)


class Prism:
    """A running Prism; `url` is where it listens."""

    def __init__(self, output: Path) -> None:
        self._output = output
        listening = wait_until(lambda: re.search(r"listening on (http://\S+)", self._text()))
        self.url = listening[1]

    def _text(self) -> str:
        return self._output.read_text()

    def complaints(self) -> list[str]:
        """Return the lines that say what broke the document.

        Those of [CLI] list the routes with words made up for their parameters.
        """
        lines = [line for line in self._text().splitlines() if "[CLI]" not in line]
        return [line for line in lines if re.search(r"\b(error|warn)\b", line)]


def write_whole(directory: Path) -> Path:
    """Write both documents as one, for Prism takes one; return its path."""
    document = directory / "whole.json"
    document.write_text(json.dumps(load_whole()))
    return document


@contextlib.contextmanager
def compared(api: str, directory: Path) -> Iterator[str]:
    """Put Prism before a control plane; give its URL, and fail if it has complained in the end."""
    with run_prism(directory, "proxy", write_whole(directory), api) as prism:
        yield prism.url
        assert not prism.complaints()


@contextlib.contextmanager
def run_prism(directory: Path, command: str, document: Path, *upstream: str) -> Iterator[Prism]:
    """Run ``prism mock`` or ``prism proxy``; what breaks the document is answered as an error."""
    output = directory / f"prism-{command}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["node", _PROGRAM, command, "--errors", "--port", "0", document, *upstream],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=clean_environment(),
        )  # fmt: skip
    try:
        yield Prism(output)
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@contextlib.contextmanager
def preferring(upstream: str, prefer: str) -> Iterator[str]:
    """Forward every POST to `upstream` with the header Prefer (RFC 7240); give our own URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            reply = requests.post(
                upstream + self.path,
                data=self.rfile.read(int(self.headers["Content-Length"])),
                headers={"Prefer": prefer, **{name: self.headers[name] for name in _HEADERS}},
                timeout=LIMIT_S,
            )
            self.send_response(reply.status_code)
            self.send_header("Content-Type", reply.headers["Content-Type"])
            self.send_header("Content-Length", str(len(reply.content)))
            self.end_headers()
            self.wfile.write(reply.content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
