"""Ansible: a whole site: machines of one account or two, half asleep, beside an ordinary host.

With ``--ansible-machines 50 --ansible-collections DIRECTORY`` as ``contrib/dev/ansible`` does; the
directory has ansible.posix, whose synchronize is then a task as well.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from tests.clients.ansible_controller import Controller, account, machines
from tests.support.emulator import Emulator
from tests.support.sshd import authorised_sshd
from tests.support.user import User

Start = Callable[..., Emulator]

CONFIG = "[defaults]\nremote_user = ubuntu\nforks = 20\n[ssh_connection]\npipelining = true\n"
SITE = """\
- hosts: all
  gather_facts: false
  pre_tasks:
    - ansible.builtin.import_role: {name: dedalus.dcs.wake}
    - ansible.builtin.setup: {gather_subset: min}
  tasks:
    - ansible.builtin.file: {path: "{{ directory }}", state: directory, mode: "0700"}
    - ansible.builtin.copy: {src: file, dest: "{{ directory }}/copy", mode: "0600"}
    - ansible.builtin.template: {src: t.j2, dest: "{{ directory }}/template", mode: "0600"}
    - ansible.builtin.command: {cmd: touch waited, chdir: "{{ directory }}"}
      async: 120
      poll: 1
"""
SYNCHRONIZE = """\
    - ansible.posix.synchronize:
        src: tree/
        dest: "{{ directory }}/tree"
        verify_host: true
        use_ssh_args: true
"""


class Site:
    """A project with a source for each account, and what the test wants to know of it."""

    def __init__(self, controller: Controller, directory: Path, collections: Path | None) -> None:
        self.controller = controller
        self.directory = directory / "machines"
        self.directory.mkdir()
        self.emulators: list[Emulator] = []
        self.sources = ["-i", controller.write("hosts", "ordinary ansible_connection=local\n")]
        controller.write("ansible.cfg", CONFIG)
        controller.write("file", "data\n" * 1000)
        controller.write("t.j2", "{{ inventory_hostname }} {{ ansible_facts.system }}\n")
        (controller.project / "tree").mkdir()
        controller.write("tree/file", "data\n")
        tasks = SYNCHRONIZE if collections else ""
        self.playbook = controller.write("site.yml", SITE + tasks)
        self.files = {"copy", "template", "waited", *(["tree"] if collections else [])}
        path = controller.user.environment["ANSIBLE_COLLECTIONS_PATH"]
        self.environment = without_state(controller.user) | {
            "ANSIBLE_COLLECTIONS_PATH": f"{path}:{collections}" if collections else path,
            "ANSIBLE_REMOTE_TMP": str(directory / "remote-tmp"),
            "ANSIBLE_ASYNC_DIR": str(directory / "async"),
        }
        # The sources name ssh configs, as a user's own would be found without.
        for name in ("ssh", "sftp"):
            (controller.user.root / "bin" / name).unlink()

    def add_account(self, name: str, emulator: Emulator) -> None:
        """Write the ssh config and the source of one account."""
        user = self.controller.user
        files = account(user, emulator, name) | {"ssh_config": str(user.root / f"ssh {name}")}
        done = user.proxy(
            "--home", files["home"], "--config", files["config"],
            "config-ssh", "--ssh-config", files["ssh_config"], env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        source = self.controller.source(yaml.safe_dump(files), name=name)
        self.sources += ["-i", source]
        self.emulators.append(emulator)

    def play(self) -> float:
        """Run the playbook; return how many seconds that took."""
        start = time.monotonic()
        remote = json.dumps({"directory": f"{self.directory}/{{{{ inventory_hostname }}}}"})
        done = self.controller.run(
            "ansible-playbook", *self.sources, "-e", remote, self.playbook,
            env=self.environment, timeout=1800,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        self.controller.end_masters()
        return time.monotonic() - start

    def posts(self) -> list[int]:
        """Return how many sessions each account's API was asked for."""
        return [len(emulator.creates()) for emulator in self.emulators]


def without_state(user: User) -> dict[str, str]:
    """Return the user's environment without what names one account's files."""
    named = ("DCS_PROXY_HOME", "DCS_PROXY_CONFIG")
    return {key: value for key, value in user.environment.items() if key not in named}


@pytest.mark.client("Ansible: a site with two accounts", "works")
def test_a_site_takes_one_session_for_each_machine_and_none_again(
    start_emulator: Start,
    controller: Controller,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    accounts = ["red", "blue"][: request.config.getoption("--ansible-accounts")]
    count = request.config.getoption("--ansible-machines") // len(accounts)
    site = Site(controller, tmp_path, request.config.getoption("--ansible-collections"))
    hosts = ["ordinary"]
    with ExitStack() as running:
        for name in accounts:
            (tmp_path / name).mkdir()
            _, arguments = running.enter_context(authorised_sshd(tmp_path / name))
            names = [f"dm-{name}-{number:02}" for number in range(count)]
            phases = [f"{each}:sleeping" for each in names[::2]] + names[1::2]
            # The emulator does not see the logins that keep a machine awake: sshd does.
            awake = ["--wake-seconds", "2", "--autosleep-seconds", "7200"]
            emulator = start_emulator(*machines(*phases), *awake, *arguments)
            site.add_account(name, emulator)
            hosts += names
        first = site.play()
        assert site.posts() == [count] * len(accounts)
        for host in hosts:
            found = {path.name for path in (site.directory / host).iterdir()}
            assert found == site.files, host
            assert (site.directory / host / "template").read_text() == f"{host} Linux\n"
        second = site.play()
        assert site.posts() == [count] * len(accounts)
    record_property("figures", f"{count * len(accounts)} machines: {first:.0f} s, {second:.0f} s")
    print(f"{count * len(accounts)} machines, {site.posts()} POSTs: {first:.0f} s, {second:.0f} s")
