"""The machines that a command's arguments mean: names, aliases, patterns, or all."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from dcs_proxy.errors import MachineNotFound, UsageError, quote_server
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, matches


def add_arguments(parser: argparse.ArgumentParser, everything: str) -> None:
    """Declare HOST... and ``--all``, which means `everything`."""
    parser.add_argument(
        "hosts",
        metavar="HOST",
        nargs="*",
        help="a name, an alias, or a pattern of them with * and ? in quotation marks",
    )
    parser.add_argument("--all", action="store_true", help=everything)


def select(
    arguments: argparse.Namespace,
    settings: Settings,
    list_known: Callable[[], Sequence[MachineName]],
    *,
    hint: str,
) -> list[MachineName]:
    """Return the machines that the arguments mean, each once.

    `list_known` returns those that a pattern or ``--all`` may mean, and is called only for these;
    `hint` says where to see them.  Raises UsageError, or MachineNotFound for a pattern that means
    none.
    """
    if arguments.all == bool(arguments.hosts):
        raise UsageError("name machines, or give --all", hint=hint)
    if arguments.all:
        return list(list_known())
    patterns = [host for host in arguments.hosts if "*" in host or "?" in host]
    known = list_known() if patterns else []
    found: dict[MachineName, None] = {}
    for host in arguments.hosts:
        if host not in patterns:
            found[settings.machine(host)] = None
            continue
        matched = [name for name in known if _means(host, name, settings)]
        if not matched:
            raise MachineNotFound(f"no machine matches {quote_server(host)}", hint=hint)
        found.update(dict.fromkeys(matched))
    return list(found)


def _means(pattern: str, name: MachineName, settings: Settings) -> bool:
    return any(matches(pattern, known) for known in (name, *settings.aliases_of(name)))
