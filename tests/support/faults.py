"""The catalogue of faults: each met by the real ssh, each with the right end in bounded time.

Every play is the same: a fault is set, `ssh dm-foo` is typed, what it says is compared, nothing is
left behind, the fault goes, and the next `ssh dm-foo` works.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.emulator import Emulator
from tests.support.secret_watch import SecretWatch
from tests.support.user import User, helpers_for
from tests.support.waiting import LIMIT_S, wait_until

Start = Callable[..., Emulator]

# Not that of the tests that run beside us, whose emulators have theirs in their arguments.
KEY = f"dsk-marker-{os.getpid()}-0123456789abcdef"
HOST_KEYS = ("bridge_ed25519_key", "bridge_ecdsa_key")
PRIVATE = re.compile(rb"PRIVATE KEY|" + KEY.encode())
# How long ssh waits for what never comes, and for what must come, on however busy a computer.
WAKE_S, PATIENT_S = 4, 60
# ssh gets in, and nothing is said but that it took longer.
AGAIN = "(dcs-proxy: dm-foo: .*; trying again)?"
IN = f"^{AGAIN}$"
WAKES = r"dcs-proxy: dm-foo: waking up, at most \d+ s"
GETS_IN_AFTER_WAKE = f"^{WAKES}\n?{AGAIN}$"


@dataclass
class Play:
    """One person, one emulator, and what became of one ssh."""

    user: User
    emulator: Emulator
    record: Callable[[str, object], None]
    settings: str = ""

    def set(self, *faults: str) -> None:
        for fault in faults:
            self.emulator.control("POST", "faults", fault=fault)

    def meet(self, fault: str, said: str, *arguments: str, gets_in: bool | None = None) -> str:
        """Type ssh; compare what it says (a regular expression) and whether it gets in."""
        start = time.monotonic()
        with SecretWatch(KEY, self.emulator.process.pid) as watch:
            done = self.user.ssh(*arguments, "dm-foo", "echo in", timeout=LIMIT_S)
        seconds = time.monotonic() - start
        errors = done.stderr.replace("\r", "")
        left = self.left_behind()
        row = [fault, done.returncode, round(seconds, 1), left or "nothing", readable(errors)]
        self.record("fault", row)
        assert re.search(said, errors.strip()), errors
        if gets_in is None:
            gets_in = said in (IN, GETS_IN_AFTER_WAKE)
        assert (done.returncode, done.stdout) == ((0, "in\n") if gets_in else (255, "")), errors
        assert "Traceback" not in errors and KEY not in errors
        assert all(character.isprintable() or character == "\n" for character in errors)
        assert not left
        assert not watch.found
        return errors

    def left_behind(self) -> str:
        """Return what should not be there once ssh has ended, in words."""
        found = []
        wait_until(lambda: not helpers_for(self.user))
        for path in self.user.root.rglob("*"):
            if path.suffix == ".tmp":
                found.append(f"the file {path.name}")
            # The bridge's host keys open nothing; they only identify our end of the pipe.
            is_host_key = path.name in HOST_KEYS and path.stat().st_mode & 0o777 == 0o600
            if path.is_file() and not is_host_key and PRIVATE.search(path.read_bytes()):
                found.append(f"a secret in {path.name}")
            if path.suffix == ".lock" and path.is_file() and is_held(path):
                found.append(f"the lock {path.name}")
        return ", ".join(found)

    def recovers(self) -> None:
        self.emulator.control("DELETE", "faults")
        self.user.settings(f"wake_seconds = {PATIENT_S}\n{self.settings}")
        done = self.user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def readable(errors: str) -> str:
    """Return what a person reads, without ssh's echo of our message."""
    lines = [line for line in errors.splitlines() if not line.startswith("Disconnected from")]
    ours = [line for line in lines if line.startswith("dcs-proxy: ")]
    return " / ".join(line.removeprefix("dcs-proxy: ") for line in ours or lines)[:300]


def is_held(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
