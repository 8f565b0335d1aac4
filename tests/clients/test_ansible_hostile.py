"""Ansible: what a machine, the API, the cache or the project's directory must not decide."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.clients.ansible_controller import Controller, failures, hosts_of, machines, squeeze
from tests.support.emulator import Emulator
from tests.support.fake_api import fake_api

Start = Callable[..., Emulator]

inventory_plugin = pytest.mark.client("Ansible: inventory plugin", "works")
STRANGER = 65534
wake_role = pytest.mark.client("Ansible: role wake", "works")

FACTS_THEN_WAKE = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
    - ansible.builtin.import_role: {name: dedalus.dcs.wake}
"""


@wake_role
@pytest.mark.parametrize("name", ["dcs_base_url", "dcs_program", "wake_program"])
def test_facts_of_a_machine_do_not_decide_where_the_key_is_sent(
    start_emulator: Start, controller: Controller, name: str
) -> None:
    user = controller.user
    user.use(start_emulator(*machines("dm-a", "dm-b")))
    mark = user.root / "mark"
    evil = program(user.root / "evil", f'echo "$DEDALUS_API_KEY" >{shlex.quote(str(mark))}')
    with fake_api() as api:
        facts = {name: api.url if name == "dcs_base_url" else str(evil)}
        # What a machine runs as its Python is the machine's own business.
        reply = json.dumps({"ping": "pong", "ansible_facts": facts})
        python = program(user.root / "python", f"echo {shlex.quote(reply)}")
        hosts = controller.write(
            "hosts",
            f"dm-a ansible_python_interpreter={shlex.quote(str(python))}\n"
            f"dm-b ansible_python_interpreter={shlex.quote(sys.executable)}\n",
        )
        site = controller.write("site.yml", FACTS_THEN_WAKE)
        done = controller.run("ansible-playbook", "-i", hosts, site)
        assert not api.asked
    assert not mark.exists()
    # The other host has its own result.
    assert failures(done.stdout).keys() == {"dm-a"}, done.stdout
    assert f"the facts of dm-a contain {name}, which only" in failures(done.stdout)["dm-a"]


def program(path: Path, script: str) -> Path:
    """Write a shell script; return its path."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@inventory_plugin
def test_a_cache_that_was_changed_adds_no_host(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(start_emulator("--machine", "dm-foo"), config=False)
    source = controller.source("cache: true\ncache_plugin: jsonfile\ncache_connection: ~/cache\n")
    controller.inventory(source)
    (cached,) = (controller.user.home / "cache").iterdir()
    text = cached.read_text()
    for name in ("-oProxyCommand=touch mark", "{{ 1 }}", "localhost"):
        cached.write_text(text.replace("dm-foo", name))
        done = controller.run("ansible-inventory", "-i", source, "--list")
        assert name not in hosts_of(json.loads(done.stdout))
        assert squeeze("is not the name of a machine") in squeeze(done.stderr)


@inventory_plugin
def test_no_program_of_the_projects_directory_is_run(
    start_emulator: Start, controller: Controller
) -> None:
    user = controller.user
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    mark = user.root / "mark"
    program(controller.project / "dcs-proxy", f"touch {shlex.quote(str(mark))}")
    for path in ("", ".", "../project"):
        env = {"PATH": f"{path}:{user.environment['PATH']}"}
        done = controller.run("ansible-inventory", "-i", controller.source(), "--list", env=env)
        assert not mark.exists()
        assert hosts_of(json.loads(done.stdout)) == ["dm-foo"]


@inventory_plugin
def test_a_key_file_that_others_can_use_is_refused(
    start_emulator: Start, controller: Controller
) -> None:
    user = controller.user
    emulator = start_emulator("--machine", "dm-foo")
    user.use(emulator, config=False)
    place = user.root / "place"
    place.mkdir()
    key = place / "key"
    key.write_text(emulator.key)
    source = controller.source(f"api_key_file: {json.dumps(str(key))}\n")
    said = f"the key file {key}"
    wrong = [
        (0o644, 0o700, os.geteuid(), f"{said} is readable by other users; hint: chmod 600"),
        (0o602, 0o700, os.geteuid(), f"{said} is writable by other users (mode 0602)"),
        (0o600, 0o777, os.geteuid(), f"{said} is not trusted: {place} is writable by other users"),
    ]
    if os.geteuid() == 0:
        wrong.append((0o600, 0o700, STRANGER, f"{said} belongs to another user"))
    # A key that would be used in place of the file's.
    user.environment["DEDALUS_X_API_KEY"] = emulator.key
    for mode, directory_mode, owner, problem in wrong:
        key.chmod(mode)
        place.chmod(directory_mode)
        os.chown(key, owner, -1)
        done = controller.run("ansible-inventory", "-i", source, "--list")
        assert hosts_of(json.loads(done.stdout)) == []
        assert squeeze(problem) in squeeze(done.stderr)
    os.chown(key, os.geteuid(), -1)
    key.chmod(0o600)
    place.chmod(0o700)
    assert hosts_of(controller.inventory(source)) == ["dm-foo"]
