"""``dcs-proxy log``: print what happened, and go on with what happens."""

from __future__ import annotations

import argparse
import os

from dcs_proxy.app import Options, open_log
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import put
from dcs_proxy.local.log_reader import follow_log, is_about, read_log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName

HELP = "print the log, of all machines or of one"
DESCRIPTION = (
    "Print the log: time, process and ssh's process, event, machine and what belongs to it. "
    "DCS_PROXY_LOG=debug writes more into it, DCS_PROXY_LOG=off nothing."
)
EXAMPLES = (("Watch what happens to one machine", "dcs-proxy log -f dm-foo"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "host", metavar="HOST", nargs="?", help="only what concerns this machine or alias"
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with new lines until Ctrl-C"
    )


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the log.  Raises UsageError, StateError, or ClientGone when nobody reads any more."""
    path = open_log(options, os.environ).path
    wanted = None
    if arguments.host is not None:
        wanted = _names(arguments.host, options.settings(os.environ))
    if not os.path.exists(path):
        show(f"dcs-proxy: there is no log yet at {path}")
    for line in follow_log(path) if arguments.follow else read_log(path):
        if wanted is None or is_about(line, wanted):
            put(line)
    return 0


def _names(host: str, settings: Settings) -> set[MachineName]:
    """Return the machine and all its aliases: a line names what ssh was asked for."""
    name = settings.machine(host)
    return {name, *(MachineName(a) for a, machine in settings.aliases.items() if machine == name)}
