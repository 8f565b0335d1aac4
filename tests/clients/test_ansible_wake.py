"""Ansible: the role that wakes a play's machines before it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.clients.ansible_controller import (
    ROLE,
    Controller,
    failures,
    machines,
    pinged,
)
from tests.support.emulator import Emulator

Start = Callable[..., Emulator]

wake_role = pytest.mark.client("Ansible: role wake", "works")


@wake_role
@pytest.mark.parametrize("mode", [[], ["--check"]], ids=["run", "check"])
def test_the_role_wakes_all_and_says_who_does_not_wake(
    start_emulator: Start, controller: Controller, mode: list[str]
) -> None:
    user = controller.user
    user.settings('[aliases]\ndm-web = "dm-a"\n')
    names = ("dm-a", "dm-b", "dm-b-1", "dm-c")
    emulator = start_emulator(
        *machines(*(f"{name}:sleeping" for name in names)), "--wake-seconds", "1",
        "--fault", "dm-b=403/POST", "--fault", "dm-c=404/POST",
    )  # fmt: skip
    user.use(emulator)
    site = controller.write("site.yml", ROLE)
    # Another host, here this computer, is none of the role's.
    hosts = controller.write("hosts", "other ansible_connection=local\n")
    sources = ["-i", controller.source(), "-i", hosts]
    done = controller.run("ansible-playbook", *mode, *sources, site)
    assert done.returncode != 0
    assert done.stdout.count("TASK [dedalus.dcs.wake : Wake the machines]") == 1
    assert failures(done.stdout) == {
        "dm-b": user.proxy("wake", "dm-b").stderr.strip(),
        "dm-c": user.proxy("wake", "dm-c").stderr.strip(),
    }
    assert pinged(done.stdout) == ["dm-b-1", "dm-web", "other"]
    assert "changed=1" not in done.stdout
    assert len(emulator.sessions_created()) == 2


@wake_role
def test_an_alias_in_an_inventory_without_variables_is_woken(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.settings('[aliases]\ndm-web = "dm-a"\n')
    emulator = start_emulator(*machines("dm-a:sleeping"), "--wake-seconds", "1")
    controller.user.use(emulator)
    done = controller.run("ansible-playbook", "-i", "dm-web,", controller.write("site.yml", ROLE))
    assert pinged(done.stdout) == ["dm-web"], done.stdout
    assert len(emulator.sessions_created()) == 1


@wake_role
def test_each_batch_is_woken_when_its_turn_comes(
    start_emulator: Start, controller: Controller
) -> None:
    names = ("dm-a", "dm-b", "dm-c")
    controller.user.use(
        start_emulator(*machines(*(f"{name}:sleeping" for name in names)), "--wake-seconds", "0.5")
    )
    site = controller.write("site.yml", ROLE.replace("hosts: all", "hosts: all\n  serial: 2"))
    done = controller.run("ansible-playbook", "-v", "-i", ",".join(names), site)
    assert done.returncode == 0, done.stdout
    commands = re.findall(r'"cmd": \["dcs-proxy", "wake", "(.*?)"\]', done.stdout)
    assert commands == ['dm-a", "dm-b', "dm-c"]


@wake_role
def test_machines_that_are_no_hosts_of_the_play_do_not_fail_unseen(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(start_emulator("--machine", "dm-a:sleeping", "--fault", "dm-a=403/POST"))
    play = ROLE.replace("hosts: all", "hosts: localhost")
    done = controller.run(
        "ansible-playbook", "-i", "dm-a,", "-e", json.dumps({"wake_hosts": ["dm-a"]}),
        controller.write("site.yml", play),
    )  # fmt: skip
    assert done.returncode != 0
    assert "dm-a: the API denied permission" in done.stdout
    assert pinged(done.stdout) == []


@wake_role
def test_the_role_tells_each_host_what_concerns_them_all(controller: Controller) -> None:
    site = controller.write("site.yml", ROLE)
    for options, message in (
        ({}, "there is no API key"),
        ({"wake_program": "dcs-none"}, "dcs-none: "),
        ({"wake_config": "/no/file"}, "the config file /no/file does not exist"),
        ({"wake_home": "/dev/null"}, "/dev/null"),
    ):
        done = controller.run(
            "ansible-playbook", "-i", "dm-a,dm-b", "-e", json.dumps(options), site
        )
        said = failures(done.stdout)
        assert said.keys() == {"dm-a", "dm-b"}, done.stdout
        assert all(message in text for text in said.values()), said
