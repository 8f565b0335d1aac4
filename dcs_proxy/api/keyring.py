"""The API key in the system keyring: one entry per base URL.

keyring_process.py accesses it in a process in a session of its own, without a terminal, that is
killed if it takes too long.  The key passes through pipes only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dcs_proxy.api import keyring_process
from dcs_proxy.api.keyring_trust import keyring_environment
from dcs_proxy.errors import CredentialsError, DeadlineExceeded, KeyringUnusable
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.programs import start
from dcs_proxy.text import clean_text

if TYPE_CHECKING:
    import subprocess

SERVICE = "dcs-proxy"
NAME = "the system keyring"
_PROGRAM = os.path.abspath(keyring_process.__file__)
# The user is told the reason for a longer wait.
_NOTICE_AFTER_S = 2.0
# If we are killed, the process ends itself this much after its time limit.
_ORPHAN_S = 5
# More than the longest secret or reason.
_MAX_TEXT = 16 * 1024
_ALTERNATIVES = "set DEDALUS_API_KEY, or store the key in a file: dcs-proxy login --file"


class SystemKeyring:
    """The entry of one base URL; no process is started before a method is called.

    Each call is limited to `limit_s` seconds and by `deadline`.  `notice` is called if it takes
    longer than usual, `meanwhile` while the process starts.  Methods raise KeyringUnusable if no
    keyring can be trusted, CredentialsError if it is locked or fails, or ClientGone.
    """

    def __init__(
        self,
        base_url: str,
        environment: Mapping[str, str],
        deadline: Deadline,
        limit_s: int,
        notice: Callable[[str], None],
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        self._base_url = base_url
        self._environment = environment
        self._deadline = deadline
        self._limit_s = limit_s
        self._notice = notice
        self._meanwhile = meanwhile

    def name(self) -> str:
        """Return the name of the keyring that is asked first."""
        return self._ask("name") or ""

    def read(self) -> str | None:
        """Return the key, None if there is no entry."""
        return self._ask("get")

    def store(self, key: str) -> str:
        """Make `key` the entry; return the name of the keyring that holds it."""
        return self._ask("set", key) or ""

    def remove(self) -> bool:
        """Remove the entry; return whether there was one."""
        return self._ask("delete") is not None

    def _ask(self, command: str, secret: str = "") -> str | None:
        """Return what the process writes, None if there is no entry."""
        import subprocess  # only users of a keyring pay for it

        entry = (SERVICE, self._base_url)
        # What ssh starts is deaf to PYTHONPATH and the like, and so is what that starts.
        isolated = ["-I"] if sys.flags.isolated else []
        # Its stderr is not read: D-Bus and the programs that it starts write a lot.
        process = start(
            [sys.executable, *isolated, _PROGRAM, str(self._limit_s + _ORPHAN_S), command, *entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            environment=keyring_environment(self._environment),
            new_session=True,
        )
        try:
            status = self._exchange(process, secret)
            text = process.stdout.read(_MAX_TEXT).decode(errors="replace") if process.stdout else ""
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        return _interpret(status, text)

    def _exchange(self, process: subprocess.Popen[bytes], secret: str) -> int:
        """Write the secret and return the exit status.  Each fits into a pipe's buffer."""
        if process.stdin:
            try:
                process.stdin.write(secret.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass  # the status tells why
        limit_s = min(self._limit_s, self._deadline.remaining())
        self._meanwhile()
        try:
            try:
                return self._deadline.call(process.wait, within_s=min(_NOTICE_AFTER_S, limit_s))
            except TimeoutError:
                self._notice(f"waiting for {NAME}: look for a window that asks to unlock it")
            return self._deadline.call(process.wait, within_s=limit_s - _NOTICE_AFTER_S)
        except (TimeoutError, DeadlineExceeded):
            raise CredentialsError(
                f"{NAME} has not answered in {limit_s:.0f} s; it may be waiting to be unlocked",
                hint=f"unlock it, or {_ALTERNATIVES}",
            ) from None


def _interpret(status: int, text: str) -> str | None:
    """Return the process's text, None for no entry, or raise what its exit status means."""
    match status:
        case 0:
            return text
        case keyring_process.ABSENT:
            return None
        case keyring_process.UNUSABLE:
            raise KeyringUnusable(
                f"this computer has no usable system keyring ({clean_text(text)})",
                hint=_ALTERNATIVES,
            )
        case keyring_process.LOCKED:
            raise CredentialsError(f"{NAME} is locked", hint=f"unlock it, or {_ALTERNATIVES}")
        case keyring_process.FAILED:
            raise CredentialsError(f"{NAME} failed: {clean_text(text)}", hint=_ALTERNATIVES)
    raise CredentialsError(f"{NAME} failed with exit status {status}", hint=_ALTERNATIVES)
