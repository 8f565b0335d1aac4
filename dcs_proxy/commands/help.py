"""``dcs-proxy help``, and ``dcs-proxy`` alone: show all commands, or the help of one."""

from __future__ import annotations

import argparse

from dcs_proxy.app import Options
from dcs_proxy.arguments import build_parser, unknown_command
from dcs_proxy.console.stdout import columns, put

HELP = "show this help, or that of one command"
DESCRIPTION = "Show the commands with a few words each, or the help of one command."
EXAMPLES = (("Everything about one command", "dcs-proxy help wake"),)

_TITLE = "dcs-proxy makes ssh dm-foo work for Dedalus Cloud Services"
_FIRST = ("dcs-proxy login", "dcs-proxy config-ssh", "ssh dm-foo")
_MORE = "More: dcs-proxy help COMMAND, --help, man dcs-proxy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="the command to explain")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the help.  Raises UsageError for an unknown command."""
    parser = build_parser()
    if arguments.command is None:
        rows = [(f"  {name}", text) for name, text in parser.summaries.items() if name != "help"]
        begin = [f"  {line}" for line in _FIRST]
        put(_TITLE, "", "To begin:", *begin, "", "Commands:", *columns(rows), "", _MORE)
    elif arguments.command in parser.commands:
        parser.commands[arguments.command].print_help()
    else:
        raise unknown_command(arguments.command)
    return 0
