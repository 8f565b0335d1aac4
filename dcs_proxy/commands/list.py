"""``dcs-proxy list``: the account's machines.

``--json`` prints an array of objects, one per machine, with the API's names: ``machine_id``,
``phase``, ``vcpu``, ``memory_mib``, ``storage_gib``, ``autosleep_seconds``, ``created_at`` (RFC
3339), each null if the API does not send it; ``name`` and ``short_name``, which ssh accepts, and
``aliases``, an array of the user's own names.  For a machine that ssh cannot name, the names are
null and ``problem`` says why; otherwise ``problem`` is null.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Mapping

from dcs_proxy.api.model import Listing, Machine, UnusableMachine
from dcs_proxy.app import Options, open_factory
from dcs_proxy.commands._machines import (
    list_machines,
    show_unlisted,
    show_unusable,
    usable_names,
)
from dcs_proxy.console.format import in_words, rfc3339
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import columns, put, put_json, terminal_width
from dcs_proxy.errors import StateError
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, short_names
from dcs_proxy.session.directory import StateDirectory

HELP = "list the machines of the account"
DESCRIPTION = (
    "List the account's machines with phase, size, age, the shortest name that ssh accepts, and "
    "aliases. On a terminal that is too narrow for full names, the shortest ones take their place. "
    "No machine is woken. Completion offers the names that were listed last."
)
EXAMPLES = (("For a program", "dcs-proxy list --json"),)

_HEAD = ("NAME", "SHORT", "PHASE", "SIZE", "AGE", "ALIAS")
_KEYS = ("phase", "vcpu", "memory_mib", "storage_gib", "autosleep_seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the list.  Raises as list_machines does, and ConfigError or StateError."""
    settings = options.settings(os.environ)
    listing = list_machines(open_factory(options, os.environ, settings), _state(options))
    names = usable_names(listing)
    short = short_names(names, settings.aliases)
    if arguments.json:
        shown = [_as_json(machine, short, settings) for machine in listing.machines]
        put_json([*shown, *map(_unusable_as_json, listing.unusable)])
    elif listing.machines:
        put(*_table(listing, short, settings, time.time(), terminal_width()))
    elif not listing.unusable:
        show("dcs-proxy: the account has no machines")
    if not arguments.json:
        show_unusable(listing)
        show_unlisted(names, settings, options.state_directory(os.environ))
    return 0


def _state(options: Options) -> StateDirectory:
    """Return the state directory, created if possible; the list works without it."""
    path = options.state_directory(os.environ)
    with contextlib.suppress(StateError):
        return StateDirectory(path)
    return StateDirectory(path, create=False)


def _table(
    listing: Listing,
    short: Mapping[MachineName, MachineName],
    settings: Settings,
    now: float,
    width: int | None = None,
) -> list[str]:
    """Return the lines of the table.

    If it is wider than `width` columns, a machine with a short name is listed by that alone.
    """
    rows: list[tuple[str, ...]] = [_HEAD]
    for machine in listing.machines:
        created_at = machine.created_at
        age = "-" if created_at is None else in_words(now - created_at.timestamp())
        aliases = " ".join(settings.aliases_of(machine.name)) or "-"
        shortest = short.get(machine.name, machine.name)
        shown = "-" if shortest == machine.name else shortest
        rows.append((machine.name, shown, machine.phase, size(machine), age, aliases))
    if all(row[1] == "-" for row in rows[1:]):
        return columns((row[0], *row[2:]) for row in rows)
    lines = columns(rows)
    if width is None or max(map(len, lines)) <= width:
        return lines
    return columns((row[0] if row[1] in ("-", "SHORT") else row[1], *row[2:]) for row in rows)


def _as_json(
    machine: Machine, short: Mapping[MachineName, MachineName], settings: Settings
) -> dict[str, object]:
    created_at = machine.created_at
    return {
        "machine_id": machine.machine_id,
        **{key: getattr(machine, key) for key in _KEYS},
        "created_at": None if created_at is None else rfc3339(created_at.timestamp()),
        "name": machine.name,
        "short_name": short.get(machine.name, machine.name),
        "aliases": settings.aliases_of(machine.name),
        "problem": None,
    }


def _unusable_as_json(machine: UnusableMachine) -> dict[str, object]:
    return {
        "machine_id": machine.machine_id,
        **dict.fromkeys(_KEYS),
        "phase": machine.phase,
        "created_at": None,
        "name": None,
        "short_name": None,
        "aliases": [],
        "problem": machine.why,
    }


def size(machine: Machine) -> str:
    """Return the known parts of a machine's size: "2 vCPU 4 GiB 20 GiB"."""
    memory = machine.memory_mib
    parts = [
        "" if machine.vcpu is None else f"{_number(machine.vcpu)} vCPU",
        "" if memory is None else _memory(memory),
        "" if machine.storage_gib is None else f"{_number(machine.storage_gib)} GiB",
    ]
    return " ".join(filter(None, parts)) or "-"


def _memory(mib: float) -> str:
    return f"{_number(mib)} MiB" if mib < 1024 else f"{_number(mib / 1024)} GiB"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
