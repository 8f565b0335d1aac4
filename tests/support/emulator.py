"""The emulator as a process of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import requests

from tests.support.emulator_processes import EmulatorProcess, start_program
from tests.support.openapi import check_recorded
from tests.support.processes import clean_environment
from tests.support.waiting import LIMIT_S

Start = Callable[[Path, Sequence[str], Mapping[str, str]], tuple[EmulatorProcess, IO[bytes]]]


class Emulator:
    """A running emulator; `api` and `key` as its ready line gives them, `ids` their kind.

    Users are given `front` as base URL: that of what is `in_between`, if something is.
    """

    def __init__(self, directory: Path, *arguments: str, start: Start = start_program) -> None:
        self.ids = arguments[arguments.index("--ids") + 1] if "--ids" in arguments else "dm"
        self.journal = directory / "journal"
        self.replies = directory / "replies"
        self.process, self._output = start(
            self.replies, ["--journal", str(self.journal), *arguments], clean_environment()
        )
        line = self._output.readline()
        assert line, "the emulator did not start"
        self.ready: dict[str, Any] = json.loads(line)
        self.api: str = self.ready["api"]
        self.key: str = self.ready["key"]
        self.in_between = ""

    @property
    def front(self) -> str:
        return self.in_between or self.api

    def machine_id(self, name: str) -> str:
        """Return the id of the machine that the command line called `name`."""
        return str(self.ready["machines"][name])

    def control(self, method: str, path: str, **body: Any) -> Any:
        """Use a control route of the emulator."""
        reply = requests.request(
            method,
            f"{self.api}/emulator/{path}",
            headers={"Authorization": f"Bearer {self.key}"},
            json=body or None,
            timeout=30,
        )
        assert reply.ok, reply.text
        return reply.json() if reply.content else None

    def events(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return the journal's entries that have all the given values."""
        if not self.journal.exists():
            return []
        entries = [json.loads(line) for line in self.journal.read_text().splitlines()]
        return [e for e in entries if all(e.get(key) == value for key, value in wanted.items())]

    def creates(self) -> list[dict[str, Any]]:
        """Return the journal's entries of POSTs that asked for a session."""
        return [e for e in self.events(method="POST") if str(e.get("path", "")).endswith("/ssh")]

    def sessions_created(self) -> set[str]:
        """Return the ids of all sessions that POSTs were answered with."""
        return {e["session_id"] for e in self.creates() if e.get("session_id")}

    def stop(self) -> None:
        """End it, once; fail if it did not end well or gave a reply that breaks the contract."""
        if self._output.closed:
            return
        self._output.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT_S) == 0, "the emulator did not stop cleanly"
        check_recorded(self.replies, self.ids)


def key_file(directory: Path, key: str) -> str:
    """Return the path of a new file with an API key, for the emulator."""
    path = directory / "emulator-key"
    path.write_text(f"{key}\n")
    path.chmod(0o600)
    return str(path)
