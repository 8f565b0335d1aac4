"""A server between a client and Prism that asks for a certain reply, as our client does not."""

from __future__ import annotations

import contextlib
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import requests

from tests.integration.harness import LIMIT_S

_HEADERS = ("Authorization", "Content-Type", "Idempotency-Key")


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
