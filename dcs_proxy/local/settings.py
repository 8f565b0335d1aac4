"""The config file and the environment: what the user has set, checked before anything runs.

The file is TOML, by default ``$XDG_CONFIG_HOME/dcs-proxy/config.toml``; no file means defaults.
Every setting is one field of :class:`Settings`, with its check and its meaning; README, the man
page and this module's messages all come from there.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any
from urllib.parse import urlsplit

from dcs_proxy.errors import ConfigError, DcsError, clean_text
from dcs_proxy.local import tomlfile
from dcs_proxy.local.http_proxy import HttpProxy, parse_http_proxy
from dcs_proxy.names import MachineName, is_machine_name, matches, parse_machine_name

DEFAULT_BASE_URL = "https://dcs.dedaluslabs.ai"
WAKE_POLICIES = ("always", "never")
_NAME_PATTERN = re.compile(r"[a-z0-9*?-]+\Z")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class _Unfit(Exception):
    """A value that a setting cannot have.

    `what` completes "KEY …", `below` the key, `hint` says what to write instead (may be empty).
    """

    def __init__(self, what: str, below: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.below = below
        self.hint = hint


@dataclass(frozen=True)
class SettingRow:
    """What a manual says about one setting; `values` and `default` as they stand in the file.

    `default` is "" where the setting is not set at all unless the user does so.
    """

    key: str
    values: str
    default: str
    meaning: str


@dataclass(frozen=True)
class _Described:
    """What a field of Settings carries: its check raises _Unfit, or returns what is kept."""

    check: Callable[[Any], Any]
    values: str
    default: str
    meaning: str


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Unfit("must be a text in quotation marks")
    return value


def _base_url(value: Any) -> str:
    url = _text(value).rstrip("/")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.query or parts.fragment or parts.username or not url.isprintable():
        raise _Unfit("is not the base URL of an API")
    # The API key travels with every request.
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise _Unfit("must begin with https://")
    return url


def _header_word(value: Any) -> str:
    text = _text(value)
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _Unfit("must be one printable word")
    return text


def _path(value: Any) -> str:
    return os.path.abspath(os.path.expanduser(_text(value)))


def _http_proxy(value: Any) -> HttpProxy:
    try:
        return parse_http_proxy(_text(value))
    except ValueError:  # the value may hold a password
        raise _Unfit('must be "http://host:port" or "http://user:password@host:port"') from None


def _seconds(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise _Unfit(f"must be a whole number of seconds from {low} to {high}")
        return value

    return check


def _agent(value: Any) -> str:
    if value not in ("private", "user"):
        raise _Unfit('must be "private" or "user"')
    return str(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Unfit("must be true or false")
    return value


def _aliases(value: Any) -> dict[str, MachineName]:
    if not isinstance(value, dict):
        raise _Unfit('must be a table of dm-alias = "dm-machine"')
    aliases = {}
    for alias, machine in value.items():
        try:
            if not is_machine_name(alias):
                raise _Unfit("must look like a machine's name")
            aliases[alias] = parse_machine_name(_text(machine))
        except _Unfit as unfit:
            raise _Unfit(unfit.what, below=alias) from None
        except DcsError as error:
            raise _Unfit(f"is wrong: {error.message}", below=alias) from None
    return aliases


def _wake(value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        return (("*", _policy(value)),)
    for pattern, policy in value.items():
        try:
            if not _NAME_PATTERN.match(pattern):
                raise _Unfit("is no pattern of machine names")
            _policy(policy)
        except _Unfit as unfit:
            raise _Unfit(unfit.what, below=pattern, hint=unfit.hint) from None
    return tuple(value.items())


def _policy(value: Any) -> str:
    if value == "ask":  # a value of earlier versions
        raise _Unfit(
            'can no longer be "ask"',
            hint='write "never": if the machine is asleep, ssh then prints the command to wake it',
        )
    if value not in WAKE_POLICIES:
        raise _Unfit('must be "always" or "never"')
    return str(value)


def _setting(
    check: Callable[[Any], Any], values: str, default: str, meaning: str
) -> dict[str, _Described]:
    """Return the metadata of a field of Settings."""
    return {"setting": _Described(check, values, default, meaning)}


@dataclass(frozen=True)
class Settings:
    """Everything a user can set; the defaults are the documented ones.

    `base_url` has no trailing slash; `key_file` is "" only in settings that were not loaded;
    `wake` holds pairs of a pattern of machine names and a policy, in the order of the file.
    """

    base_url: str = field(
        default=DEFAULT_BASE_URL,
        metadata=_setting(
            _base_url,
            "URL",
            f'"{DEFAULT_BASE_URL}"',
            "Where the API is. It begins with https:// (on this very computer http:// will do).",
        ),
    )
    org_id: str = field(
        default="",
        metadata=_setting(
            _header_word,
            "word",
            "",
            "The organisation that the API key belongs to, sent as X-Dedalus-Org-Id.",
        ),
    )
    key_file: str = field(
        default="",
        metadata=_setting(
            _path,
            "path",
            '"~/.config/dcs-proxy/api-key"',
            "The file with the API key. It must be yours, and unreadable for others (mode 0600).",
        ),
    )
    proxy: HttpProxy | None = field(
        default=None,
        metadata=_setting(
            _http_proxy,
            '"http://host:port"',
            "",
            "The HTTP proxy that leads to the API and, by CONNECT, to the gateway: for programs"
            " that have no environment. It may give a user and a password"
            " (http://user:password@host:port); then others must not be able to read the config"
            " file. An API and a gateway on this very computer are reached without it.",
        ),
    )
    wake_seconds: int = field(
        default=300,
        metadata=_setting(
            _seconds(1, 3600),
            "1 to 3600",
            "300",
            "How long a machine may take until it is ready.",
        ),
    )
    reuse_seconds: int = field(
        default=60,
        metadata=_setting(
            _seconds(0, 3600),
            "0 to 3600",
            "60",
            "How long a session is used without asking the API whether it is still good.",
        ),
    )
    connect_seconds: int = field(
        default=10,
        metadata=_setting(
            _seconds(1, 300),
            "1 to 300",
            "10",
            "The limit for each address of the gateway.",
        ),
    )
    agent: str = field(
        default="private",
        metadata=_setting(
            _agent,
            '"private" or "user"',
            '"private"',
            "Which ssh-agent lends the certificates: one of the program's own, or the user's, which"
            " SSH_AUTH_SOCK names.",
        ),
    )
    destination_constraint: bool = field(
        default=True,
        metadata=_setting(
            _boolean,
            "true or false",
            "true",
            "Bind certificates to the gateway, where the agent can. asyncssh and paramiko need"
            " false.",
        ),
    )
    aliases: Mapping[str, MachineName] = field(
        default_factory=dict,
        metadata=_setting(
            _aliases,
            'dm-alias = "dm-machine"',
            "",
            "A table of friendlier names, which work wherever a machine's name does.",
        ),
    )
    wake: Sequence[tuple[str, str]] = field(
        default=(("*", WAKE_POLICIES[0]),),
        metadata=_setting(
            _wake,
            '"always" or "never"',
            '"always"',
            "Whether ssh may wake a machine that sleeps. A table [wake] says it by patterns of"
            ' names and aliases, such as "dm-ci-*" = "never": the first that matches counts.'
            " DCS_PROXY_WAKE overrides it for one run.",
        ),
    )

    def machine(self, host: str) -> MachineName:
        """Return the machine that `host` names, directly or as an alias.  Raises UsageError."""
        return self.aliases.get(host) or parse_machine_name(host)

    def proxy_to(self, host: str | None) -> HttpProxy | None:
        """Return the proxy that leads to `host`, None where the way is direct.

        A proxy has no way to this very computer.
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
            if any(matches(pattern, known) for known in (name, *self.aliases_of(name))):
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


_DESCRIBED: Mapping[str, _Described] = {f.name: f.metadata["setting"] for f in fields(Settings)}


# What the environment says goes before the file.
_VARIABLES = {"base_url": "DEDALUS_BASE_URL", "org_id": "DEDALUS_ORG_ID", "wake": "DCS_PROXY_WAKE"}


def describe_settings() -> list[SettingRow]:
    """Return every setting, in the order of the manual."""
    return [SettingRow(key, d.values, d.default, d.meaning) for key, d in _DESCRIBED.items()]


def config_path(environment: Mapping[str, str]) -> str:
    """Return where the config file is, or would be."""
    if chosen := environment.get("DCS_PROXY_CONFIG"):
        return os.path.abspath(os.path.expanduser(chosen))
    return os.path.join(_config_home(environment), "config.toml")


def load_settings(environment: Mapping[str, str], path: str | None = None) -> Settings:
    """Read the config file at `path` (or where it is by default) under the environment's values.

    Raises ConfigError naming the file, the line and the key, or the environment variable.
    """
    chosen = path is not None or "DCS_PROXY_CONFIG" in environment
    path = path or config_path(environment)
    settings = _read(path, must_exist=chosen)
    if not settings.key_file:
        settings = replace(settings, key_file=os.path.join(_config_home(environment), "api-key"))
    for key, variable in _VARIABLES.items():
        if value := environment.get(variable):
            try:
                settings = replace(settings, **{key: _DESCRIBED[key].check(value)})
            except _Unfit as unfit:
                raise ConfigError(f"{variable} {unfit.what}", hint=unfit.hint) from None
    return settings


def _config_home(environment: Mapping[str, str]) -> str:
    home = environment.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, "dcs-proxy")


def _read(path: str, *, must_exist: bool) -> Settings:
    try:
        with open(path, "rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except FileNotFoundError:
        if must_exist:
            raise ConfigError(f"the config file {path} does not exist") from None
        return Settings()
    except OSError as error:
        raise ConfigError(f"the config file {path} cannot be read: {error.strerror}") from None
    try:
        text = data.decode()
        table = tomlfile.parse(text)
    except ValueError as error:
        raise ConfigError(f"{path}: {clean_text(str(error))}") from None
    settings = _from_table(table, text, path)
    if settings.proxy is not None and settings.proxy.password and mode & 0o077:
        raise ConfigError(
            f"the config file {path} holds the proxy's password and can be read by others",
            hint=f"chmod 600 {path}",
        )
    return settings


def _from_table(table: Mapping[str, Any], text: str, path: str) -> Settings:
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _DESCRIBED:
            place = _place(path, text, [key])
            raise ConfigError(f"{place} is not a setting", hint=_nearest(key))
        try:
            values[key] = _DESCRIBED[key].check(value)
        except _Unfit as unfit:
            place = _place(path, text, [key, unfit.below] if unfit.below else [key])
            raise ConfigError(f"{place} {unfit.what}", hint=unfit.hint) from None
    return Settings(**values)


def _place(path: str, text: str, keys: list[str]) -> str:
    """Return ``FILE:LINE: KEY``, as compilers and editors know it."""
    return f"{path}:{tomlfile.line_of(text, keys)}: {clean_text('.'.join(keys), 80)}"


def _nearest(key: str) -> str:
    """Return the hint for a key that is none."""
    near = difflib.get_close_matches(key.lower().replace("-", "_"), _DESCRIBED, 1)
    return f"did you mean {near[0]}?" if near else f"the settings are {', '.join(_DESCRIBED)}"
