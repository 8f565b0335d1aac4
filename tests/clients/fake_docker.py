"""Stands for ``docker system dial-stdio`` on a machine: a Docker API, on stdin and stdout."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler

_VERSION = {"Version": "1.2.3-fake", "ApiVersion": "1.47", "MinAPIVersion": "1.24", "Os": "linux"}


class Daemon(BaseHTTPRequestHandler):
    """Answers /_ping and /version."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.rfile, self.wfile = sys.stdin.buffer, sys.stdout.buffer

    def finish(self) -> None:
        self.wfile.flush()

    def do_HEAD(self) -> None:
        self._answer(b"OK")

    def do_GET(self) -> None:
        self._answer(json.dumps(_VERSION).encode())
        self.wfile.write(json.dumps(_VERSION).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.47")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    if sys.argv[1:] != ["system", "dial-stdio"]:
        sys.exit(f"unexpected: {sys.argv[1:]}")
    Daemon(None, ("", 0), None)
