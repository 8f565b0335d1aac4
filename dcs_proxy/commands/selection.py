"""The machines that a command's arguments mean: names, aliases, short names, patterns, or all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from dcs_proxy.errors import MachineNotFound, UsageError, quote_server
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, pattern_means, short_names


def add_arguments(parser: argparse.ArgumentParser, everything: str) -> None:
    """Declare HOST... and ``--all``, which means `everything`."""
    parser.add_argument(
        "hosts",
        metavar="HOST",
        nargs="*",
        help="a name, a short name, an alias, or a pattern of them with * and ? in quotation marks",
    )
    parser.add_argument("--all", action="store_true", help=everything)


def select(
    arguments: argparse.Namespace,
    settings: Settings,
    list_known: Callable[[], Sequence[MachineName]],
    find: Callable[[str], MachineName],
    *,
    hint: str,
) -> dict[MachineName, str]:
    """Return the machines that the arguments mean, and for each what was typed (its name for
    those that a pattern or ``--all`` means).

    `list_known` returns those that a pattern or ``--all`` may mean, and is called only for these;
    `find` returns the machine of a name.  `hint` says where to see them.  Raises UsageError,
    MachineNotFound for a pattern that means none, or what `find` raises.
    """
    if arguments.all == bool(arguments.hosts):
        raise UsageError("name machines, or give --all", hint=hint)
    if arguments.all:
        return {name: name for name in list_known()}
    patterns = [host for host in arguments.hosts if "*" in host or "?" in host]
    known = list_known() if patterns else []
    short = short_names(known, settings.aliases)
    found: dict[MachineName, str] = {}
    for host in arguments.hosts:
        if host not in patterns:
            found.setdefault(find(host), host)
            continue
        matched = [
            name for name in known
            if pattern_means(host, name, [short[name], *settings.aliases_of(name)])
        ]  # fmt: skip
        if not matched:
            raise MachineNotFound(f"no machine matches {quote_server(host)}", hint=hint)
        for name in matched:
            found.setdefault(name, name)
    return found
