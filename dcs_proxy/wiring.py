"""Connect the parts: from options and environment to everything that a command works with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dcs_proxy.agent import Agent
from dcs_proxy.api import Api, account
from dcs_proxy.client import client_id
from dcs_proxy.credentials import load_credentials
from dcs_proxy.deadline import Deadline
from dcs_proxy.errors import AgentUnavailable
from dcs_proxy.log import Log
from dcs_proxy.private_agent import ensure_private_agent
from dcs_proxy.readiness import await_guest
from dcs_proxy.resolve import World
from dcs_proxy.settings import Settings, config_path, load_settings
from dcs_proxy.state import StateDirectory, default_state_directory
from dcs_proxy.stderr import show
from dcs_proxy.terminal import Terminal
from dcs_proxy.warm import Warmth

_AGENT_START_S = 20.0


@dataclass(frozen=True)
class Options:
    """What every command line may say: `home` and `config` as given there, or None."""

    home: str | None = None
    config: str | None = None

    def state_directory(self, environment: Mapping[str, str]) -> str:
        """Return the state directory's path."""
        if self.home is not None:
            return os.path.abspath(self.home)
        return default_state_directory(environment)

    def config_file(self, environment: Mapping[str, str]) -> str | None:
        """Return the config file that the user chose; None where it is the default one."""
        chosen = self.config or environment.get("DCS_PROXY_CONFIG")
        return os.path.abspath(os.path.expanduser(chosen)) if chosen else None

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """Read the settings.  Raises ConfigError."""
        return load_settings(environment, self.config)


def log_path(state_directory: str) -> str:
    """Return where the log of a state directory is."""
    return os.path.join(state_directory, "log")


def open_world(
    options: Options,
    environment: Mapping[str, str],
    client_gone: Callable[[], bool],
    *,
    settings: Settings | None = None,
    notice: Callable[[str], None] | None = None,
) -> World:
    """Return the real world for one command.  Raises ConfigError, StateError, AgentUnavailable.

    `notice` shows the user a line, on stderr unless given.  Nothing slow happens here: the API and
    the agent are opened when they are first needed.
    """
    notice = notice or _notice
    settings = settings or options.settings(environment)
    state = StateDirectory(options.state_directory(environment))
    log = Log(log_path(state.path))
    deadline = Deadline(settings.wake_seconds, client_gone)
    private = settings.agent == "private"
    agent_path = state.agent_socket() if private else _user_agent(environment)

    def open_agent() -> Agent:
        if not private:
            return Agent(agent_path)
        limit = min(_AGENT_START_S, deadline.remaining())
        return ensure_private_agent(agent_path, state.file("agent.lock"), timeout_s=limit)

    return World(
        settings=settings,
        state=state,
        deadline=deadline,
        log=log,
        agent_path=agent_path,
        account=account(settings),
        client=client_id(os.getppid()),
        open_api=lambda: Api(
            settings, load_credentials(environment, settings.key_file), deadline, log, notice
        ),
        open_agent=open_agent,
        notice=notice,
        terminal=Terminal(client_gone),
        await_guest=lambda name, record: await_guest(state, name, record, deadline, log),
        now=time.time,
    )


def open_warmth(
    options: Options,
    environment: Mapping[str, str],
    settings: Settings,
    state: StateDirectory,
) -> Warmth:
    """Return what keeps sessions warm for ssh's next start."""
    path = options.config or config_path(environment)
    return Warmth(state, settings, environment, options.config or "", path)


def _user_agent(environment: Mapping[str, str]) -> str:
    path = environment.get("SSH_AUTH_SOCK", "")
    if not path:
        raise AgentUnavailable(
            'the config file has agent = "user", and SSH_AUTH_SOCK is not set',
            hint="start an agent, or remove that line to use the private one",
        )
    return path


def _notice(text: str) -> None:
    show(f"dcs-proxy: {text}")
