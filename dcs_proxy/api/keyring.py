"""The API key in the system keyring: one entry for each base URL.

All of it happens in keyring_process.py, a process in a session of its own, without a terminal,
that is killed when it takes too long.  The key goes through pipes only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dcs_proxy.api import keyring_process
from dcs_proxy.errors import CredentialsError, DeadlineExceeded, KeyringUnusable, clean_text
from dcs_proxy.local.deadline import Deadline

if TYPE_CHECKING:
    import subprocess

SERVICE = "dcs-proxy"
NAME = "the system keyring"
_PROGRAM = os.path.abspath(keyring_process.__file__)
# Whoever waits longer than this is told for what.
_SILENT_S = 2.0
# How much longer the process lives if we are killed before we can kill it.
_ORPHAN_S = 5
_WAYS_OUT = "set DEDALUS_API_KEY, or keep the key in a file: dcs-proxy login --file"


class SystemKeyring:
    """The entry of one base URL; nothing is started before a method is called.

    Each waits at most `limit_s` seconds, and no longer than `deadline`; `notice` is told when that
    takes longer than usual, and `meanwhile` is called while the process starts.  Methods raise
    KeyringUnusable where there is none that can be trusted, CredentialsError where there is one
    that does not do it, or ClientGone.
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
        # The process has no need of a key that is there already.
        self._environment = {
            name: value
            for name, value in environment.items()
            if name not in ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY")
        }
        self._deadline = deadline
        self._limit_s = limit_s
        self._notice = notice
        self._meanwhile = meanwhile

    def name(self) -> str:
        """Return what the keyring that would be used is called."""
        return self._ask("name") or ""

    def read(self) -> str | None:
        """Return the key, None if there is no entry."""
        return self._ask("get")

    def keep(self, key: str) -> None:
        """Make `key` the entry."""
        self._ask("set", key)

    def remove(self) -> bool:
        """Remove the entry; return whether there was one."""
        return self._ask("delete") is not None

    def _ask(self, command: str, secret: str = "") -> str | None:
        """Return what the process says, None if there is no entry."""
        import subprocess  # only who uses a keyring pays for it

        entry = (SERVICE, self._base_url)
        process = subprocess.Popen(
            [sys.executable, _PROGRAM, str(self._limit_s + _ORPHAN_S), command, *entry],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # D-Bus and the programs that it starts have much to say.
            stderr=subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
        try:
            status = self._exchange(process, secret)
            said = process.stdout.read().decode(errors="replace") if process.stdout else ""
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()
        return _outcome(status, said)

    def _exchange(self, process: subprocess.Popen[bytes], secret: str) -> int:
        """Pass the secret on and return the exit status.  Both fit into a pipe's buffer."""
        if process.stdin:
            try:
                process.stdin.write(secret.encode())
                process.stdin.close()
            except BrokenPipeError:
                pass  # its status says why
        limit_s = min(self._limit_s, self._deadline.remaining())
        self._meanwhile()
        try:
            try:
                return self._deadline.call(process.wait, within_s=min(_SILENT_S, limit_s))
            except TimeoutError:
                self._notice(f"waiting for {NAME}: is there a window that asks to unlock it?")
            return self._deadline.call(process.wait, within_s=limit_s - _SILENT_S)
        except (TimeoutError, DeadlineExceeded):
            raise CredentialsError(
                f"{NAME} has not answered in {limit_s:.0f} s; it may wait to be unlocked",
                hint=f"unlock it, or {_WAYS_OUT}",
            ) from None


def _outcome(status: int, said: str) -> str | None:
    """Return what the process has found, None for no entry, or raise what its status means."""
    match status:
        case 0:
            return said
        case keyring_process.ABSENT:
            return None
        case keyring_process.UNUSABLE:
            raise KeyringUnusable(
                f"this computer has no usable system keyring ({clean_text(said)})", hint=_WAYS_OUT
            )
        case keyring_process.LOCKED:
            raise CredentialsError(f"{NAME} is locked", hint=f"unlock it, or {_WAYS_OUT}")
        case keyring_process.FAILED:
            raise CredentialsError(f"{NAME} failed: {clean_text(said)}", hint=_WAYS_OUT)
    raise CredentialsError(f"{NAME} cannot be asked (status {status})", hint=_WAYS_OUT)
