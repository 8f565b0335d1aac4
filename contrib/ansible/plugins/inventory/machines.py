"""Inventory of an account's machines, as ``dcs-proxy list --json`` gives them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

DOCUMENTATION = r"""
name: machines
short_description: Machines of Dedalus Cloud Services
version_added: 0.1.0
author: dcs-proxy maintainers
description:
  - Lists the machines of the account by C(dcs-proxy list --json). Nothing is woken.
  - The name of a host is what C(ssh) is given, so neither C(ansible_host) nor C(ansible_user) is
    set. Set neither yourself, for the login belongs to the session.
  - What the API says of a machine is never taken for a template.
  - A source is a file whose name ends in C(.dcs.yml) or C(.dcs.yaml).
extends_documentation_fragment:
  - dedalus.dcs.program
  - constructed
  - inventory_cache
options:
  plugin:
    description: Says that the file is a source of this plugin.
    type: str
    required: true
    choices: [dedalus.dcs.machines]
  phases:
    description:
      - Take only machines in these phases, for example V(running) and V(sleeping).
      - By default all are taken but those that are V(destroying), V(destroyed) or V(failed).
    type: list
    elements: str
  use_aliases:
    description:
      - Name a machine by the first alias that the config file of C(dcs-proxy) gives it, if it has
        any.
    type: bool
    default: true
  use_short_names:
    description:
      - Name a machine without an alias by the shortest name that C(ssh) takes for it, as
        C(dcs-proxy config-ssh) does. It may grow longer when machines are created whose ids end
        alike. Otherwise the full name is used.
    type: bool
    default: true
  ssh_timeout:
    description:
      - The C(ansible_ssh_timeout) of each host, in seconds.
      - With C(become), Ansible gives up when this time and two seconds have passed without output
        since it started C(ssh), and a machine that wakes up says nothing. So this should be as
        long as C(wake_seconds) of C(dcs-proxy), or the machines should be woken before, by the
        role P(dedalus.dcs.wake#role).
    type: int
    default: 300
notes:
  - Each host has the variables C(dcs_machine_id), C(dcs_name), C(dcs_short_name), C(dcs_phase),
    C(dcs_vcpu), C(dcs_memory_mib), C(dcs_storage_gib), C(dcs_autosleep_seconds),
    C(dcs_created_at) and C(dcs_aliases). One that the API does not tell is null.
  - A machine whose id C(ssh) cannot name is left out with a warning.
"""

EXAMPLES = r"""
# machines.dcs.yml
plugin: dedalus.dcs.machines

# Only what runs anyway, grouped by phase (phase_running) and by size.
---
plugin: dedalus.dcs.machines
phases: [running]
keyed_groups:
  - key: dcs_phase
    prefix: phase
groups:
  large: dcs_memory_mib >= 8192
compose:
  memory_gib: dcs_memory_mib / 1024

# The API is asked once an hour.
---
plugin: dedalus.dcs.machines
cache: true
cache_plugin: jsonfile
cache_connection: ~/.cache/ansible-dcs
cache_timeout: 3600
"""

_GOING = ("destroying", "destroyed", "failed")
_FIELDS = (
    "machine_id", "name", "short_name", "phase", "vcpu", "memory_mib", "storage_gib",
    "autosleep_seconds", "created_at", "aliases",
)  # fmt: skip
# \Z because $ would let a trailing newline through.
_NAME = re.compile(r"dm-[a-z0-9]([a-z0-9-]{0,248}[a-z0-9])?\Z")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Each machine is a host, by its first alias, its shortest name or its full name."""

    NAME = "dedalus.dcs.machines"

    def verify_file(self, path: str) -> bool:
        """Tell whether `path` is a source of ours, by its name."""
        return bool(super().verify_file(path)) and path.endswith((".dcs.yml", ".dcs.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the machines to the inventory.  Raises AnsibleParserError."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        hosts: dict[str, dict[str, Any]] = {}
        for machine in _checked(self._load(path, cache)):
            if machine.get("problem") is not None:
                self.display.warning(f"{machine['machine_id']!r} is left out: {machine['problem']}")
            elif self._is_wanted(machine):
                name = self._host_name(machine)
                if name in hosts:
                    raise AnsibleParserError(f"two machines would be the host {name}")
                hosts[name] = machine
        for name, machine in hosts.items():
            self._add(name, machine)

    def _load(self, path: str, cache: bool) -> Any:
        """Return the list from the cache, if it is in use and has it, else from the program."""
        if not self.get_option("cache"):
            return self._list()
        key = self.get_cache_key(path)
        # Without `cache` the user asks for it to be refreshed.
        if cache and key in self._cache:
            return self._cache[key]
        self._cache[key] = self._list()
        return self._cache[key]

    def _list(self) -> Any:
        """Return what ``dcs-proxy list --json`` prints.  Raises AnsibleParserError."""
        words = [os.path.expanduser(self.get_option("program"))]
        for option in ("home", "config"):
            if value := self.get_option(option):
                words += [f"--{option}", value]
        program, timeout_s = words[0], self.get_option("timeout")
        try:
            done = subprocess.run(
                [*words, "list", "--json"],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        except OSError as error:
            raise AnsibleParserError(
                f"{program} cannot be run: {error.strerror}; hint: install dcs-proxy, or say in"
                " the option program where it is"
            ) from None
        except subprocess.TimeoutExpired:
            raise AnsibleParserError(f"{program} has not listed in {timeout_s} s") from None
        if done.returncode < 0:
            raise AnsibleParserError(f"{program} was ended by signal {-done.returncode}")
        if done.returncode:
            message = _said(done.stderr) or f"{program} did not say why it failed"
            raise AnsibleParserError(f"{message} (exit code {done.returncode})")
        try:
            return json.loads(done.stdout)
        except ValueError as error:
            raise AnsibleParserError(f"{program} list --json printed no JSON: {error}") from None

    def _is_wanted(self, machine: dict[str, Any]) -> bool:
        phases = self.get_option("phases")
        if phases is None:
            return machine["phase"] not in _GOING
        return machine["phase"] in phases

    def _host_name(self, machine: dict[str, Any]) -> str:
        if machine["aliases"] and self.get_option("use_aliases"):
            return str(machine["aliases"][0])
        return str(machine["short_name" if self.get_option("use_short_names") else "name"])

    def _add(self, name: str, machine: dict[str, Any]) -> None:
        inventory, strict = self.inventory, self.get_option("strict")
        inventory.add_host(name)
        inventory.set_variable(name, "ansible_ssh_timeout", self.get_option("ssh_timeout"))
        # Text of a server, which could otherwise be an expression for Ansible to evaluate.
        variables = {f"dcs_{field}": wrap_var(machine.get(field)) for field in _FIELDS}
        for key, value in variables.items():
            inventory.set_variable(name, key, value)
        self._set_composite_vars(self.get_option("compose"), variables, name, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict)


def _checked(machines: Any) -> list[dict[str, Any]]:
    """Return the list if what is used of it has the right form.  Raises AnsibleParserError."""
    if not isinstance(machines, list):
        raise AnsibleParserError("dcs-proxy list --json printed no list")
    for machine in machines:
        if not isinstance(machine, dict) or not isinstance(machine.get("phase"), str):
            raise AnsibleParserError("dcs-proxy list --json printed something that is no machine")
        if machine.get("problem") is not None:
            continue
        aliases = machine.get("aliases")
        if not isinstance(aliases, list):
            raise AnsibleParserError("dcs-proxy list --json printed a machine without aliases")
        for name in (machine.get("name"), machine.get("short_name"), *aliases):
            if not isinstance(name, str) or not _NAME.match(name):
                raise AnsibleParserError(f"{name!r} is not the name of a machine")
    return machines


def _said(stderr: bytes) -> str:
    """Return the program's message and hint on one line."""
    lines = stderr.decode(errors="replace").splitlines()
    return "; ".join(line[11:] if line.startswith("dcs-proxy: ") else line for line in lines)
