"""Wire the parts together: build what a command needs from the options and the environment."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from dcs_proxy.api.client import Api, account
from dcs_proxy.api.credentials import Credentials, load_credentials
from dcs_proxy.api.http import load_library
from dcs_proxy.api.keyring import SystemKeyring
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.console.progress import Progress
from dcs_proxy.console.stderr import can_draw, show
from dcs_proxy.errors import ConfigError, DcsError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.environment import config_base, full_path
from dcs_proxy.local.limits import explain_shortage, require_open_files
from dcs_proxy.local.log import VARIABLE, Log, milliseconds_since
from dcs_proxy.local.settings import Settings, config_path, load_settings
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.ancestors import find_advice, is_run_by_ansible
from dcs_proxy.openssh.config_text import Program
from dcs_proxy.openssh.parent import wants_quiet
from dcs_proxy.publish.fast_entry import FastEntry
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory, default_state_directory
from dcs_proxy.session.lookup import Lookup
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.private_agents import PrivateAgents
from dcs_proxy.ssh.user_agent import UserAgent

_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
# Time to notice the keyring's window and type a password.  Editors give up on ssh soon after 15 s.
_KEYRING_IN_SSH_S = 15
_KEYRING_S = 120


@dataclass(frozen=True)
class Options:
    """The options of every command: `home` and `config` as typed, None if not given."""

    home: str | None = None
    config: str | None = None

    def state_directory(self, environment: Mapping[str, str]) -> str:
        """Return the state directory's path."""
        if self.home is not None:
            return full_path(self.home)
        return default_state_directory(environment)

    def config_file(self, environment: Mapping[str, str]) -> str | None:
        """Return the config file that the ssh config must name, None for the default one."""
        chosen = self.config or environment.get("DCS_PROXY_CONFIG")
        return full_path(chosen) if chosen else None

    def settings(self, environment: Mapping[str, str]) -> Settings:
        """Read the settings.  Raises ConfigError."""
        return load_settings(environment, self.config)


def show_notice(text: str) -> None:
    """Show the user a line on stderr."""
    show(f"dcs-proxy: {text}")


@dataclass(frozen=True)
class ApiFactory:
    """Opens the control plane of `settings` with the user's API key.

    `environment` may contain the key.  `known` has the ids of the account's machines.
    `credentials` is set if the key has been read already.  `notice` shows the user a line.
    """

    settings: Settings
    environment: Mapping[str, str]
    log: Log
    known: KnownMachines
    notice: Callable[[str], None] = show_notice
    credentials: Credentials | None = None

    def find_credentials(self, deadline: Deadline) -> Credentials:
        """Return the API key, wherever it is stored.  Raises CredentialsError or ClientGone."""
        if self.credentials is not None:
            return self.credentials
        keyring = SystemKeyring(
            self.settings.base_url, self.environment, deadline, _KEYRING_IN_SSH_S, self.notice,
            meanwhile=load_library,
        )  # fmt: skip
        found = load_credentials(self.environment, self.settings.key_file, keyring.read)
        self.log.event("key", source=found.source)
        return found

    def open(self, deadline: Deadline) -> Api:
        """Return the control plane.  Raises CredentialsError or ClientGone."""
        credentials = self.find_credentials(deadline)
        return Api(self.settings, credentials, deadline, self.log, self.notice, self.known)


def open_factory(
    options: Options, environment: Mapping[str, str], settings: Settings
) -> ApiFactory:
    """Return the factory that opens the control plane of `settings` for one command."""
    known = open_known(options, environment, settings)
    return ApiFactory(settings, environment, open_log(options, environment), known)


def open_known(
    options: Options, environment: Mapping[str, str], settings: Settings
) -> KnownMachines:
    """Return the machines of the account that the state directory has on record."""
    return KnownMachines(options.state_directory(environment), account(settings))


def internal_error(error: Exception, log: Log) -> DcsError:
    """Log the traceback of an unexpected exception; return an error to show in its place."""
    from dcs_proxy.local.packages import why_unusable  # only needed after a failure

    with contextlib.suppress(MemoryError):
        log.traceback(error)
    if (shortage := explain_shortage(error)) is not None:
        return shortage
    if why := why_unusable(error):
        hint = "install dcs-proxy again, then run dcs-proxy config-ssh"
        return ConfigError(why, hint=hint)
    return DcsError(
        f"internal error ({type(error).__name__}); this is a bug in dcs-proxy",
        hint=f"report it with the last lines of {log.path}",
    )


@contextlib.contextmanager
def explaining_bugs(options: Options) -> Iterator[None]:
    """Turn an unexpected exception into a DcsError that reports a bug."""
    try:
        yield
    except DcsError:
        raise
    except Exception as error:
        raise internal_error(error, open_log(options, os.environ)) from None


def open_log(options: Options, environment: Mapping[str, str]) -> Log:
    """Return the log of the state directory; it is off if that directory has no valid path."""
    try:
        path = os.path.join(options.state_directory(environment), "log")
    except DcsError:
        return Log("", "off")
    return Log(path, environment.get(VARIABLE, ""))


def log_failure(error: DcsError, options: Options, environment: Mapping[str, str]) -> None:
    """Log an error once.

    Call this before the client learns of the error: some clients then kill their ProxyCommand.
    """
    if not error.was_logged:
        open_log(options, environment).event(
            "failed", machine=error.machine, code=error.exit_code, what=error.summary(),
            ms=milliseconds_since(),
        )  # fmt: skip
        error.was_logged = True


def find_program(options: Options, environment: Mapping[str, str]) -> Program:
    """Return how ssh must start this program, with its current paths.

    Raises ConfigError if the ssh config cannot contain one of the paths.
    """
    return Program(
        program_words(),
        options.state_directory(environment),
        options.config_file(environment),
        config_base(environment),
    )


def program_words() -> tuple[str, ...]:
    """Return the command line that starts this program.

    Python runs isolated (-I) and, until the full program needs them, without packages (-S).
    """
    start = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
    return (os.path.abspath(sys.executable), "-I", "-S", start)


def _open_progress(parent: int, environment: Mapping[str, str], settings: Settings) -> Progress:
    in_place = can_draw()
    # Output in VS Code's own terminal keeps VS Code from giving up.
    advice = "" if in_place else find_advice(parent, environment, settings.wake_seconds)
    # Ansible shows ssh's stderr only after a failure, which progress does not explain.
    is_quiet = wants_quiet(parent) or (not in_place and is_run_by_ansible(parent))
    return Progress(is_quiet=is_quiet, in_place=in_place, advice=advice)


def open_context(
    options: Options,
    environment: Mapping[str, str],
    client_gone: Callable[[], bool],
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    credentials: Credentials | None = None,
) -> Context:
    """Return the context of one command.  Raises ConfigError, StateError or AgentUnavailable.

    `progress` shows a wake; the default is as quiet as the parent ssh.  Nothing slow happens here:
    the API is opened, and an agent started, on first use.
    """
    require_open_files()
    settings = settings or options.settings(environment)
    state = StateDirectory(options.state_directory(environment))
    log = open_log(options, environment)
    parent = os.getppid()
    progress = progress or _open_progress(parent, environment, settings)
    deadline = Deadline(settings.wake_seconds, client_gone, progress.tick)
    known = KnownMachines(state.path, account(settings))
    factory = ApiFactory(settings, environment, log, known, progress.notice, credentials)
    is_users = settings.agent == "user"
    config = options.config or config_path(environment)
    return Context(
        settings=settings,
        state=state,
        deadline=deadline,
        log=log,
        agents=UserAgent(environment, log) if is_users else PrivateAgents(state.path, log),
        account=account(settings),
        parent=parent,
        open_api=functools.cache(lambda: factory.open(deadline)),
        notice=progress.notice,
        progress=progress,
        await_guest=functools.partial(_await_guest, settings, state, deadline, log, config),
        now=time.time,
    )


def _await_guest(
    settings: Settings,
    state: StateDirectory,
    deadline: Deadline,
    log: Log,
    config: str,
    name: MachineName,
    record: Record,
) -> None:
    from dcs_proxy.publish.guest import await_guest  # only a wake pays for the import

    command = _proxy_command(record, settings, state, config)
    await_guest(state, name, record, deadline, log, command)


def open_lookup(context: Context) -> Lookup:
    """Return the lookup of machines by the names that users type."""
    known = KnownMachines(context.state.path, context.account)
    return Lookup(context.settings, known, lambda: context.open_api().list_machines())


def _proxy_command(
    record: Record, settings: Settings, state: StateDirectory, config: str
) -> str | None:
    """Return the ProxyCommand that reaches the endpoint, None if ssh can connect to it."""
    ready = record.ready
    if ready is None or settings.proxy_to(ready.endpoint) is None:
        return None
    words = (os.path.abspath(sys.executable), "-I", _MAIN)
    program = Program(words, state.path, os.path.abspath(config))
    return program.command("dial", ready.endpoint, str(ready.port))


def open_keyring(settings: Settings, environment: Mapping[str, str]) -> SystemKeyring:
    """Return the system keyring for a command whose user can unlock it."""
    deadline = Deadline(_KEYRING_S)
    return SystemKeyring(settings.base_url, environment, deadline, _KEYRING_S, show_notice)


def open_fast_entry(
    options: Options,
    environment: Mapping[str, str],
    settings: Settings,
    state: StateDirectory,
) -> FastEntry:
    """Return the writer of the files that make the next ssh warm."""
    path = options.config or config_path(environment)
    return FastEntry(state, settings, environment, path)
