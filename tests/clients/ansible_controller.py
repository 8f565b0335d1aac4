"""A user with Ansible and the collection: what the tests of Ansible are played with."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.emulator import Emulator
from tests.support.user import User
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "contrib" / "ansible"
PLUGIN = "dedalus.dcs.machines"
# No other plugin tries the file.
OURS_ONLY = {"ANSIBLE_INVENTORY_ENABLED": PLUGIN}
# A play with the role.
ROLE = """\
- hosts: all
  gather_facts: false
  pre_tasks:
    - ansible.builtin.import_role: {name: dedalus.dcs.wake}
  tasks:
    - ansible.builtin.ping:
"""


class Controller:
    """The user's project directory and Ansible's programs, which find everything by themselves.

    Ansible is given no option that leads to our ssh config: the user's ssh and sftp are small
    scripts that name it, since ssh looks for ~/.ssh where the password file says.
    """

    def __init__(self, user: User, collections: Path) -> None:
        self.user = user
        self.project = user.root / "project"
        self.project.mkdir()
        programs = user.root / "bin"
        programs.mkdir()
        for name in ("ssh", "sftp"):
            real = shutil.which(name)
            script = programs / name
            script.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(user.config))} "$@"\n')
            script.chmod(0o755)
        own = Path(sys.executable).parent
        user.environment.update(
            PATH=f"{programs}:{own}:{user.environment['PATH']}",
            LC_ALL="C.UTF-8",
            ANSIBLE_NOCOLOR="1",
            ANSIBLE_COLLECTIONS_PATH=str(collections),
            # On a machine it is where the machine has it; here it is ours.
            ANSIBLE_PYTHON_INTERPRETER=sys.executable,
        )

    def run(
        self, program: str, *arguments: str, env: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's programs in the project directory."""
        environment = {**self.user.environment, **(env or {})}
        return self.user.run(
            [program, *arguments], **{"cwd": self.project, "env": environment, **more}
        )

    def write(self, name: str, text: str) -> str:
        """Write a file of the project; return its name."""
        (self.project / name).write_text(text)
        return name

    def source(self, options: str = "", name: str = "machines") -> str:
        """Write an inventory source with options of the plugin; return its name."""
        return self.write(f"{name}.dcs.yml", f"plugin: {PLUGIN}\n{options}")

    def inventory(self, source: str, **more: Any) -> dict[str, Any]:
        """Return what ansible-inventory makes of a source; it says nothing else."""
        done = self.run("ansible-inventory", "-i", source, "--list", **more)
        assert (done.returncode, done.stderr) == (0, "")
        return dict(json.loads(done.stdout))

    def masters(self) -> list[Path]:
        """Return the sockets of the connections that persist."""
        return [p for p in self.user.home.glob(".ansible/cp/*") if p.is_socket()]

    def end_masters(self) -> None:
        """End the connections that persist, and wait for their end."""
        for path in self.masters():
            self.user.run(["ssh", "-S", str(path), "-O", "exit", "dm-any"])
            wait_until(lambda p=path: not os.path.exists(p))


def account(user: User, emulator: Emulator, name: str) -> dict[str, str]:
    """Write the config file and the key file of an account; return the options that name them."""
    key, config = user.root / f"{name} key", user.root / f"{name}.toml"
    key.write_text(f"{emulator.key}\n")
    key.chmod(0o600)
    config.write_text(f'base_url = "{emulator.api}"\nkey_file = "{key}"\n')
    return {"config": str(config), "home": str(user.root / f"{name} state")}


def plain(value: Any) -> Any:
    """Return a value of ansible-inventory without its marks of text that is no template."""
    if isinstance(value, dict):
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value


def squeeze(text: str) -> str:
    """Return the text without spaces and newlines: before 2.19 ansible-core breaks long lines."""
    return "".join(text.split())


def machines(*names: str) -> list[str]:
    """Return an emulator's arguments for these machines."""
    return [word for name in names for word in ("--machine", name)]


def hosts_of(inventory: dict[str, Any]) -> list[str]:
    """Return the hosts that ansible-inventory lists."""
    return sorted(inventory["_meta"]["hostvars"])


def failures(output: str) -> dict[str, str]:
    """Return what a playbook's output says of each host that failed."""
    found = re.findall(r"^fatal: \[(.*)\]: FAILED! => (.*)", output, re.MULTILINE)
    return {host: json.loads(result)["msg"] for host, result in found}


def pinged(output: str) -> list[str]:
    """Return the hosts on which a playbook's last task, a ping, went well."""
    last = output.partition("TASK [ansible.builtin.ping]")[2]
    return sorted(re.findall(r"^ok: \[(.*)\]", last, re.MULTILINE))
