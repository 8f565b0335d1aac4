"""The user's settings, from the config file and the environment, validated when they are loaded.

The file is TOML, by default ``$XDG_CONFIG_HOME/dcs-proxy/config.toml``; without it the defaults
apply.  Each setting is a field of :class:`Settings` and an entry of `_CHECKS`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from dcs_proxy.errors import ConfigError, DcsError
from dcs_proxy.local.environment import config_base, full_path
from dcs_proxy.local.host_names import parse_host
from dcs_proxy.local.http_proxy import HttpProxy, parse_http_proxy
from dcs_proxy.local.trusted_file import read_trusted
from dcs_proxy.names import MachineName, is_machine_name, parse_machine_name, pattern_means
from dcs_proxy.text import clean_text, quote_server, quote_typed

DEFAULT_BASE_URL = "https://dcs.dedaluslabs.ai"
WAKE_POLICIES = ("always", "never")
# The environment overrides the file.
_VARIABLES = {
    "base_url": "DEDALUS_BASE_URL",
    "org_id": "DEDALUS_ORG_ID",
    "key_file": "DCS_PROXY_KEY_FILE",
    "wake": "DCS_PROXY_WAKE",
}
_NAME_PATTERN = re.compile(r"[a-z0-9*?-]+\Z")
_BASE_URL_HINT = f"the service is at {DEFAULT_BASE_URL}"
_FORMAT_HINT = "man 5 dcs-proxy describes the file"
_VARIABLE_HINT = "create it, or unset DCS_PROXY_CONFIG"
# The block in the ssh config names the file that config-ssh was run with.
_NAMED_HINT = (
    "create it, or leave out --config; if ssh shows this, run dcs-proxy config-ssh to name another"
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Settings:
    """Everything that a user can set, with the documented defaults."""

    # The API's base URL, without a trailing slash.
    base_url: str = DEFAULT_BASE_URL
    # The organisation that owns the API key, "" if not set.
    org_id: str = ""
    # The path of the file with the API key; "" only in settings that were not loaded.
    key_file: str = ""
    # The HTTP proxy to the API and, by CONNECT, to the gateway.
    proxy: HttpProxy | None = None
    # The path of a PEM file with the certificate authorities of the API, "" for the usual ones.
    ca_file: str = ""
    # How long a machine may take until it is ready.
    wake_seconds: int = 300
    # How long a session is used without asking the API whether it is still valid.
    reuse_seconds: int = 60
    # The time limit for connecting to each address of the gateway.
    connect_seconds: int = 10
    # The agent that holds the certificates: "private", or "user" for SSH_AUTH_SOCK.
    agent: str = "private"
    # The user's own names for machines.
    aliases: Mapping[str, MachineName] = field(default_factory=dict)
    # Pairs of a pattern of machine names and a policy, in the order of the file.
    wake: Sequence[tuple[str, str]] = (("*", WAKE_POLICIES[0]),)
    # Patterns of the machines that config-ssh lists by name in the ssh config.
    listed: Sequence[str] = ("*",)

    def machine(self, host: str) -> MachineName:
        """Return the name that `host` means: an alias's machine, or else `host` itself.

        `host` may lack ``dm-``, and the result may be a short name.  Raises UsageError.
        """
        name = parse_machine_name(host)
        return self.aliases.get(name, name)

    def proxy_to(self, host: str | None) -> HttpProxy | None:
        """Return the proxy through which to reach `host`, None to connect directly.

        Loopback addresses never go through the proxy.
        """
        return None if host in _LOOPBACK else self.proxy

    def aliases_of(self, name: MachineName) -> list[str]:
        """Return the machine's aliases, in the order of the file."""
        return [alias for alias, machine in self.aliases.items() if machine == name]

    def wake_policy(self, name: MachineName) -> str:
        """Return whether ssh may wake the machine: "always" or "never".

        The first pattern that matches its name or one of its aliases decides.
        """
        for pattern, policy in self.wake:
            if pattern_means(pattern, name, self.aliases_of(name)):
                return policy
        return WAKE_POLICIES[0]

    @property
    def api_host(self) -> str:
        """The host name in `base_url`."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def is_loopback(self) -> bool:
        """Whether the API is on this computer."""
        return self.api_host in _LOOPBACK


def config_path(environment: Mapping[str, str]) -> str:
    """Return the path of the config file, whether it exists or not."""
    if chosen := environment.get("DCS_PROXY_CONFIG"):
        return full_path(chosen)
    return os.path.join(config_home(environment), "config.toml")


def load_settings(environment: Mapping[str, str], path: str | None = None) -> Settings:
    """Read the config file at `path`, by default :func:`config_path`; the environment overrides it.

    Raises ConfigError, which names the file and the key, or the environment variable.
    """
    missing_hint = ""
    if path is not None:
        missing_hint = _NAMED_HINT
    elif environment.get("DCS_PROXY_CONFIG"):
        missing_hint = _VARIABLE_HINT
    path = full_path(path) if path else config_path(environment)
    settings = _read(path, missing_hint)
    if not settings.key_file:
        settings = replace(settings, key_file=os.path.join(config_home(environment), "api-key"))
    for key, variable in _VARIABLES.items():
        if value := environment.get(variable):
            try:
                settings = replace(settings, **{key: _CHECKS[key](value)})
            except _InvalidValue as invalid:
                of_file = invalid.hint == _FORMAT_HINT
                hint = f"correct or unset {variable}" if of_file else invalid.hint
                raise ConfigError(f"{variable} {invalid.what}", hint=hint) from None
    return settings


def config_home(environment: Mapping[str, str]) -> str:
    """Return the directory of the config file and the key file."""
    return os.path.join(config_base(environment), "dcs-proxy")


def _read(path: str, missing_hint: str) -> Settings:
    """Return what the file sets; `missing_hint` is "" for a file that need not exist."""
    file = read_trusted(path, "the config file", ConfigError)
    if file is None:
        if missing_hint:
            raise ConfigError(f"the config file {path} does not exist", hint=missing_hint)
        return Settings()
    try:
        table = _parse_toml(file.data.decode())
    except UnicodeDecodeError as error:
        line = file.data.count(b"\n", 0, error.start) + 1
        hint = "save it as UTF-8 in your editor"
        raise ConfigError(f"{path}: line {line} is not UTF-8 text", hint=hint) from None
    except RecursionError:
        raise ConfigError(f"{path}: it is nested too deeply", hint=_FORMAT_HINT) from None
    except ValueError as error:
        raise ConfigError(f"{path}: {clean_text(str(error))}", hint=_FORMAT_HINT) from None
    settings = _from_table(table, path)
    if settings.proxy is not None and settings.proxy.password and not file.is_private:
        raise ConfigError(
            f"the config file {path} contains the proxy's password and is readable by other users",
            hint=file.hint,
        )
    return settings


def _parse_toml(text: str) -> dict[str, Any]:
    """Parse a TOML document.  Raises ValueError, which names the line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _from_table(table: Mapping[str, Any], path: str) -> Settings:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _CHECKS:
            raise ConfigError(f"{path}: {clean_text(key, 80)} is not a setting", hint=_nearest(key))
        try:
            values[key] = _CHECKS[key](value)
        except _InvalidValue as invalid:
            name = clean_text(f"{key}.{invalid.subkey}" if invalid.subkey else key, 80)
            raise ConfigError(f"{path}: {name} {invalid.what}", hint=invalid.hint) from None
    return Settings(**values)


def _nearest(key: str) -> str:
    """Return a hint for a key that is not a setting."""
    import difflib

    near = difflib.get_close_matches(key.lower().replace("-", "_"), _CHECKS, 1)
    return f"did you mean {near[0]}?" if near else f"the settings are {', '.join(_CHECKS)}"


class _InvalidValue(Exception):
    """A setting has an invalid value.

    `what` completes "KEY …", `subkey` is the key within a table or "", `hint` says what to write
    instead.
    """

    def __init__(self, what: str, subkey: str = "", hint: str = _FORMAT_HINT) -> None:
        super().__init__(what)
        self.what = what
        self.subkey = subkey
        self.hint = hint


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _InvalidValue("must be a string in quotation marks")
    return value


def _base_url(value: Any) -> str:
    url = _text(value).strip().rstrip("/")
    if "@" in url:  # not quoted: there may be a password before it
        raise _InvalidValue("must not contain a user or password", hint="use DEDALUS_API_KEY")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise _InvalidValue("has an impossible host or port", hint=_BASE_URL_HINT) from None
    if parts.scheme not in ("http", "https") or not host:
        raise _InvalidValue("must begin with https:// and a host name", hint=_BASE_URL_HINT)
    if parse_host(host) is None or port == 0 or ("[" in url) != (":" in host):
        raise _InvalidValue(f"has an impossible host or port: {quote_server(url)}",
                            hint=_BASE_URL_HINT)  # fmt: skip
    if "?" in url or "#" in url or " " in url or not url.isprintable():
        raise _InvalidValue("must not contain ?, # or spaces", hint=_BASE_URL_HINT)
    # Every request carries the API key.
    if parts.scheme != "https" and host not in _LOOPBACK:
        raise _InvalidValue("must begin with https://", hint=_BASE_URL_HINT)
    return url


def _header_word(value: Any) -> str:
    text = _text(value)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _InvalidValue("must be printable ASCII without spaces")
    return text


def _path(value: Any) -> str:
    text = _text(value)
    if not text or not text.isprintable():
        raise _InvalidValue("must be the path of a file")
    path = os.path.expanduser(text)
    if not os.path.isabs(path):  # it would depend on the directory in which ssh runs
        raise _InvalidValue("must be a complete path, or begin with ~/")
    return os.path.abspath(path)


def _http_proxy(value: Any) -> HttpProxy:
    try:
        return parse_http_proxy(_text(value))
    except ValueError as error:
        raise _InvalidValue(str(error)) from None


def _seconds(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _InvalidValue(f"must be a whole number of seconds from {low} to {high}")
        return value

    return check


def _agent(value: Any) -> str:
    if value not in ("private", "user"):
        raise _InvalidValue('must be "private" or "user"')
    return str(value)


def _aliases(value: Any) -> dict[str, MachineName]:
    if not isinstance(value, dict):
        raise _InvalidValue('must be a table of dm-alias = "dm-machine"')
    aliases = {}
    for alias, machine in value.items():
        try:
            if not is_machine_name(alias):
                raise _InvalidValue("must look like a machine's name")
            aliases[alias] = parse_machine_name(_text(machine))
        except _InvalidValue as invalid:
            raise _InvalidValue(invalid.what, subkey=alias) from None
        except DcsError as error:
            raise _InvalidValue(f"is wrong: {error.message}", subkey=alias) from None
    return aliases


def _wake(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        return (("*", _policy(value)),)
    for pattern, policy in value.items():
        try:
            if not _NAME_PATTERN.match(pattern):
                raise _InvalidValue("is not a pattern of machine names")
            _policy(policy)
        except _InvalidValue as invalid:
            raise _InvalidValue(invalid.what, subkey=pattern, hint=invalid.hint) from None
    return tuple(value.items())


def _policy(value: Any) -> str:
    if value == "ask":  # a value of earlier versions
        raise _InvalidValue(
            'can no longer be "ask"',
            hint='write "never": if the machine is asleep, ssh then prints the command to wake it',
        )
    if value not in WAKE_POLICIES:
        raise _InvalidValue('must be "always" or "never"')
    return str(value)


def _listed(value: Any) -> tuple[str, ...]:
    if value in ("all", "none"):
        return ("*",) if value == "all" else ()
    if not isinstance(value, list):
        raise _InvalidValue('must be "all", "none" or a list of patterns of machine names')
    for pattern in value:
        if not isinstance(pattern, str) or not _NAME_PATTERN.match(pattern):
            raise _InvalidValue(f"{quote_typed(str(pattern))} is not a pattern of machine names")
    return tuple(value)


# The check of each setting returns the value to use, or raises _InvalidValue.
_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "base_url": _base_url,
    "org_id": _header_word,
    "key_file": _path,
    "proxy": _http_proxy,
    "ca_file": _path,
    "wake_seconds": _seconds(1, 3600),
    "reuse_seconds": _seconds(0, 3600),
    "connect_seconds": _seconds(1, 300),
    "agent": _agent,
    "aliases": _aliases,
    "wake": _wake,
    "listed": _listed,
}
