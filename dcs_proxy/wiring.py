"""Connect the parts: from options and environment to everything that a command works with."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dcs_proxy.agent import Agent
from dcs_proxy.api import Api, account
from dcs_proxy.client import client_id, wants_quiet
from dcs_proxy.credentials import load_credentials
from dcs_proxy.deadline import Deadline
from dcs_proxy.errors import AgentUnavailable
from dcs_proxy.log import VARIABLE, Log
from dcs_proxy.private_agent import ensure_private_agent
from dcs_proxy.progress import Progress
from dcs_proxy.readiness import await_guest
from dcs_proxy.resolve import World
from dcs_proxy.settings import Settings, config_path, load_settings
from dcs_proxy.state import StateDirectory, default_state_directory
from dcs_proxy.stderr import can_redraw
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
        """Return the config file that ssh has to name to us, None for the one found anyway."""
        chosen = self.config or environment.get("DCS_PROXY_CONFIG")
        return os.path.abspath(os.path.expanduser(chosen)) if chosen else None

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """Read the settings.  Raises ConfigError."""
        return load_settings(environment, self.config)


def open_log(options: Options, environment: Mapping[str, str]) -> Log:
    """Return the log of the state directory."""
    path = os.path.join(options.state_directory(environment), "log")
    return Log(path, environment.get(VARIABLE, ""))


def program_words() -> tuple[str, ...]:
    """Return how ssh is to start this very program: without site and user packages, at first."""
    start = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
    return (os.path.abspath(sys.executable), "-I", "-S", start)


def open_world(
    options: Options,
    environment: Mapping[str, str],
    client_gone: Callable[[], bool],
    *,
    settings: Settings | None = None,
) -> World:
    """Return the real world for one command.  Raises ConfigError, StateError, AgentUnavailable.

    Nothing slow happens here: the API and the agent are opened when they are first needed.
    """
    settings = settings or options.settings(environment)
    state = StateDirectory(options.state_directory(environment))
    log = open_log(options, environment)
    progress = Progress(is_quiet=wants_quiet(os.getppid()), in_place=can_redraw())
    deadline = Deadline(settings.wake_seconds, client_gone, progress.tick)
    private = settings.agent == "private"
    agent_path = state.agent_socket() if private else _user_agent(environment)

    def open_api() -> Api:
        credentials = load_credentials(environment, settings.key_file)
        return Api(settings, credentials, deadline, log, progress.notice)

    def open_agent() -> Agent:
        if not private:
            return Agent(agent_path, log=log)
        limit = min(_AGENT_START_S, deadline.remaining())
        lock = state.file("agent.lock")
        return ensure_private_agent(agent_path, lock, timeout_s=limit, log=log)

    return World(
        settings=settings,
        state=state,
        deadline=deadline,
        log=log,
        agent_path=agent_path,
        account=account(settings),
        client=client_id(os.getppid()),
        open_api=open_api,
        open_agent=open_agent,
        notice=progress.notice,
        progress=progress,
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
