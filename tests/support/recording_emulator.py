"""Run ``dcs-proxy emulator`` and write down every reply: python recording.py FILE ARGUMENTS...

A reply is one line of JSON: method and path of the request, and the bytes as they are sent.  Those
of a fault that breaks the contract on purpose are left out.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any, NoReturn

from dcs_proxy.cli import main
from dcs_proxy.emulator import control_plane
from dcs_proxy.emulator.faults import STAGES, Fault, Faults

_BREAKS_CONTRACT = frozenset({"html", "not-json", "body", "redirect", "set", "missing"}) | {
    kind for kind, stage in STAGES.items() if stage == "wire"
}


class _Answer(threading.local):
    """The answer under way: one thread gives it, from the faults that strike to the last byte."""

    is_broken = False


_under_way = _Answer()


class _Wire:
    """What a handler writes to: notes each reply before it goes out, so that none is missed."""

    def __init__(self, handler: Any, fd: int) -> None:
        self._handler, self._fd, self._file = handler, fd, handler.wfile

    def write(self, reply: bytes) -> None:
        if not _under_way.is_broken:
            # What cannot be parsed has neither, and what came before it may have left its path.
            method = self._handler.command or ""
            path = self._handler.path if method else ""
            entry = {"method": method, "path": path, "reply": reply.decode("latin-1")}
            os.write(self._fd, json.dumps(entry).encode() + b"\n")
        self._file.write(reply)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def record(path: str) -> None:
    """Let every control plane of this process append its replies to `path`."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    strike = Faults.strike

    def noted_strike(self: Faults, name: str, stage: str, method: str = "") -> list[Fault]:
        struck = strike(self, name, stage, method)
        _under_way.is_broken |= any(fault.kind in _BREAKS_CONTRACT for fault in struck)
        return struck

    class Handler(control_plane._Handler):
        def setup(self) -> None:
            super().setup()
            self.wfile: Any = _Wire(self, fd)

        def _answer(self) -> None:
            _under_way.is_broken = False
            super()._answer()

    Faults.strike = noted_strike
    control_plane._Handler = Handler


def run(path: str, *arguments: str) -> NoReturn:
    """Be an emulator with these arguments whose replies are appended to `path`."""
    record(path)
    sys.exit(main(["emulator", *arguments]))


if __name__ == "__main__":
    run(*sys.argv[1:])
