"""A gateway's side that does what a test says, in place of one with a connection."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.side import Farewell

LOGIN = cast(Login, SimpleNamespace(endpoint="ssh.example", port=2222))


class End(threading.Event):
    """The end of a connection; `seen` has what the socket was like at each wait for it."""

    def __init__(self, sock: socket.socket, *, comes: bool) -> None:
        super().__init__()
        self._sock = sock
        self._comes = comes
        self.seen: list[str] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        try:
            is_shut = self._sock.recv(1, socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            is_shut = False
        self.seen.append("shut" if is_shut else "open")
        return self._comes


@dataclass
class FakeGateway:
    """How far the key exchange and the login get, and the error that ends the connection."""

    negotiates: bool = True
    answers: bool = True
    authenticated: bool = True
    active: bool = True
    has_ended: bool = False
    ends: bool = True
    error: Exception | None = None
    farewell: Farewell | None = None
    started: bool = False
    arguments: tuple[Any, ...] = ()
    is_negotiated: threading.Event = field(default_factory=threading.Event)
    has_answered: threading.Event = field(default_factory=threading.Event)
    ended: End = field(init=False)

    def use_in(self, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `module` get this one as its Gateway."""

        def make(*arguments: Any) -> FakeGateway:
            self.arguments = arguments
            self.ended = End(arguments[0], comes=self.ends)
            if self.has_ended:
                self.ended.set()
            return self

        monkeypatch.setattr(module, "Gateway", make)

    def start(self) -> None:
        self.started = True
        if self.negotiates:
            self.is_negotiated.set()

    def log_in(self) -> None:
        assert self.is_negotiated.is_set()
        if self.answers:
            self.has_answered.set()

    def is_active(self) -> bool:
        return self.active

    def is_authenticated(self) -> bool:
        return self.authenticated

    def get_exception(self) -> Exception | None:
        return self.error
