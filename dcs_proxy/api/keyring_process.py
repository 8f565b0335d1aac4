"""A program that reads, stores or removes one secret in the system keyring.

    keyring_process.py LIMIT_S (name | get | set | delete) SERVICE USERNAME

A locked keyring opens a window, which may not be on any screen, and waits for an answer.  Only
killing the process ends that wait, which keyring.py does.  `set` reads the secret from stdin.
stdout gets the secret for `get`, the keyring's name for `name` and `set`, and for the exit statuses
below a short reason.

It imports none of our modules, so that it starts fast.
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

_OWN = "keyring.backends."
_FREEDESKTOP = "keyring.backends.SecretService.Keyring"
# Several programs may each have written an entry for the same service and user.
_MAX_ENTRIES = 10


class Ended(Exception):
    """Ends the program with an exit status and a text for stdout."""

    def __init__(self, status: int, text: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def main(words: list[str]) -> int:
    """Do what the words say; return the exit status."""
    limit_s, command, service, username = words
    # The parent may be killed before it can kill this process.
    signal.alarm(int(limit_s))
    output = _take_stdout()
    try:
        text = run(command, find_rings(), service, username)
        status = 0
    except Ended as end:
        status, text = end.status, end.text
    except Exception as error:  # back ends raise exceptions of their own: see classify()
        status, text = classify(error)
    os.write(output, text.encode())
    return status


def run(command: str, rings: list[KeyringBackend], service: str, username: str) -> str:
    """Do one command with `rings`, best first; return what goes to stdout.  Raises Ended."""
    match command:
        case "get":
            return _get(rings, service, username)
        case "set":
            return _set(rings, service, username, sys.stdin.read(MAX_SECRET))
        case "delete":
            _delete(rings, service, username)
        case "name":
            return _short_name(rings[0])
    return ""


def find_rings() -> list[KeyringBackend]:
    """Return the keyrings to use, best first.  Raises Ended if there is none.

    As in keyring itself: the user's choice (PYTHON_KEYRING_BACKEND or keyringrc.cfg), else all that
    work here, by priority; but only those that store secrets safely.
    """
    try:
        from keyring import backend, core
        from keyring.backends.chainer import ChainerBackend
    except ModuleNotFoundError as error:
        raise Ended(UNUSABLE, f"the Python package {error.name} is missing") from None
    try:
        chosen = core.load_env() or core.load_config()
    except Exception as error:  # the module may raise anything
        raise Ended(UNUSABLE, f"the chosen one cannot be loaded: {_describe(error)}") from None
    if chosen is not None and not isinstance(chosen, ChainerBackend):
        if objection := object_to(chosen):
            raise Ended(UNUSABLE, f"{_name(chosen)} is chosen, {objection}")
        return [chosen]
    # A chain also uses back ends that are not safe.
    found = [ring for ring in backend.get_all_keyring() if not isinstance(ring, ChainerBackend)]
    safe = [ring for ring in found if not object_to(ring)]
    if not safe:
        raise Ended(UNUSABLE, _missing_service())
    return up_to_own(sorted(safe, key=backend.by_priority, reverse=True))


def object_to(ring: KeyringBackend) -> str:
    """Return why a keyring must not be used for a secret, "" if it may."""
    if any("plaintext" in kind.__name__.lower() for kind in type(ring).__mro__):
        return "which stores secrets in plain text"
    # keyring recommends back ends from priority 1 on; null and fail are below that.
    if ring.priority < 1:
        return f"which keyring does not recommend (priority {ring.priority:g})"
    return ""


def up_to_own(rings: list[KeyringBackend]) -> list[KeyringBackend]:
    """Return `rings` up to the first of keyring's own.

    A third party's may serve only certain services, such as a package registry.  Keyring's own
    serve all, and asking another one after it could open a window to unlock a keyring without the
    key.
    """
    for number, ring in enumerate(rings, 1):
        if _name(ring).startswith(_OWN):
            return rings[:number]
    return rings


def classify(error: Exception) -> tuple[int, str]:
    """Return the exit status and the text for an exception of a back end."""
    match type(error).__name__:
        case "KeyringLocked" | "PromptDismissedException" | "LockedException":
            return LOCKED, ""
        case "NoKeyringError" | "SecretServiceNotAvailableException":
            return UNUSABLE, _describe(error)
        case _:
            return FAILED, _describe(error)


def _take_stdout() -> int:
    """Return a copy of the descriptor stdout, and redirect stdout itself to /dev/null."""
    output = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    return output


def _get(rings: list[KeyringBackend], service: str, username: str) -> str:
    for ring in rings:
        secret = _read(ring, service, username)
        if secret is not None:
            return secret
    raise Ended(ABSENT)


def _set(rings: list[KeyringBackend], service: str, username: str, secret: str) -> str:
    for ring in rings:
        try:
            ring.set_password(service, username, secret)
        except NotImplementedError:
            continue
        return _short_name(ring)
    raise Ended(UNUSABLE, f"{_name(rings[0])} stores no secrets")


def _delete(rings: list[KeyringBackend], service: str, username: str) -> None:
    holding = [ring for ring in rings if _read(ring, service, username) is not None]
    if not holding:
        raise Ended(ABSENT)
    for ring in holding:
        _delete_all(ring, service, username)


def _delete_all(ring: KeyringBackend, service: str, username: str) -> None:
    from keyring.errors import PasswordDeleteError

    try:
        for _ in range(_MAX_ENTRIES):
            ring.delete_password(service, username)
    except (PasswordDeleteError, NotImplementedError):
        pass
    if ring.get_password(service, username) is not None:
        raise Ended(FAILED, "it did not remove the entry")


def _read(ring: KeyringBackend, service: str, username: str) -> str | None:
    if _is_known_to_be_absent(ring, service, username):
        return None
    return ring.get_password(service, username)


def _is_known_to_be_absent(ring: KeyringBackend, service: str, username: str) -> bool:
    """Return whether a Secret Service certainly has no such entry, without opening a window.

    keyring unlocks, or even creates, a collection before it searches.  But a locked collection can
    be searched too, and users who have no key in it should not have to unlock it.
    """
    if _name(ring) != _FREEDESKTOP:
        return False
    import secretstorage

    # `ring` is declared as any back end, and only this one has schemes.
    names = ring.schemes[ring.scheme]  # type: ignore[attr-defined]
    with closing(secretstorage.dbus_init()) as bus:
        wanted = {names["service"]: service, names["username"]: username}
        return next(secretstorage.search_items(bus, wanted), None) is None


def _missing_service() -> str:
    """Return why the usual keyring of a desktop, the Secret Service, does not work here."""
    from keyring.backends import SecretService

    try:
        _ = SecretService.Keyring.priority
    except RuntimeError as error:
        return str(error)  # keyring's own words
    except Exception as error:  # of D-Bus
        return _describe(error)
    return "no backend found"


def _name(ring: KeyringBackend) -> str:
    return f"{type(ring).__module__}.{type(ring).__name__}"


def _short_name(ring: KeyringBackend) -> str:
    """Return the name of the back end's module, without that of keyring's own package."""
    return type(ring).__module__.removeprefix(_OWN)


def _describe(error: Exception) -> str:
    """Return the message of keyring's and secretstorage's errors, and only the class of others.

    Python's own errors may quote a value, which may be a secret.
    """
    is_known = type(error).__module__.partition(".")[0] in ("keyring", "secretstorage")
    return (is_known and str(error)) or type(error).__name__


if __name__ == "__main__":
    # The modules beside this file, such as keyring.py, must not be imported by their bare names.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    # Isolated mode (-I) ignores the user's site-packages.  If we are there, so is keyring.
    packages = os.path.abspath(__file__).rpartition("/dcs_proxy/")[0]
    if packages not in sys.path:
        import site

        site.addsitedir(packages)
    sys.exit(main(sys.argv[1:]))
