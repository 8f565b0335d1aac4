"""The bridge's host keys, and the known_hosts file by which clients recognise them.

The keys open nothing.  They identify our end of a pipe to the clients of one user.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import stat
from collections.abc import Iterable, Sequence

from dcs_proxy.errors import StateError
from dcs_proxy.local.files import cannot_write, read_small, write_atomically
from dcs_proxy.openssh.config_text import KNOWN_HOSTS
from dcs_proxy.session.directory import StateDirectory

# ECDSA too, because JSch before 0.2 does not support Ed25519.
_KINDS = ("ed25519", "ecdsa")
_ANY_MACHINE = "dm-*"
# In bytes; enough lines for some fifty thousand machines.
_MAX_KNOWN_HOSTS = 16 * 1024 * 1024
_HOST = re.compile(rb"^(dm-[a-z0-9-]+) ", re.MULTILINE)


def ensure_host_keys(state: StateDirectory) -> list[str]:
    """Return the paths of the two private keys, Ed25519 first; create those that are missing.

    Raises StateError if they cannot be written, or cannot be trusted to be secret.
    """
    return [_ensure_key(state.file(f"bridge_{kind}_key"), kind) for kind in _KINDS]


def write_known_hosts(state: StateDirectory, names: Iterable[str] | None = None) -> str:
    """Write the known_hosts file for the bridge's keys; return its path.

    It has lines with a pattern for all machines and, for clients that do not understand patterns,
    lines for each of `names`.  With None the names stay as they are.  Raises StateError.
    """
    path = state.file(KNOWN_HOSTS)
    old = read_small(path, _MAX_KNOWN_HOSTS) or b""
    keys = [_public_line(key) for key in ensure_host_keys(state)]
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


def _ensure_key(path: str, kind: str) -> str:
    if not os.path.lexists(path):
        _make_key(path, kind)
    try:
        status = os.lstat(path)
    except OSError as error:
        raise cannot_write(path, error) from None
    is_secret = status.st_uid == os.geteuid() and not stat.S_IMODE(status.st_mode) & 0o077
    if not stat.S_ISREG(status.st_mode) or not is_secret:
        raise StateError(
            f"the bridge's host key {path} is readable by other users",
            hint=f"remove it, and a new one will be created: rm {shlex.quote(path)}",
        )
    return path


def _make_key(path: str, kind: str) -> None:
    """Create a key; if several processes do, the first that links its file into place wins."""
    temporary = f"{path}.{os.getpid()}.tmp"
    write_atomically(temporary, _generate(kind))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
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


def _public_line(path: str) -> str:
    """Return the public half of a private key file as ``TYPE BASE64``.  Raises StateError."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_ssh_private_key(read_small(path) or b"", None)
        line = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    except (ValueError, UnsupportedAlgorithm):
        raise StateError(
            f"the bridge's host key {path} is damaged",
            hint=f"remove it, and a new one will be created: rm {shlex.quote(path)}",
        ) from None
    return line.decode("ascii")
