"""Wake machines with ``dcs-proxy wake`` and read what became of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .listing import NAME, list_machines
from .program import HINT, OPTIONS, Program, ProgramFailed, last_error

_LIST_S = 60
_READY = re.compile(r"(dm-\S+): ready after ([0-9.]+) s")
_MESSAGE = re.compile(r"dcs-proxy: (dm-[^\s:]+): (.*)")
_WAKING = "waking up"
# What decides which machine is woken, how and for which account: the variables of a host and those
# of the role.
_OWN = (
    "dcs_name",
    *(f"dcs_{each}" for each in OPTIONS),
    "wake_hosts",
    *(f"wake_{each}" for each in OPTIONS),
)


@dataclass(frozen=True)
class Outcome:
    """The outcome for one machine.

    `machine` is its full name, as far as it is known; `woken` says whether it had to wake up, and
    `seconds` how long it took until it was ready, None if that is not known.
    """

    machine: str
    failed: bool
    woken: bool
    seconds: float | None
    msg: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for the result of a task."""
        return asdict(self)


def machine_of(host: str, variables: Mapping[str, Any]) -> str | None:
    """Return the machine that a host of the inventory is, None if it is not one."""
    for name in (variables.get("dcs_name"), variables.get("ansible_host"), host):
        if name:
            return str(name) if NAME.match(str(name)) else None
    return None


def find_forged(variables: Mapping[str, Any]) -> str | None:
    """Return a fact of a host that has the name of one of our variables, None if there is none.

    Facts come from the machine, and Ansible lets them override the inventory: a machine could name
    the program to run here, or the server that gets the API key.
    """
    facts = variables.get("ansible_facts") or {}
    return next((name for name in _OWN if name in facts), None)


def wake_machines(program: Program, names: Sequence[str]) -> dict[str, Outcome]:
    """Wake machines in one run of the program; return the outcome for each of `names`.

    Raises ProgramFailed if the program could not be run.
    """
    done = program.run(["wake", *names], None)
    found = (_READY.match(line) for line in done.stdout.splitlines())
    ready = {match[1]: float(match[2]) for match in found if match}
    messages, woken = _read_messages(done.stderr)
    full = _full_names(program, names, {*ready, *messages})
    # A name that is not known may be any of the machines.
    general = "; ".join(messages.values()) or last_error(done.stderr)
    outcomes = {}
    for name in names:
        machine = full.get(name, name)
        failed = done.returncode != 0 and machine not in ready
        text = messages.get(machine, general) or f"{program.path} failed without a message"
        if not failed:
            after = f" after {ready[machine]} s" if machine in ready else ""
            text = f"{machine}: {'woken, ' if machine in woken else ''}ready{after}"
        outcomes[name] = Outcome(machine, failed, machine in woken, ready.get(machine), text)
    return outcomes


def _read_messages(stderr: str) -> tuple[dict[str, str], set[str]]:
    """Return the last message about each machine with its hint, and the machines that woke up."""
    messages: dict[str, str] = {}
    woken = set()
    last = ""
    for line in stderr.splitlines():
        if line.startswith(HINT) and last:
            messages[last] += f"; {line.removeprefix('dcs-proxy: ')}"
        elif match := _MESSAGE.match(line):
            last = match[1]
            messages[last] = f"{last}: {match[2]}"
            if match[2].startswith(_WAKING):
                woken.add(last)
    return messages, woken


def _full_names(program: Program, names: Sequence[str], shown: set[str]) -> dict[str, str]:
    """Return the full names of machines, which alone the program's messages have.

    The API is only asked if one of `names` is an alias or a short name.  If it does not answer, a
    short name is recognised by its machine's name in `shown`.
    """
    if not shown or shown.issuperset(names):
        return {}
    try:
        machines = list_machines(program, _LIST_S)
    except ProgramFailed:
        found = {name: [each for each in shown if each.endswith(name[3:])] for name in names}
        return {name: matching[0] for name, matching in found.items() if len(matching) == 1}
    return {
        known: machine["name"]
        for machine in machines
        if machine.get("problem") is None
        for known in (machine["machine_id"], machine["short_name"], *machine["aliases"])
    }
