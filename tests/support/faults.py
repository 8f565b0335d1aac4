"""One fault, met by a user's ssh or by `dcs-proxy prepare`, with the right end in bounded time.

Every case is the same: a fault is set, a command is run, its message is compared, nothing is left
behind, the fault goes, and the next command works.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from dcs_proxy.cli import main
from dcs_proxy.ssh.keys import public_line
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
GIVES_UP_S, PATIENT_S = 4, 60
# ssh gets in, and nothing is said but that it took longer.
AGAIN = "(dcs-proxy: dm-foo: .*; trying again)?"
IN = f"^{AGAIN}$"
WAKES = r"dcs-proxy: dm-foo: waking up, at most \d+ s"
GETS_IN_AFTER_WAKE = f"^{WAKES}\n?{AGAIN}$"
GETS_IN = (IN, GETS_IN_AFTER_WAKE)
# What ssh says of a certificate that only the gateway refuses.
DENIED = "Permission denied"


@dataclass
class FaultCase:
    """One user, one emulator, and what one command does about a fault.

    `read_errors` returns what this process and its children wrote to stderr since the last call.
    """

    user: User
    emulator: Emulator
    record: Callable[[str, object], None]
    read_errors: Callable[[], str]
    settings: str = ""

    def set(self, *faults: str) -> None:
        for fault in faults:
            self.emulator.control("POST", "faults", fault=fault)

    def check_ssh(
        self, fault: str, expected: str, *arguments: str, gets_in: bool | None = None
    ) -> str:
        """Run ssh; compare its stderr with a regular expression, and whether it gets in."""
        start = time.monotonic()
        with SecretWatch(KEY, self.emulator.process.pid) as watch:
            done = self.user.ssh(*arguments, "dm-foo", "echo in", timeout=LIMIT_S)
        errors = done.stderr.replace("\r", "")
        self._check(fault, done.returncode, start, errors, expected)
        if gets_in is None:
            gets_in = expected in GETS_IN
        assert (done.returncode, done.stdout) == ((0, "in\n") if gets_in else (255, "")), errors
        assert not watch.found
        return errors

    def check_prepare(self, fault: str, expected: str) -> str:
        """Run `dcs-proxy prepare` in this process: the part of ssh that meets most faults."""
        start = time.monotonic()
        self.read_errors()
        status = self._prepare()
        errors = self.read_errors()
        self._check(fault, status, start, errors, expected)
        assert (status == 0) is (expected in GETS_IN), errors
        return errors

    def _check(self, fault: str, status: int, start: float, errors: str, expected: str) -> None:
        seconds = time.monotonic() - start
        left = self.left_behind()
        row = [fault, status, round(seconds, 1), left or "nothing", readable(errors)]
        self.record("fault", row)
        assert re.search(expected, errors.strip()), errors
        assert "Traceback" not in errors and KEY not in errors
        assert all(character.isprintable() or character == "\n" for character in errors)
        assert not left

    def _prepare(self) -> int:
        with mock.patch.dict(os.environ, self.user.environment, clear=True):
            return main(["prepare", "dm-foo"])

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
        """Check that ssh gets in once the fault is gone."""
        self._clear()
        done = self.user.ssh("dm-foo", "echo in")
        assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr

    def prepare_recovers(self) -> None:
        """Check that `dcs-proxy prepare` gets a session once the fault is gone."""
        self._clear()
        assert self._prepare() == 0, self.read_errors()
        # A session that was created before the fault is used with the key alone.
        record = self.user.record("dm-foo")
        attempt, ready = record["attempt"], record["ready"]
        bare = public_line(bytes.fromhex(attempt["public_key"]))
        identity = bare if ready["bare_key"] else ready["certificate"]
        environment = {**self.user.environment, "SSH_AUTH_SOCK": self.user.agent()}
        assert identity.split()[1] in self.user.run(["ssh-add", "-L"], env=environment).stdout

    def _clear(self) -> None:
        self.emulator.control("DELETE", "faults")
        self.user.settings(f"wake_seconds = {PATIENT_S}\n{self.settings}")


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
