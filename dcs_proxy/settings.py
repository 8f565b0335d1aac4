"""The config file and the environment: what the user has set, checked before anything runs.

The file is TOML, by default ``$XDG_CONFIG_HOME/dcs-proxy/config.toml``; no file means defaults.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from dcs_proxy.errors import ConfigError, DcsError, clean_text, quote_server
from dcs_proxy.names import MachineName, is_machine_name, matches, parse_machine_name

DEFAULT_BASE_URL = "https://dcs.dedaluslabs.ai"
WAKE_POLICIES = ("always", "ask", "never")
_NAME_PATTERN = re.compile(r"[a-z0-9*?-]+\Z")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True)
class Settings:
    """Everything a user can set; the defaults are the documented ones.

    `base_url` has no trailing slash; times are seconds; `agent` is "private" or "user";
    `destination_constraint` asks the agent to use the certificate towards the gateway only;
    `wake` holds pairs of a pattern of machine names and a policy, in the order of the file.
    """

    base_url: str = DEFAULT_BASE_URL
    org_id: str = ""
    key_file: str = ""
    wake_seconds: int = 300
    reuse_seconds: int = 60
    connect_seconds: int = 10
    agent: str = "private"
    destination_constraint: bool = True
    aliases: Mapping[str, MachineName] = field(default_factory=dict)
    wake: Sequence[tuple[str, str]] = ()

    def machine(self, host: str) -> MachineName:
        """Return the machine that `host` names, directly or as an alias.  Raises UsageError."""
        return self.aliases.get(host) or parse_machine_name(host)

    def aliases_of(self, name: MachineName) -> list[str]:
        """Return the machine's aliases, in the order of the file."""
        return [alias for alias, machine in self.aliases.items() if machine == name]

    def wake_policy(self, name: MachineName) -> str:
        """Return whether ssh may wake the machine: "always", "ask" or "never".

        The first pattern that matches its name or one of its aliases decides.
        """
        for pattern, policy in self.wake:
            if any(matches(pattern, known) for known in (name, *self.aliases_of(name))):
                return policy
        return WAKE_POLICIES[0]

    @property
    def is_loopback(self) -> bool:
        """Whether the API is on this computer."""
        return urlsplit(self.base_url).hostname in _LOOPBACK


def config_path(environment: Mapping[str, str]) -> str:
    """Return where the config file is, or would be."""
    if chosen := environment.get("DCS_PROXY_CONFIG"):
        return os.path.abspath(os.path.expanduser(chosen))
    return os.path.join(_config_home(environment), "config.toml")


def load_settings(environment: Mapping[str, str], path: str | None = None) -> Settings:
    """Read the config file at `path` (or where it is by default) under the environment's values.

    Raises ConfigError naming the file and the key, or the environment variable.
    """
    chosen = path is not None or "DCS_PROXY_CONFIG" in environment
    path = path or config_path(environment)
    settings = _from_table(_read_table(path, must_exist=chosen), path)
    if not settings.key_file:
        settings = replace(settings, key_file=os.path.join(_config_home(environment), "api-key"))
    if url := environment.get("DEDALUS_BASE_URL"):
        settings = replace(settings, base_url=_base_url(url, "DEDALUS_BASE_URL"))
    if org := environment.get("DEDALUS_ORG_ID"):
        settings = replace(settings, org_id=_header_word(org, "DEDALUS_ORG_ID"))
    if policy := environment.get("DCS_PROXY_WAKE"):
        settings = replace(settings, wake=_wake(policy, "DCS_PROXY_WAKE"))
    return settings


def _config_home(environment: Mapping[str, str]) -> str:
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "dcs-proxy")


def _read_table(path: str, *, must_exist: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"the config file {path} does not exist") from None
        return {}
    except OSError as error:
        raise ConfigError(f"the config file {path} cannot be read: {error.strerror}") from None
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:
        raise ConfigError(f"{path}: {clean_text(str(error))}") from None


def _from_table(table: Mapping[str, Any], path: str) -> Settings:
    known = {f.name for f in fields(Settings)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        where = f"{path}: {clean_text(key, 40)}"
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ConfigError(
                f"{where} is not a setting", hint=f"did you mean {near[0]}?" if near else ""
            )
        values[key] = _CHECKS[key](value, where)
    return Settings(**values)


def _base_url(value: Any, where: str) -> str:
    url = _text(value, where).rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.query or parts.fragment or parts.username or not url.isprintable():
        raise ConfigError(f"{where} is not the base URL of an API")
    # The API key travels with every request.
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise ConfigError(f"{where} must begin with https://")
    return url


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be a text in quotation marks")
    return value


def _header_word(value: Any, where: str) -> str:
    text = _text(value, where)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ConfigError(f"{where} must be one printable word")
    return text


def _path(value: Any, where: str) -> str:
    return os.path.abspath(os.path.expanduser(_text(value, where)))


def _seconds(low: int, high: int) -> Callable[[Any, str], int]:
    def check(value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{where} must be a whole number of seconds from {low} to {high}")
        return value

    return check


def _agent(value: Any, where: str) -> str:
    if value not in ("private", "user"):
        raise ConfigError(f'{where} must be "private" or "user"')
    return str(value)


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where} must be true or false")
    return value


def _aliases(value: Any, where: str) -> dict[str, MachineName]:
    if not isinstance(value, dict):
        raise ConfigError(f'{where} must be a table of dm-alias = "dm-machine"')
    aliases = {}
    for alias, machine in value.items():
        if not is_machine_name(alias):
            raise ConfigError(f"{where}: {quote_server(alias)} must look like a machine's name")
        try:
            aliases[alias] = parse_machine_name(_text(machine, f"{where}.{alias}"))
        except DcsError as error:
            raise ConfigError(f"{where}.{alias}: {error.message}") from None
    return aliases


def _wake(value: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        return (("*", _policy(value, where)),)
    for pattern in value:
        if not _NAME_PATTERN.match(pattern):
            raise ConfigError(f"{where}: {quote_server(pattern)} is no pattern of machine names")
    return tuple((key, _policy(policy, f"{where}.{key}")) for key, policy in value.items())


def _policy(value: Any, where: str) -> str:
    if value not in WAKE_POLICIES:
        raise ConfigError(f'{where} must be "always", "ask" or "never"')
    return str(value)


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "base_url": _base_url,
    "org_id": _header_word,
    "key_file": _path,
    "wake_seconds": _seconds(1, 3600),
    "reuse_seconds": _seconds(0, 3600),
    "connect_seconds": _seconds(1, 300),
    "agent": _agent,
    "destination_constraint": _boolean,
    "aliases": _aliases,
    "wake": _wake,
}
