"""``dcs-proxy uninstall``: remove everything that the program has written on this computer.

The blocks in the ssh config are removed first, because with them ssh needs the other files.  If the
API does not answer, sessions are left to expire.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from dataclasses import replace

from dcs_proxy.api.credentials import remove_key_file
from dcs_proxy.api.keyring import SystemKeyring
from dcs_proxy.app import Options, open_factory, open_keyring
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands.close import Closer, remove_identity
from dcs_proxy.console.confirm import confirm
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put_or_show
from dcs_proxy.doctor.editors import settings_with_machines
from dcs_proxy.errors import (
    AgentRefused,
    AgentUnavailable,
    ConfigError,
    CredentialsError,
    DcsError,
    KeyringUnusable,
    StateError,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.environment import full_path
from dcs_proxy.local.files import remove_file
from dcs_proxy.local.settings import Settings, config_home
from dcs_proxy.openssh import config_file
from dcs_proxy.session.directory import StateDirectory, read_ssh_configs
from dcs_proxy.session.removal import remove_sockets, remove_state
from dcs_proxy.ssh.private_agents import PrivateAgents

HELP = "remove everything dcs-proxy has written"
DESCRIPTION = (
    "Remove the blocks from every ssh config that config-ssh has written, close the sessions, end "
    "the private agents and delete the state directory. Then, after asking, remove the API key "
    "from the system keyring, the key file and the config file. If the API does not answer, the "
    "sessions are left to expire. Remove the program itself the way it was installed, for example "
    "with pipx uninstall."
)
EXAMPLES = (("The API key and the config file too, without asking", "dcs-proxy uninstall --yes"),)

_KEY_FILE = "api-key"
_CONFIG_FILES = ("config.toml", _KEY_FILE)
# Enough to find out whether the API answers.
_API_S = 5.0
_AGENTS_S = 30.0
_COMPLETIONS = (
    "~/.local/share/bash-completion/completions/dcs-proxy",
    "~/.zfunc/_dcs-proxy",
    "~/.config/fish/completions/dcs-proxy.fish",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--ssh-config", metavar="FILE", action="append", default=[],
        help="an ssh config that config-ssh wrote but has no record of; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--yes", action="store_true", help="remove the API key and the config file without asking"
    )


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Remove everything.  Raises ConfigError if a block cannot be removed, before all else."""
    home = options.state_directory(os.environ)
    named = [full_path(each) for each in arguments.ssh_config]
    default = os.path.expanduser(config_file.DEFAULT_PATH)
    for path in dict.fromkeys([default, *named, *read_ssh_configs(home)]):
        if config_file.edit(path, lambda old: old and config_file.remove(old)):
            _say(f"{path}: block removed")
        elif path in named:
            _say(f"{path}: there was no block")
    settings = _settings(options)
    code = 0
    try:
        _remove_state(home, settings, options)
    except StateError as error:
        show(*error.lines())
        code = error.exit_code
    _remove_choices(settings, agreed=arguments.yes)
    _report_others(settings, options)
    return code


def _say(text: str) -> None:
    put_or_show(f"dcs-proxy: {text}")


def _settings(options: Options) -> Settings | None:
    """Return the settings, None if they cannot be read."""
    try:
        return options.settings(os.environ)
    except ConfigError as error:
        show(*error.lines())
        return None


def _remove_state(home: str, settings: Settings | None, options: Options) -> None:
    """Close the sessions, end the agents, remove the files.  Raises StateError."""
    if not os.path.isdir(home):
        _say(f"{home}: does not exist")
        return
    state = StateDirectory(home)
    agents = PrivateAgents(home)
    if settings is not None:
        _close_sessions(state, agents, settings, options)
    _end_agents(agents)
    left = remove_state(home) + (remove_sockets(agents.place) if agents.is_outside(home) else [])
    if left:
        _say(f"{home}: the files of dcs-proxy removed")
        _say(f"left, because dcs-proxy did not create them: {', '.join(left)}")
    else:
        _say(f"{home}: removed")


def _close_sessions(
    state: StateDirectory, agents: PrivateAgents, settings: Settings, options: Options
) -> None:
    names = state.machines()
    if not names:
        return
    factory = open_factory(options, os.environ, settings)
    try:
        refusal = replace(factory, notice=lambda _text: None).open(Deadline(_API_S)).probe().refusal
        if refusal is not None:
            raise refusal
    except DcsError as error:
        for name in names:  # the private agents end anyway, but not the user's own
            record = state.load(name)
            with contextlib.suppress(AgentRefused, AgentUnavailable):
                if record is not None:
                    remove_identity(record)
        noun = "session was" if len(names) == 1 else "sessions were"
        _say(f"{len(names)} {noun} not closed at the API and will expire ({error.message})")
        return
    try:
        Batch(names, Closer(state, factory, agents.holders()).close).run()
    except DcsError as error:  # stdout cannot be written
        show(*error.lines())


def _end_agents(agents: PrivateAgents) -> None:
    count = len(agents.paths())
    if not count:
        return
    noun = "private agent" if count == 1 else "private agents"
    try:
        left = agents.end(unless_used=False, timeout_s=_AGENTS_S)
    except AgentUnavailable as error:
        show(*error.lines())
        return
    _say(f"{count - len(left)} {noun} ended")
    if left:
        _say(f"left: the agents at {', '.join(left)}, which did not end")


def _remove_choices(settings: Settings | None, *, agreed: bool) -> None:
    """Remove what the user has entered, after asking: the API key, settings and aliases."""
    keyring = None if settings is None else open_keyring(settings, os.environ)
    in_keyring = keyring is not None and _has_key(keyring)
    directory = config_home(os.environ)
    files = [os.path.join(directory, name) for name in _CONFIG_FILES]
    files = [path for path in files if os.path.lexists(path)]
    found = [*(["the API key in the system keyring"] if in_keyring else []), *files]
    if not found:
        return
    if agreed or (answer := confirm(f"remove {', '.join(found)} too?")):
        if keyring is not None and in_keyring:
            keyring.remove()
            _say("the API key was removed from the system keyring")
        for path in files:
            if os.path.basename(path) == _KEY_FILE:
                remove_key_file(path)
            else:
                remove_file(path)
            _say(f"{path}: removed")
    else:
        hint = " (to remove it: dcs-proxy uninstall --yes)" if answer is None else ""
        _say(f"left: {', '.join(found)}{hint}")
    with contextlib.suppress(OSError):
        os.rmdir(directory)


def _has_key(keyring: SystemKeyring) -> bool:
    try:
        return keyring.read() is not None
    except KeyringUnusable:
        return False
    except CredentialsError as error:
        _say(f"left: the API key in the system keyring, if there is one: {error.message}")
        return False


def _report_others(settings: Settings | None, options: Options) -> None:
    """Report files in other places, and those that the user has created with our help."""
    directory = config_home(os.environ)
    chosen = [options.config_file(os.environ), settings.key_file if settings else None]
    others = [path for path in chosen if path and os.path.dirname(path) != directory]
    others += map(os.path.expanduser, _COMPLETIONS)
    for path in filter(os.path.lexists, others):
        _say(f"left: {path}")
    for path in settings_with_machines(os.environ):
        _say(f'left: the settings for "dm-*" in {path}')
    _say("now remove the program itself, for example: pipx uninstall dcs-proxy")
