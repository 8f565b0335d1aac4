"""``dcs-proxy alias``: list, set and remove the aliases in the config file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from dcs_proxy.app import Options, open_factory, open_known, show_notice
from dcs_proxy.commands._machines import list_machines, show_unlisted
from dcs_proxy.console.stdout import columns, put
from dcs_proxy.errors import (
    ApiProtocolError,
    DcsError,
    Forbidden,
    MachineNotFound,
    UsageError,
)
from dcs_proxy.local.alias_editor import remove_alias, set_alias
from dcs_proxy.local.settings import Settings, config_path
from dcs_proxy.names import MachineName, parse_machine_name
from dcs_proxy.openssh import config_file
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lookup import Lookup

HELP = "list, set or remove aliases of machines"
DESCRIPTION = (
    "Without arguments, list the aliases in the config file. With NAME and MACHINE, make NAME an "
    "alias of the machine. Comments and order in the file are preserved."
)
EXAMPLES = (
    ("Call a machine dm-web", "dcs-proxy alias dm-web c0de"),
    ("Remove that alias", "dcs-proxy alias --remove dm-web"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="the alias, such as dm-web")
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="the machine's name, a short name or an alias"
    )
    parser.add_argument("--remove", metavar="NAME", help="remove an alias")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """List or change the aliases.  Raises UsageError, ConfigError, StateError, or what the API
    raises.
    """
    settings = options.settings(os.environ)
    if arguments.remove is not None:
        if arguments.name is not None:
            raise UsageError("--remove takes no other names", hint="dcs-proxy alias --help")
        return _remove(parse_machine_name(arguments.remove), settings, options)
    if arguments.name is None:
        rows = [("ALIAS", "MACHINE"), *settings.aliases.items()]
        put(*columns(rows) if len(rows) > 1 else ())
        return 0
    if arguments.host is None:
        raise UsageError("name the machine as well", hint="dcs-proxy alias --help")
    return _set(parse_machine_name(arguments.name), arguments.host, settings, options)


def _set(alias: MachineName, typed: str, settings: Settings, options: Options) -> int:
    state = StateDirectory(options.state_directory(os.environ))
    factory = open_factory(options, os.environ, settings)
    known = factory.known
    has_list = True
    try:
        list_machines(factory, state)
    except (MachineNotFound, ApiProtocolError, Forbidden):
        has_list = False  # no such route: names are believed
    machine = Lookup(settings, known, lambda: None).find(typed)
    names = known.load().by_name
    if alias in names:
        raise UsageError(f"{alias} is the name of a machine", hint="choose another alias")
    if has_list and machine not in names:
        raise MachineNotFound("no such machine", hint="see the names: dcs-proxy list",
                              machine=machine)  # fmt: skip
    _edit(options, state, lambda text: set_alias(text, alias, machine))
    show_notice(f"{alias} now means {machine}")
    show_unlisted(names, options.settings(os.environ), state.path)
    return 0


def _remove(alias: MachineName, settings: Settings, options: Options) -> int:
    if alias not in settings.aliases:
        raise DcsError(f"there is no alias {alias}", hint="see them: dcs-proxy alias")
    state = StateDirectory(options.state_directory(os.environ))
    _edit(options, state, lambda text: remove_alias(text, alias))
    show_notice(f"{alias} is no longer an alias")
    known = open_known(options, os.environ, settings).load()
    show_unlisted(known.by_name, options.settings(os.environ), state.path)
    return 0


def _edit(options: Options, state: StateDirectory, change: Callable[[str], str]) -> None:
    """Change the config file, created if missing (0600).  Raises ConfigError or StateError."""
    path = options.config_file(os.environ) or config_path(os.environ)
    with config_file.edit_lock(state.file("config.lock"), "dcs-proxy alias"):
        config_file.edit(path, lambda old: change((old or b"").decode()).encode())
