"""The API key: from the environment, a key file that only its owner can read, or the keyring.

The order is ``DEDALUS_API_KEY`` and ``DEDALUS_X_API_KEY``, the key file, the system keyring.  Each
is read only if there is no key in those before it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dcs_proxy.api import keyring as system_keyring
from dcs_proxy.errors import CredentialsError, KeyringUnusable, StateError
from dcs_proxy.local.files import make_directories, remove_file, write_atomically
from dcs_proxy.local.programs import SECRET_VARIABLES
from dcs_proxy.local.trusted_file import distrusted, find_distrust, read_trusted, real_path
from dcs_proxy.text import add_secret

MAX_KEY = 4096
_NOT_ALONE = ("DEDALUS_", "export ", '"', "'")


@dataclass(frozen=True)
class Credentials:
    """The secrets to send, and where they came from.

    `bearer` is sent as ``Authorization: Bearer``, `api_key` as ``x-api-key``; the contract accepts
    either, and both are sent if both are set.  `renewal` is the hint to show if the API rejects
    them.
    """

    bearer: str | None = field(repr=False)
    api_key: str | None = field(repr=False)
    source: str
    renewal: str = "set DEDALUS_API_KEY to a valid key"

    def __post_init__(self) -> None:
        for secret in (self.bearer, self.api_key):
            add_secret(secret or "")


def load_credentials(
    environment: Mapping[str, str], key_file: str, read_keyring: Callable[[], str | None]
) -> Credentials:
    """Return the API key.  Raises CredentialsError if there is none or it cannot be used.

    `read_keyring` is :meth:`SystemKeyring.read` of the API's base URL.
    """
    keys = [environment.get(name) or None for name in SECRET_VARIABLES]
    if any(keys):
        pairs = list(zip(SECRET_VARIABLES, keys, strict=True))
        source = " and ".join(name for name, key in pairs if key)
        bearer, api_key = (key and check_key(key, name) for name, key in pairs)
        return Credentials(bearer, api_key, source, f"set {source} to a valid key")
    key = _read_key_file(key_file)
    if key is not None:
        return Credentials(check_key(key, key_file), None, key_file, "dcs-proxy login --file")
    try:
        key = read_keyring()
    except KeyringUnusable as error:
        raise CredentialsError(
            f"there is no API key, and {error.message}",
            hint=f"dcs-proxy login --file stores one in {key_file}; or set DEDALUS_API_KEY",
        ) from None
    if key is None:
        raise CredentialsError(
            "there is no API key",
            hint=f"type: dcs-proxy login; or set DEDALUS_API_KEY, or write the key to {key_file} "
            "(mode 0600)",
        )
    source = system_keyring.NAME
    return Credentials(check_key(key, source), None, source, "dcs-proxy login")


def overriding_sources(environment: Mapping[str, str], key_file: str) -> list[str]:
    """Return the sources that override the keyring: set variables and an existing key file."""
    found = [name for name in SECRET_VARIABLES if environment.get(name)]
    return [*found, key_file] if os.path.exists(key_file) else found


def write_key_file(path: str, key: str) -> None:
    """Write the key file, mode 0600.  Raises CredentialsError, also if it would not be trusted."""
    if distrust := find_distrust(path):
        raise distrusted(path, "the key file", CredentialsError, distrust)
    try:
        make_directories(os.path.dirname(path))
        write_atomically(path, f"{key}\n".encode())
    except StateError as error:
        raise _file_error(error.message) from None


def remove_key_file(path: str) -> bool:
    """Remove the key file; return whether there was one.  Raises CredentialsError.

    If it is a symbolic link, its target is removed too.  If the file has other names (hard links),
    they become empty.  Nothing is removed if other users could have placed such a link.
    """
    if distrust := find_distrust(path):
        raise distrusted(path, "the key file", CredentialsError, distrust)
    existed = os.path.lexists(path)
    target = real_path(path)
    try:
        with contextlib.suppress(OSError):
            if os.path.isfile(target):
                os.truncate(target, 0)
        remove_file(target)
        remove_file(path)
    except StateError as error:
        raise _file_error(error.message) from None
    return existed


def _file_error(message: str) -> CredentialsError:
    hint = "free some space or fix its permissions, or set key_file in the config file"
    return CredentialsError(message, hint=hint)


def _read_key_file(path: str) -> str | None:
    file = read_trusted(path, "the key file", CredentialsError)
    if file is None:
        return None
    if not file.is_private:
        raise CredentialsError(f"the key file {path} is readable by other users", hint=file.hint)
    return file.data.decode("latin-1").strip()


def check_key(key: str, source: str) -> str:
    """Return a key without surrounding space.

    Raises CredentialsError if it is not valid in an HTTP header; the error does not quote the key.
    """
    key = key.strip()
    if not key:
        raise CredentialsError(
            f"the API key from {source} is empty", hint="store the key again; it looks like dsk-..."
        )
    if key.startswith(_NOT_ALONE):
        raise CredentialsError(
            f"the API key from {source} must contain nothing but the key",
            hint="remove the name of the variable and the quotation marks",
        )
    if len(key) > MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        raise CredentialsError(
            f"the API key from {source} must be printable ASCII without spaces",
            hint="copy the key again; it looks like dsk-...",
        )
    return key
