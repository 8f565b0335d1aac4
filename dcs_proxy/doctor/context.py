"""The context that the checks share: what to check, and what earlier checks have found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from dcs_proxy.api.client import Probe
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import ApiFactory, Options, open_context, open_factory, open_log
from dcs_proxy.doctor.redact import secrets_in_url
from dcs_proxy.local.files import read_small
from dcs_proxy.local.log import Log
from dcs_proxy.local.programs import SECRET_VARIABLES, run
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.version import Client
from dcs_proxy.session.context import Context as SessionContext
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import ReadySession

T = TypeVar("T")

_SSH_S = 30
_BOOLEANS = {"true": "yes", "false": "no"}


@dataclass
class Context:
    """One run of the checks.

    `ssh_config` is the user's ssh config file, and `is_default_config` says that ssh reads it by
    default; `host` is the machine to log in to, or None.  Each later field is None until a check
    has found its value.
    """

    options: Options
    environment: Mapping[str, str]
    ssh_config: str
    is_default_config: bool
    host: str | None
    ssh: Client | None = None
    settings: Settings | None = None
    credentials: Credentials | None = None
    probe: Probe | None = None
    state: StateDirectory | None = None
    machine: MachineName | None = None
    session: ReadySession | None = None
    log: Log = field(init=False)

    def __post_init__(self) -> None:
        self.log = open_log(self.options, self.environment)

    def open_session_context(self) -> SessionContext:
        """Return the same context as when ssh runs us, with a new deadline.

        One difference: the API is always asked whether a session is still valid.  Raises
        ConfigError, StateError or AgentUnavailable.
        """
        settings = replace(required(self.settings), reuse_seconds=0)
        return open_context(self.options, self.environment, lambda: False, settings=settings)

    def open_session_context_of_ssh(self) -> SessionContext:
        """Return the context of an ssh that we start, without the API key in our environment.

        Raises as :meth:`open_session_context`.
        """
        environment = {k: v for k, v in self.environment.items() if k not in SECRET_VARIABLES}
        settings = required(self.settings)
        return open_context(self.options, environment, lambda: False, settings=settings)

    def open_factory(self) -> ApiFactory:
        """Return what opens the control plane."""
        return open_factory(self.options, self.environment, required(self.settings))

    def secrets(self) -> set[str]:
        """Return all known secrets, which must be masked wherever they occur."""
        secrets = {self.environment.get(name, "").strip() for name in SECRET_VARIABLES}
        for name, value in self.environment.items():
            if name.lower().endswith("_proxy") or name == "DEDALUS_BASE_URL":
                secrets |= secrets_in_url(value)
        if self.credentials is not None:
            secrets |= {self.credentials.bearer or "", self.credentials.api_key or ""}
        if self.settings is not None:
            key = read_small(self.settings.key_file, of_others=True) or b""
            secrets.add(key.decode("utf-8", "replace").strip())
            if self.settings.proxy is not None:
                secrets |= secrets_in_url(self.settings.proxy.url())
        return secrets

    def read_options(self, host: str, *, verbose: bool = False) -> tuple[dict[str, list[str]], str]:
        """Return the options that ``ssh -G`` prints, by lower-case name, and its stderr.

        There are no options if ssh fails.
        """
        command = self.ssh_command("-vG" if verbose else "-G", host)
        try:
            done = run(command, environment=self.environment, limit_s=_SSH_S)
        except TimeoutError:
            return {}, f"no answer after {_SSH_S} s"
        options: dict[str, list[str]] = {}
        lines = done.stdout.decode("utf-8", "replace").splitlines()
        for line in lines if done.status == 0 else ():
            option, _, value = line.partition(" ")
            options.setdefault(option, []).append(_BOOLEANS.get(value, value))
        return options, done.stderr.decode("utf-8", "replace")

    def ssh_command(self, *arguments: str) -> list[str]:
        """Return a command line of ssh that reads the user's ssh config."""
        file = [] if self.is_default_config else ["-F", self.ssh_config]
        return [required(self.ssh).path, *file, *arguments]


def required(value: T | None) -> T:
    """Return a value that an earlier check has found; this one runs only if that one passed."""
    if value is None:
        raise ValueError("a check ran before one that it needs")
    return value
