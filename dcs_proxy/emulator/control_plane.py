"""The HTTP/1.1 server of the control plane: credentials, dispatch to routes, and wire faults.

Sources: the API contract (createMachineSSHSession), and the list, get and delete routes that the
service's public clients use.
"""

from __future__ import annotations

import email.utils
import hmac
import http.server
import json
import re
import socket
import ssl
import threading
import time
import uuid
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dcs_proxy.emulator.contract import ERRORS, Response, problem
from dcs_proxy.emulator.faults import Faults, reply_of
from dcs_proxy.emulator.journal import Journal
from dcs_proxy.emulator.routes import Request, Routes

_MAX_BODY = 16 * 1024 * 1024
_HUGE = 64 * 1024 * 1024


class ControlPlaneServer:
    """Serves `routes` on listening sockets until it is stopped, each connection in a thread.

    `key` is the only API key and `org_id` its organisation ("" accepts any); with `tls`, the
    server speaks HTTPS.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        routes: Routes,
        faults: Faults,
        journal: Journal,
        *,
        key: str,
        org_id: str,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.routes = routes
        self.faults = faults
        self.journal = journal
        self.key = key
        self.org_id = org_id
        self.stopping = threading.Event()
        port = sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        if tls is not None:
            self.url = f"https://localhost:{port}"
            # The handler does the handshake, so that one client cannot delay the others.
            sockets = [
                tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                for sock in sockets
            ]
        self._servers = [_Server(sock, self) for sock in sockets]

    def start(self) -> None:
        """Start to answer requests."""
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop answering; end stalled requests."""
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def refuse(self, headers: Any) -> Response | None:
        """Return the reply to a request with wrong credentials, or None if they are right."""
        bearer = headers.get("Authorization")
        given = headers.get("x-api-key")
        if given is None and bearer is not None:
            scheme, _, given = bearer.partition(" ")
            if scheme.lower() != "bearer":
                given = None
        if not given:
            return ERRORS["missing_key"]
        if not hmac.compare_digest(given.strip().encode(), self.key.encode()):
            return ERRORS["invalid_key"]
        org_id = headers.get("X-Dedalus-Org-Id")
        if self.org_id and org_id not in (None, self.org_id):
            return ERRORS["org_mismatch"]
        return None


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sock: socket.socket, plane: ControlPlaneServer) -> None:
        self.address_family = sock.family
        super().__init__(sock.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = sock
        self.server_address = sock.getsockname()
        self.plane = plane

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET
    do_OPTIONS = do_TRACE = do_QUERY = do_GET

    def log_message(self, *_: Any) -> None:
        """Log nothing: the journal does."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer requests that http.server rejects with problem+json, as in the contract."""
        self.close_connection = True
        title = self.responses[code][0]
        self._send(problem(code, title, message or title))

    def _answer(self) -> None:
        plane = self.server.plane
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        body = self._read_body()
        if body is None:
            return
        query = {key: values[-1] for key, values in parse_qs(url.query, True).items()}
        request = Request(self.command, parts, query, dict(self.headers.items()), body)
        faults = [] if parts[0] == "emulator" else self._strike(request)
        wire = next((fault.kind for fault in faults if fault.kind in _WIRE), "")
        replies = [reply_of(fault) for fault in faults if fault.kind not in _WIRE]
        reply = replies[0] if replies else plane.refuse(self.headers)
        if wire in ("reset", "stall"):
            reply = reply or Response(0, b"")
        elif reply is None:
            reply = plane.routes.answer(request)
        self._note(request, url.path, reply)
        if wire:
            _WIRE[wire](self, reply)
        else:
            self._send(reply)

    def _strike(self, request: Request) -> list[Any]:
        faults = self.server.plane.faults
        name = self.server.plane.routes.name_of(request)
        return [
            *faults.strike(name, "wire", request.method),
            *faults.strike(name, "reply", request.method),
        ]

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if self.headers.get("Transfer-Encoding"):
            refusal = problem(411, "Length Required", "Content-Length is missing")
        elif not re.fullmatch("[0-9]{1,19}", length):
            refusal = problem(400, "Bad Request", "Content-Length is not a length")
        elif int(length) > _MAX_BODY:
            refusal = problem(413, "Request Entity Too Large", "the body is too large")
        else:
            return self.rfile.read(int(length))
        self.close_connection = True
        self._send(refusal)
        return None

    def _note(self, request: Request, path: str, reply: Response) -> None:
        try:
            answer = json.loads(reply.body)
        except ValueError:
            answer = {}
        answer = answer if isinstance(answer, dict) else {}
        self.server.plane.journal.note(
            "request",
            method=request.method,
            path=path,
            machine=self.server.plane.routes.name_of(request),
            status=reply.status,
            idempotency_key=request.header("Idempotency-Key"),
            session_id=answer.get("session_id"),
            session_status=answer.get("status"),
            error_code=answer.get("error_code"),
            user_agent=request.header("User-Agent"),
        )

    def _send(self, reply: Response, body: bytes | None = None) -> None:
        """Send a reply with one write: Nagle's algorithm would delay a second one."""
        body = reply.body if body is None else body
        phrase = self.responses.get(reply.status, ("",))[0]
        lines = [
            f"HTTP/1.1 {reply.status} {phrase}",
            f"Date: {email.utils.formatdate(time.time() + self._ahead(), usegmt=True)}",
            f"Content-Type: {reply.content_type}",
            f"Content-Length: {len(reply.body)}",
            f"X-Request-Id: req-{uuid.uuid4().hex[:12]}",
            *(f"{key}: {value}" for key, value in reply.headers.items()),
        ]
        if self.close_connection:
            lines.append("Connection: close")
        if self.command == "HEAD":
            body = b""
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def _ahead(self) -> float:
        return self.server.plane.faults.clock_ahead()

    def reset(self, _: Response) -> None:
        """Close without an answer."""
        self.close_connection = True

    def stall(self, _: Response) -> None:
        """Do not answer until the client disconnects or the emulator stops."""
        self.close_connection = True
        self.connection.settimeout(0.1)
        while not self.server.plane.stopping.is_set():
            try:
                if not self.connection.recv(1):
                    return
            except TimeoutError:
                pass

    def stall_body(self, reply: Response) -> None:
        """Send half of the body, then nothing."""
        self._send(reply, reply.body[: len(reply.body) // 2])
        self.stall(reply)

    def huge(self, _: Response) -> None:
        """Send a body that is far too large."""
        self.close_connection = True
        self._send(Response(200, b'"' + b"A" * _HUGE + b'"'))


_WIRE = {
    "reset": _Handler.reset,
    "stall": _Handler.stall,
    "stall-body": _Handler.stall_body,
    "huge": _Handler.huge,
}
