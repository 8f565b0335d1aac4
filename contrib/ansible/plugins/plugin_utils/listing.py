"""The machines of an account, as ``dcs-proxy list --json`` prints them."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Sequence
from typing import Any

from .program import Program, ProgramFailed, last_error

# \Z because $ would accept a trailing newline.
NAME = re.compile(r"dm-[a-z0-9]([a-z0-9-]{0,248}[a-z0-9])?\Z")


def list_machines(program: Program, timeout_s: int) -> list[dict[str, Any]]:
    """Return the machines that the program lists.  Raises ProgramFailed."""
    done = program.run(["list", "--json"], timeout_s)
    if done.returncode:
        message = last_error(done.stderr) or f"{program.path} failed without a message"
        raise ProgramFailed(f"{message} (exit code {done.returncode})")
    try:
        return check_machines(json.loads(done.stdout))
    except ValueError as error:
        raise ProgramFailed(f"{program.path} list --json printed no JSON: {error}") from None


def matches(machine: dict[str, Any], patterns: Sequence[str]) -> bool:
    """Return whether a pattern matches the id or one of the names of a machine, in any case."""
    known = (machine["machine_id"], machine["name"], machine["short_name"], *machine["aliases"])
    folded = [pattern.lower() for pattern in patterns]
    return any(fnmatch.fnmatchcase(name.lower(), pattern) for name in known for pattern in folded)


def check_machines(machines: Any) -> list[dict[str, Any]]:
    """Return the list if the parts used here have the right form.  Raises ProgramFailed.

    It comes from the program, or from a cache that others may have changed.  A host of any other
    name could be an option of ssh, or another host of the inventory.
    """
    if not isinstance(machines, list):
        raise ProgramFailed("dcs-proxy list --json printed something other than a list")
    for machine in machines:
        if not isinstance(machine, dict) or not isinstance(machine.get("phase"), str):
            raise ProgramFailed("dcs-proxy list --json printed an entry that is not a machine")
        if machine.get("problem") is not None:
            continue
        aliases = machine.get("aliases")
        if not isinstance(aliases, list):
            raise ProgramFailed("dcs-proxy list --json printed a machine without aliases")
        if not isinstance(machine.get("machine_id"), str):
            raise ProgramFailed("dcs-proxy list --json printed a machine without an id")
        for name in (machine.get("name"), machine.get("short_name"), *aliases):
            if not isinstance(name, str) or not NAME.match(name):
                raise ProgramFailed(f"{name!r} is not the name of a machine")
    return machines
