"""Reads, keeps or removes one secret in the system keyring: a program of its own.

    keyring_process.py LIMIT_S (name | get | set | delete) SERVICE USERNAME

A keyring that is locked waits for a window, which may be on no screen, and nothing but the end of
the process ends that wait.  system_keyring.py starts it and is all that does.  The secret of `set`
comes on stdin; stdout gets the secret of `get`, the keyring's name for `name`, or, where the exit
status is one of those below, the reason in a few words.

It imports nothing of ours, so that it starts fast.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

ABSENT, UNUSABLE, LOCKED, FAILED = 3, 4, 5, 6
MAX_SECRET = 4096

_FREEDESKTOP = "keyring.backends.SecretService.Keyring"
_KWALLET = "keyring.backends.kwallet.DBusKeyring"
# What keeps secrets encrypted and asks the system's user for them, in the order of trying.  All
# others (plain files among them) are refused, whoever chose them.
ALLOWED = (
    _FREEDESKTOP,
    _KWALLET,
    "keyring.backends.libsecret.Keyring",
    "keyring.backends.macOS.Keyring",
    "keyring.backends.Windows.WinVaultKeyring",
)
# Entries that one service and user may have, by other programs that wrote them.
_MAX_ENTRIES = 10


class _End(Exception):
    """The exit status, and what goes to stdout."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def main(words: list[str]) -> int:
    """Do what the words say; return the exit status."""
    limit_s, command, service, username = words
    # Whoever started us may be killed before it can kill us.
    signal.alarm(int(limit_s))
    output = _keep_stdout()
    try:
        text = _do(command, _choose(), service, username)
        status = 0
    except _End as end:
        status, text = end.status, end.text
    except Exception as error:  # of any back end: what it is called must do
        status, text = _classify(error)
    os.write(output, text.encode())
    return status


def _keep_stdout() -> int:
    """Return stdout as a descriptor that nothing else writes to."""
    output = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return output


def _do(command: str, ring: KeyringBackend, service: str, username: str) -> str:
    match command:
        case "get":
            return _get(ring, service, username)
        case "set":
            ring.set_password(service, username, sys.stdin.read(MAX_SECRET))
        case "delete":
            _delete(ring, service, username)
        case "name":
            return _name(ring).removeprefix("keyring.backends.").rpartition(".")[0]
    return ""


def _get(ring: KeyringBackend, service: str, username: str) -> str:
    if _is_known_to_be_absent(ring, service, username):
        raise _End(ABSENT)
    secret = ring.get_password(service, username)
    if secret is None:
        raise _End(ABSENT)
    return secret


def _delete(ring: KeyringBackend, service: str, username: str) -> None:
    from keyring.errors import PasswordDeleteError

    _get(ring, service, username)
    try:
        for _ in range(_MAX_ENTRIES):
            ring.delete_password(service, username)
    except PasswordDeleteError:
        pass
    if ring.get_password(service, username) is not None:
        raise _End(FAILED, "it did not remove the entry")


def _is_known_to_be_absent(ring: KeyringBackend, service: str, username: str) -> bool:
    """Tell, without a window, that a Secret Service has no such entry.

    keyring asks for the keyring to be unlocked, or even made, before it looks; but what a locked
    one holds can be searched.  Nobody who keeps no key there is to be asked.
    """
    if _name(ring) != _FREEDESKTOP:
        return False
    import secretstorage

    # Of this one backend, which the type of all of them does not know.
    names = ring.schemes[ring.scheme]  # type: ignore[attr-defined]
    with closing(secretstorage.dbus_init()) as bus:
        wanted = {names["service"]: service, names["username"]: username}
        return next(secretstorage.search_items(bus, wanted), None) is None


def _choose() -> KeyringBackend:
    """Return the keyring that the user has chosen, else the first of those allowed that works.

    Choosing is done as keyring does it, by PYTHON_KEYRING_BACKEND or keyringrc.cfg.
    """
    try:
        from keyring import core
    except ModuleNotFoundError as error:
        raise _End(UNUSABLE, f"the Python package {error.name} is missing") from None
    try:
        chosen = core.load_env() or core.load_config()
    except Exception as error:  # whatever the module of that name raises
        raise _End(UNUSABLE, f"the one chosen cannot be loaded: {_say(error)}") from None
    if chosen is not None:
        return _allowed(chosen)
    reasons = []
    for name in _in_order():
        try:
            return core.load_keyring(name)
        except Exception as error:  # RuntimeError is the documented one, not the only one
            reasons.append(str(error) if isinstance(error, RuntimeError) else _say(error))
    raise _End(UNUSABLE, reasons[0])


def _in_order() -> list[str]:
    names = list(ALLOWED)
    if "KDE" in os.environ.get("XDG_CURRENT_DESKTOP", "").split(":"):
        names.sort(key=lambda name: name != _KWALLET)
    return names


def _allowed(chosen: KeyringBackend) -> KeyringBackend:
    """Return `chosen`, or the first allowed one of a chain."""
    from keyring.backends.chainer import ChainerBackend

    candidates = chosen.backends if isinstance(chosen, ChainerBackend) else [chosen]
    for ring in candidates:
        if _name(ring) in ALLOWED:
            return ring
    raise _End(UNUSABLE, f"{_name(chosen)} is chosen, which keeps no secrets safely")


def _name(ring: KeyringBackend) -> str:
    return f"{type(ring).__module__}.{type(ring).__name__}"


def _classify(error: Exception) -> tuple[int, str]:
    match type(error).__name__:
        case "KeyringLocked" | "PromptDismissedException" | "LockedException":
            return LOCKED, ""
        case "NoKeyringError" | "SecretServiceNotAvailableException":
            return UNUSABLE, _say(error)
        case _:
            return FAILED, _say(error)


def _say(error: Exception) -> str:
    """Return what an error says if it comes from the keyring's side; else only what it is called.

    Those of Python itself may quote what they choked on, which may be a secret.
    """
    is_own = type(error).__module__.partition(".")[0] in ("keyring", "secretstorage")
    return (is_own and str(error)) or type(error).__name__


if __name__ == "__main__":
    # The directory of our modules is no place for others to be imported from.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    sys.exit(main(sys.argv[1:]))
