"""The API key: from the environment, else from a key file that only its owner can read.

Order: ``DEDALUS_API_KEY`` and ``DEDALUS_X_API_KEY``, then the key file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from dcs_proxy.errors import CredentialsError

_MAX_KEY = 4096


@dataclass(frozen=True)
class Credentials:
    """The secrets to send, and where they came from.

    `bearer` goes into ``Authorization: Bearer``, `api_key` into ``x-api-key``; the contract takes
    either, and each is sent that is set.
    """

    bearer: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    source: str


def load_credentials(environment: Mapping[str, str], key_file: str) -> Credentials:
    """Return the API key.  Raises CredentialsError if there is none or it cannot be used."""
    bearer = environment.get("DEDALUS_API_KEY") or None
    api_key = environment.get("DEDALUS_X_API_KEY") or None
    if bearer or api_key:
        names = ["DEDALUS_API_KEY"] * bool(bearer) + ["DEDALUS_X_API_KEY"] * bool(api_key)
        return Credentials(
            bearer and _check_key(bearer, "DEDALUS_API_KEY"),
            api_key and _check_key(api_key, "DEDALUS_X_API_KEY"),
            " and ".join(names),
        )
    return Credentials(_check_key(_read_key_file(key_file), key_file), None, key_file)


def _read_key_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            text = file.read(_MAX_KEY + 1)
    except FileNotFoundError:
        raise CredentialsError(
            "there is no API key",
            hint=f"set DEDALUS_API_KEY, or put the key into {path} (mode 0600)",
        ) from None
    except OSError as error:
        raise CredentialsError(
            f"the key file {path} cannot be read: {error.strerror}",
            hint="set DEDALUS_API_KEY, or mend the file",
        ) from None
    if status.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(status.st_mode) & 0o077:
        raise CredentialsError(
            f"the key file {path} can be read by others", hint=f"chmod 600 {path}"
        )
    return text.decode("latin-1").strip()


def _check_key(key: str, source: str) -> str:
    """Refuse what could break out of an HTTP header; never show it."""
    key = key.strip()
    if not 1 <= len(key) <= _MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise CredentialsError(
            f"the API key from {source} is not one printable word",
            hint="copy the key again; it looks like dsk-…",
        )
    return key
