"""``dcs-proxy list``: the account's machines.

``--json`` gives an array of objects, one for each machine, with the API's names: ``machine_id``,
``phase``, ``vcpu``, ``memory_mib``, ``storage_gib``, ``autosleep_seconds``, ``created_at`` (RFC
3339), each null if the API does not tell, and ``aliases``, an array of names of yours.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

from dcs_proxy.api.model import Machine
from dcs_proxy.app import Options, open_log
from dcs_proxy.commands.listing import list_machines
from dcs_proxy.console.format import in_words, rfc3339
from dcs_proxy.console.stderr import show
from dcs_proxy.console.stdout import columns, put, put_json
from dcs_proxy.local.settings import Settings
from dcs_proxy.session.directory import StateDirectory

HELP = "list the machines of the account with phase, size, age and alias"
DESCRIPTION = (
    "Show the account's machines with phase, size, age and alias. Nothing is woken. Completion "
    "offers the names that were listed last."
)
EXAMPLES = (("For a program", "dcs-proxy list --json"),)

_HEAD = ("NAME", "PHASE", "SIZE", "AGE", "ALIAS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Print the list.  Raises as list_machines does, and ConfigError or StateError."""
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    machines = list_machines(settings, state, open_log(options, os.environ))
    if arguments.json:
        put_json([_as_json(machine, settings) for machine in machines])
    elif machines:
        put(*_table(machines, settings, time.time()))
    else:
        show("dcs-proxy: the account has no machines")
    return 0


def _table(machines: Sequence[Machine], settings: Settings, now: float) -> list[str]:
    rows = [_HEAD]
    for machine in machines:
        created_at = machine.created_at
        age = "-" if created_at is None else in_words(now - created_at.timestamp())
        aliases = " ".join(settings.aliases_of(machine.machine_id))
        rows.append((machine.machine_id, machine.phase, size(machine), age, aliases or "-"))
    return columns(rows)


def _as_json(machine: Machine, settings: Settings) -> dict[str, object]:
    created_at = machine.created_at
    return {
        "machine_id": machine.machine_id,
        "phase": machine.phase,
        "vcpu": machine.vcpu,
        "memory_mib": machine.memory_mib,
        "storage_gib": machine.storage_gib,
        "autosleep_seconds": machine.autosleep_seconds,
        "created_at": None if created_at is None else rfc3339(created_at.timestamp()),
        "aliases": settings.aliases_of(machine.machine_id),
    }


def size(machine: Machine) -> str:
    """Return a machine's size in words, as far as it is known: "2 vCPU 4 GiB 20 GiB"."""
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
