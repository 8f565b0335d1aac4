"""Refuse a keyring that another user could have put in place of the user's own.

Two things decide where the API key goes: keyring's config file, which may name a module to load,
and the session bus.  The bus's address may be outdated: a path in /tmp may belong to another user
by now.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from urllib.parse import unquote

from dcs_proxy.errors import CredentialsError
from dcs_proxy.fastpath.helper import peer
from dcs_proxy.local.environment import config_base
from dcs_proxy.local.trusted_file import (
    Distrust,
    find_distrust,
    find_distrust_of_file,
    judge_owner,
)

_BUS = "DBUS_SESSION_BUS_ADDRESS"
_CONFIG = "python_keyring/keyringrc.cfg"
# If these are relative, keyring would look for its files in the current directory.
_BASES = ("XDG_CONFIG_HOME", "XDG_DATA_HOME")
_CONNECT_S = 1.0


def keyring_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a process that uses the keyring.

    The address of a bus that does not exist is left out, because another user could create it
    meanwhile.  Raises CredentialsError if others decide which keyring, or which bus, is used.
    """
    config = os.path.join(config_base(environment), _CONFIG)
    if distrust := find_distrust_of_file(config):
        raise _untrusted(f"its config file {config}", config, distrust, distrust.hint)
    left_out = {name for name in _BASES if not os.path.isabs(environment.get(name, ""))}
    for name in _addresses(environment.get(_BUS, "")):
        try:
            distrust = _judge_bus(name)
        except OSError:
            left_out.add(_BUS)
            continue
        if distrust:
            raise _untrusted(f"the session bus in {_BUS}", name, distrust, f"unset {_BUS}")
    return {name: value for name, value in environment.items() if name not in left_out}


def _untrusted(what: str, path: str, distrust: Distrust, hint: str) -> CredentialsError:
    subject = what if distrust.place == path else f"{what} is not trusted: {distrust.place}"
    return CredentialsError(
        f"the system keyring is not used, because {subject} {distrust.problem}", hint=hint
    )


def _addresses(text: str) -> Iterator[str]:
    """Yield the paths of Unix sockets in a list of addresses, abstract ones with a NUL in front.

    D-Bus specification, "Server Addresses": ``unix:path=PATH,guid=…;unix:abstract=NAME``.
    """
    for address in text.split(";"):
        transport, _, rest = address.partition(":")
        for pair in rest.split(",") if transport == "unix" else ():
            key, _, value = pair.partition("=")
            if key in ("path", "abstract"):
                yield ("\0" if key == "abstract" else "") + unquote(value)


def _judge_bus(name: str) -> Distrust | None:
    """Return why a socket is not trusted, None if it is.  Raises OSError if it does not exist."""
    if not name.startswith("\0"):
        path = os.path.abspath(name)
        return find_distrust(path, os.stat(path))
    # An abstract socket has no owner, only a process that listens.
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_CONNECT_S)
        sock.connect(name)
        uid = peer(sock)[0]
    return None if uid is None else judge_owner(name, uid)
