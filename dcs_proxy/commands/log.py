"""``dcs-proxy log``: print the log, and follow it."""

from __future__ import annotations

import argparse
import os

from dcs_proxy.app import Options, open_known, open_log
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import pause, put
from dcs_proxy.local.log_reader import follow_log, is_about, read_log
from dcs_proxy.names import MachineName
from dcs_proxy.session.lookup import find_locally, names_of

HELP = "print the log"
DESCRIPTION = (
    "Print the log. Each line has the time, the process ids of dcs-proxy and of ssh, the event, "
    "the machine and details. DCS_PROXY_LOG=debug logs more, DCS_PROXY_LOG=off nothing."
)
EXAMPLES = (("Watch what happens to one machine", "dcs-proxy log -f dm-foo"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("host", metavar="HOST", nargs="?", help="print only this machine's lines")
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="print new lines as they come, until Ctrl-C",
    )


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the log.  Raises UsageError, StateError or ReaderGone."""
    path = open_log(options, os.environ).path
    wanted = None if arguments.host is None else _names(arguments.host, options)
    is_missing = not os.path.exists(path)
    if is_missing:
        show(f"dcs-proxy: there is no log yet at {path}")
    is_empty = True
    for line in follow_log(path, pause) if arguments.follow else read_log(path):
        if wanted is None or is_about(line, wanted):
            put(line)
            is_empty = False
    if is_empty and wanted is not None and not is_missing:
        show(
            f"dcs-proxy: {arguments.host}: the log has nothing about this machine",
            "dcs-proxy: hint: for its name, type: dcs-proxy list; for the whole log: dcs-proxy log",
        )
    return 0


def _names(host: str, options: Options) -> set[MachineName]:
    """Return every name that ssh may have been given for the machine."""
    settings = options.settings(os.environ)
    known = open_known(options, os.environ, settings).load()
    return names_of(find_locally(host, settings, (), known), settings, known)
