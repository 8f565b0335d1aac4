"""The bridge's host keys, and the known_hosts file by which clients recognise them.

The keys open nothing.  They identify our end of a pipe to the clients of one user.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Sequence

from dcs_proxy.errors import StateError
from dcs_proxy.local.files import cannot_write, read_small, write_atomically
from dcs_proxy.local.lock import wait_for_lock
from dcs_proxy.openssh.config_text import KNOWN_HOSTS, lists_other_hosts
from dcs_proxy.session.directory import StateDirectory

# ECDSA too, because JSch before 0.2 does not support Ed25519.
_KINDS = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2-nistp256"}
_LOCK_S = 10.0
_ANY_MACHINE = "dm-*"
# In bytes; enough lines for some fifty thousand machines.
_MAX_KNOWN_HOSTS = 16 * 1024 * 1024
_HOST = re.compile(rb"^(dm-[a-z0-9-]+) ", re.MULTILINE)


def ensure_host_keys(state: StateDirectory) -> list[str]:
    """Return the paths of the two private keys, Ed25519 first; create those that are missing.

    A key that is damaged, or that others can read, is replaced: nothing but a client that has saved
    it elsewhere than in our known_hosts file needs the old one.  Raises StateError if a key cannot
    be written, or something that is not our file is in its place.
    """
    return [_ensure_key(state, state.file(f"bridge_{kind}_key"), kind) for kind in _KINDS]


def write_known_hosts(state: StateDirectory, names: Iterable[str] | None = None) -> str:
    """Write the known_hosts file for the bridge's keys; return its path.

    It has lines with a pattern for all machines and, for clients that do not understand patterns,
    lines for each of `names`.  With None the names stay as they are.  Raises StateError, also if
    the file is the user's own, because the state directory is ~/.ssh.
    """
    path = state.file(KNOWN_HOSTS)
    old = read_small(path, _MAX_KNOWN_HOSTS) or b""
    if lists_other_hosts(old):
        raise StateError(
            f"{path} lists other hosts, so it is not replaced",
            hint="set DCS_PROXY_HOME to a directory that has no other files",
        )
    lines = [_public_line(path) for path in ensure_host_keys(state)]
    keys = [line for line in lines if line is not None]
    pattern_lines = _lines([_ANY_MACHINE], keys)
    if names is None:
        if old.startswith(pattern_lines):
            return path
        names = [name.decode() for name in _HOST.findall(old)]
    new = pattern_lines + _lines(dict.fromkeys(names), keys)
    if new != old:
        write_atomically(path, new)
    return path


def _lines(hosts: Iterable[str], keys: Sequence[str]) -> bytes:
    return "".join(f"{host} {key}\n" for host in hosts for key in keys).encode()


def _ensure_key(state: StateDirectory, path: str, kind: str) -> str:
    if not os.path.lexists(path):
        _make_key(path, kind, _link_first)
    if _is_usable(path, kind):
        return path
    with wait_for_lock(state.file("bridge.lock"), timeout_s=_LOCK_S, what="dcs-proxy"):
        if not _is_usable(path, kind):  # another process may have replaced it by now
            _make_key(path, kind, os.replace)
    return path


def _is_usable(path: str, kind: str) -> bool:
    """Return whether the file has a key of that kind, which only we can read.

    Raises StateError if it is not a file of ours.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise StateError(
            f"the bridge's host key {path} is not a file of yours",
            hint=f"remove it, and a new one will be created: rm {shlex.quote(path)}",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        return False
    line = _public_line(path)
    return line is not None and line.startswith(f"{_KINDS[kind]} ")


def _link_first(temporary: str, path: str) -> None:
    """Put a new key in its place, unless another process was faster."""
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)


def _make_key(path: str, kind: str, put: Callable[[str, str], None]) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    write_atomically(temporary, _generate(kind))
    try:
        put(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with contextlib.suppress(FileNotFoundError):  # it was moved
            os.unlink(temporary)


def _generate(kind: str) -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    if kind == "ed25519":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def _public_line(path: str) -> str | None:
    """Return the public half of a private key file as ``TYPE BASE64``; None if it is damaged."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_ssh_private_key(read_small(path) or b"", None)
        line = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a passphrase
        return None
    return line.decode("ascii")
