"""Inventory of an account's machines, as ``dcs-proxy list --json`` prints them."""

from __future__ import annotations

DOCUMENTATION = r"""
name: machines
short_description: Machines of Dedalus Cloud Services
version_added: 0.1.0
author: dcs-proxy maintainers (@dedalus)
description:
  - Lists the machines of an account with C(dcs-proxy list --json). No machine is woken.
  - A source is a file named C(dcs.yml) or C(dcs.yaml), or whose name ends in C(.dcs.yml) or
    C(.dcs.yaml). Each source has its own account, so an inventory can have several.
  - Values of options may be templates. They see extra variables (C(-e)) and lookups, but no
    variables of hosts or groups. Values may be encrypted with Ansible Vault.
  - Text that the API sends is never evaluated as a template.
extends_documentation_fragment:
  - dedalus.dcs.program
  - constructed
  - inventory_cache
options:
  plugin:
    description: Marks the file as a source of this plugin.
    type: str
    required: true
    choices: [dedalus.dcs.machines]
  timeout:
    description: How many seconds C(dcs-proxy) may take to list the machines.
    type: int
    default: 60
  phases:
    description:
      - Take only machines in these phases.
      - By default, all machines except those that are V(destroying), V(destroyed) or V(failed).
    type: list
    elements: str
    choices:
      - accepted
      - placement_pending
      - starting
      - running
      - stopping
      - sleeping
      - destroying
      - destroyed
      - failed
  names:
    description:
      - Take only machines whose id, name, short name or an alias matches one of these patterns.
        C(*) matches any text, C(?) one character, C([ab]) one of the given characters.
    type: list
    elements: str
  exclude_names:
    description: Leave out machines that one of these patterns matches. See O(names).
    type: list
    elements: str
    default: []
  filters:
    description:
      - Rules with Jinja conditions over the variables of a machine. The first rule whose
        condition is true decides. Without such a rule the machine is taken.
      - End the list with C(exclude) and V(true) to take only what an earlier rule includes.
      - A condition that cannot be evaluated is an error.
    type: list
    elements: dict
    default: []
    suboptions:
      include:
        description: Take machines for which this condition is true. Excludes O(filters[].exclude).
        type: raw
      exclude:
        description: Leave out machines for which this condition is true.
        type: raw
  hostnames:
    description:
      - How to name hosts, in order of preference. The first that a machine has is used.
      - V(short) is the shortest name that C(ssh) accepts, as C(dcs-proxy list) shows it. It may
        become longer when machines are created whose ids end alike.
      - V(full) is the full name, which never changes.
      - V(alias) is the first alias in the config file of C(dcs-proxy). Names then depend on the
        file of the person who runs Ansible.
      - Anything else must be a template over the machine's variables. C(ansible_host) is then set
        to the full name.
    type: list
    elements: str
    default: [short]
  override_remote_user:
    description:
      - Set C(ansible_user) to an empty string for each host, so that C(remote_user), C(-u) and
        the C(ansible_user) of a group, which are meant for other hosts, do not apply. The login
        belongs to the session, and C(ssh) knows it.
    type: bool
    default: true
  ssh_config:
    description:
      - The file that C(dcs-proxy config-ssh --ssh-config) wrote for this account, if it is not
        C(~/.ssh/config). Two accounts need a file each.
      - Sets C(ansible_ssh_common_args) to C(-F) and this file.
    type: path
  ssh_timeout:
    description:
      - The C(ansible_ssh_timeout) of each host, in seconds.
      - With C(become), Ansible gives up when C(ssh) has printed nothing for this time and two
        seconds, and a machine that is waking prints nothing. So this should be at least the
        C(wake_seconds) of C(dcs-proxy), unless the role P(dedalus.dcs.wake#role) wakes the
        machines first.
    type: int
    default: 300
notes:
  - Each host has the variables C(dcs_machine_id), C(dcs_name), C(dcs_short_name), C(dcs_phase),
    C(dcs_vcpu), C(dcs_memory_mib), C(dcs_storage_gib), C(dcs_autosleep_seconds),
    C(dcs_created_at) and C(dcs_aliases). A value that the API does not send is null.
  - Each host also has C(dcs_program), C(dcs_home), C(dcs_config), C(dcs_api_key_file),
    C(dcs_base_url) and C(dcs_org_id) if the option is set, so that
    M(dedalus.dcs.wake) uses the same account. O(api_key) is not among them.
  - A machine that C(ssh) cannot name is left out with a warning.
  - The cache depends on the account, that is on these options, on the environment and on the
    contents of the O(config) and O(api_key_file) files. After C(dcs-proxy login) with another key
    use C(--flush-cache).
seealso:
  - plugin: dedalus.dcs.wake
    plugin_type: module
"""

EXAMPLES = r"""
# dcs.yml: all machines.
plugin: dedalus.dcs.machines

# Machines by name, those that are awake, grouped by phase (phase_running) and size (vcpu_2).
# The key of a group must be text.
---
plugin: dedalus.dcs.machines
names: ["dm-web-*", "dm-db-*"]
exclude_names: ["*-old"]
phases: [starting, running]
keyed_groups:
  - key: dcs_phase
    prefix: phase
  - key: dcs_vcpu | string
    prefix: vcpu
groups:
  large: dcs_memory_mib >= 8192
compose:
  memory_gib: dcs_memory_mib / 1024

# Large machines, but none of last year's; named by alias if there is one.
---
plugin: dedalus.dcs.machines
filters:
  - exclude: dcs_created_at is match('2025-')
  - include: dcs_vcpu >= 4
  - exclude: true
hostnames: [alias, full]

# Names of your own.
---
plugin: dedalus.dcs.machines
hostnames:
  - "worker-{{ dcs_name[-4:] }}"

# One of two accounts. Its config file names the API, the organisation and the key file, and
# `dcs-proxy --home ~/.local/state/dcs-blue --config ~/.config/dcs-proxy/blue.toml
# config-ssh --ssh-config ~/.ssh/dcs-blue` has written its ssh config.
---
plugin: dedalus.dcs.machines
home: ~/.local/state/dcs-blue
config: ~/.config/dcs-proxy/blue.toml
ssh_config: ~/.ssh/dcs-blue

# The key from a variable, the organisation from the environment.
---
plugin: dedalus.dcs.machines
api_key: "{{ blue_api_key | default(lookup('env', 'BLUE_API_KEY')) }}"
org_id: "{{ lookup('env', 'BLUE_ORG') }}"

# Ask the API once an hour.
---
plugin: dedalus.dcs.machines
cache: true
cache_plugin: jsonfile
cache_connection: ~/.cache/ansible-dcs
cache_timeout: 3600
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.unsafe_proxy import wrap_var

from ..plugin_utils.conditions import is_true
from ..plugin_utils.listing import check_machines, list_machines, matches
from ..plugin_utils.options import check_options
from ..plugin_utils.program import Program, ProgramFailed

_NAMES = ("dcs.yml", "dcs.yaml")
_GOING = ("destroying", "destroyed", "failed")
_FIELDS = (
    "machine_id", "name", "short_name", "phase", "vcpu", "memory_mib", "storage_gib",
    "autosleep_seconds", "created_at", "aliases",
)  # fmt: skip
_ACCOUNT = ("program", "home", "config", "api_key_file", "base_url", "org_id")
_ENVIRONMENT = (
    "DEDALUS_API_KEY", "DEDALUS_X_API_KEY", "DEDALUS_BASE_URL", "DEDALUS_ORG_ID",
    "DCS_PROXY_CONFIG", "DCS_PROXY_HOME", "DCS_PROXY_KEY_FILE",
)  # fmt: skip
# These are expressions already, or are evaluated for each machine.
_NOT_TEMPLATES = ("plugin", "compose", "groups", "keyed_groups", "filters", "hostnames")
# \Z because $ would accept a trailing newline.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?\Z")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Each machine is a host."""

    NAME = "dedalus.dcs.machines"

    def verify_file(self, path: str) -> bool:
        """Return whether `path` is a source of this plugin, by its name."""
        if not super().verify_file(path):
            return False
        name = os.path.basename(path)
        if name in _NAMES or name.endswith(tuple(f".{each}" for each in _NAMES)):
            return True
        self.display.vvv(
            f"{self.NAME} skips {path}: the name of a source is dcs.yml or ends in .dcs.yml"
            " (or .yaml)"
        )
        return False

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the machines to the inventory.  Raises AnsibleParserError."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        hosts: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        for machine in self._load(path, cache):
            if machine.get("problem") is not None:
                self.display.warning(f"{machine['machine_id']!r} is left out: {machine['problem']}")
                continue
            # Text from a server, which must not be an expression for Ansible to evaluate.
            variables = {f"dcs_{field}": wrap_var(machine.get(field)) for field in _FIELDS}
            if not self._is_wanted(machine, variables):
                continue
            name = self._host_name(machine, variables)
            if name in hosts:
                raise AnsibleParserError(f"two machines would be the host {name}")
            self._check_other_sources(name, machine)
            hosts[name] = (machine, variables)
        for name, (machine, variables) in hosts.items():
            self._add(name, machine, variables)

    def set_options(
        self, task_keys: Any = None, var_options: Any = None, direct: Any = None
    ) -> None:
        """Set the options, whose values may be templates.  Raises AnsibleParserError."""
        if direct is not None:
            direct = {key: self._template(key, value) for key, value in direct.items()}
        super().set_options(task_keys=task_keys, var_options=var_options, direct=direct)
        if direct is not None:
            try:
                check_options(direct, self._options)
            except ValueError as error:
                raise AnsibleParserError(str(error)) from None

    def _template(self, key: str, value: Any) -> Any:
        if key in _NOT_TEMPLATES:
            return value
        self.templar.available_variables = self._vars or {}
        try:
            return self.templar.template(value)
        except AnsibleError as error:
            raise AnsibleParserError(f"cannot evaluate the option {key}: {error}") from None

    def _load(self, path: str, cache: bool) -> list[dict[str, Any]]:
        """Return the machines, from the cache if it is used and has them, else from the program."""
        if not self.get_option("cache"):
            return self._list()
        key = f"{self.get_cache_key(path)}_{self._account()}"
        # `cache` is false if the user asks to refresh the cache.
        if not cache or key not in self._cache:
            self._cache[key] = self._list()
        try:
            return check_machines(self._cache[key])
        except ProgramFailed as error:
            hint = "flush it with --flush-cache, and check who can write to it"
            raise AnsibleParserError(f"the cached list is wrong: {error}; hint: {hint}") from None

    def _account(self) -> str:
        """Return a digest of what determines the account; the key cannot be guessed from it."""
        parts = [self.get_option(name) for name in (*_ACCOUNT, "api_key")]
        parts += [os.environ.get(name) for name in _ENVIRONMENT]
        for name in ("config", "api_key_file"):
            parts.append(_digest_file(self.get_option(name)))
        text = json.dumps([part and str(part) for part in parts])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _list(self) -> list[dict[str, Any]]:
        """Return the machines that the program lists.  Raises AnsibleParserError."""
        try:
            program = Program({name: self.get_option(name) for name in (*_ACCOUNT, "api_key")})
            return list_machines(program, self.get_option("timeout"))
        except ProgramFailed as error:
            raise AnsibleParserError(str(error)) from None

    def _is_wanted(self, machine: dict[str, Any], variables: Mapping[str, Any]) -> bool:
        phases = self.get_option("phases")
        if machine["phase"] in _GOING if phases is None else machine["phase"] not in phases:
            return False
        names = self.get_option("names")
        if names is not None and not matches(machine, names):
            return False
        if matches(machine, self.get_option("exclude_names")):
            return False
        for rule in self.get_option("filters"):
            for verdict, condition in rule.items():
                if self._is_true(condition, variables, machine["name"]):
                    return bool(verdict == "include")
        return True

    def _is_true(self, condition: Any, variables: Mapping[str, Any], name: str) -> bool:
        self.templar.available_variables = {**variables, **(self._vars or {})}
        try:
            return is_true(condition, self.templar)
        except Exception as error:
            # Jinja raises whatever the condition's functions do.
            raise AnsibleParserError(
                f"filters: cannot evaluate {condition!r} for {name}: {error}"
            ) from None

    def _host_name(self, machine: dict[str, Any], variables: Mapping[str, Any]) -> str:
        for choice in self.get_option("hostnames"):
            if choice == "alias":
                name = machine["aliases"][0] if machine["aliases"] else ""
            elif choice == "short":
                name = machine["short_name"]
            elif choice == "full":
                name = machine["name"]
            else:
                name = self._composed_name(choice, variables, machine["name"])
            if name:
                return str(name)
        return str(machine["name"])

    def _check_other_sources(self, name: str, machine: Mapping[str, Any]) -> None:
        """Raise AnsibleParserError if another source has a host of this name, for another machine.

        Ansible would make one host of both, with variables of either account.
        """
        host = self.inventory.hosts.get(name)
        other = host.vars.get("dcs_machine_id") if host else None
        if other is not None and other != machine["machine_id"]:
            raise AnsibleParserError(
                f"{name} is {host.vars['dcs_name']} in another source and {machine['name']} here; "
                "set hostnames: [full] in both"
            )

    def _composed_name(self, template: str, variables: Mapping[str, Any], machine: str) -> str:
        self.templar.available_variables = {**variables, **(self._vars or {})}
        try:
            name = str(self.templar.template(template) or "").strip()
        except AnsibleError as error:
            raise AnsibleParserError(
                f"hostnames: cannot evaluate {template!r} for {machine}: {error}"
            ) from None
        if name and not _HOST.match(name):
            raise AnsibleParserError(f"hostnames: {name!r} for {machine} is not a host name")
        return name

    def _add(self, name: str, machine: dict[str, Any], variables: dict[str, Any]) -> None:
        strict = self.get_option("strict")
        self.inventory.add_host(name)
        for key, value in {**self._connection(name, machine), **variables}.items():
            self.inventory.set_variable(name, key, value)
        self._set_composite_vars(self.get_option("compose"), variables, name, strict)
        self._add_host_to_composed_groups(self.get_option("groups"), variables, name, strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, name, strict)

    def _connection(self, name: str, machine: dict[str, Any]) -> dict[str, Any]:
        """Return the variables with which Ansible, and the role, reach the machine."""
        found = {"ansible_ssh_timeout": self.get_option("ssh_timeout")}
        if self.get_option("override_remote_user"):
            found["ansible_user"] = ""
        if path := self.get_option("ssh_config"):
            found["ansible_ssh_common_args"] = f"-F {shlex.quote(path)}"
        if name not in (machine["name"], machine["short_name"], *machine["aliases"]):
            found["ansible_host"] = machine["name"]
        for option in _ACCOUNT:
            value = self.get_option(option)
            if value and value != "dcs-proxy":
                found[f"dcs_{option}"] = value
        return found


def _digest_file(path: str | None) -> str | None:
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None  # the program reports it
