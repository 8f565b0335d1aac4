"""Ansible: the role that wakes a play's machines before it."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable

import pytest
import yaml

from tests.clients.ansible_controller import (
    ROLE,
    Controller,
    account,
    failures,
    machines,
    pinged,
)
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

HINT = "dcs-proxy: hint: check the network"

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
    count_runs(controller)
    site = controller.write("site.yml", ROLE)
    # Another host, here this computer, is left alone.
    hosts = controller.write("hosts", "other ansible_connection=local\n")
    sources = ["-i", controller.source(), "-i", hosts]
    done = controller.run("ansible-playbook", *mode, *sources, site)
    assert done.returncode != 0
    assert done.stdout.count("TASK [dedalus.dcs.wake : Wake the machines]") == 1
    assert len(runs_of_wake(user)) == 1
    assert failures(done.stdout) == {name: said(user, name) for name in ("dm-b", "dm-c")}
    assert pinged(done.stdout) == ["dm-a", "dm-b-1", "other"]
    assert "changed=1" not in done.stdout
    assert len(emulator.sessions_created()) == 2


def said(user: User, name: str) -> str:
    """Return what dcs-proxy says of a machine that it cannot wake, on one line."""
    lines = user.proxy("wake", name).stderr.splitlines()
    return "; ".join(line.removeprefix("dcs-proxy: ") for line in lines)


def count_runs(controller: Controller) -> None:
    """Let each run of dcs-proxy leave a line with its arguments."""
    user = controller.user
    program = user.root / "bin" / "dcs-proxy"
    program.write_text(
        f'#!/bin/sh\necho "$*" >>{shlex.quote(str(user.root / "runs"))}\n'
        f'exec {shlex.quote(sys.executable)} -m dcs_proxy "$@"\n'
    )
    program.chmod(0o755)


def runs_of_wake(user: User) -> list[str]:
    """Return the arguments of each run of dcs-proxy wake."""
    lines = (user.root / "runs").read_text().splitlines()
    return [line for line in lines if " wake " in f" {line} "]


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
    count_runs(controller)
    done = controller.run("ansible-playbook", "-i", ",".join(names), site)
    assert done.returncode == 0, done.stdout
    assert runs_of_wake(controller.user) == ["wake dm-a dm-b", "wake dm-c"]


@wake_role
@pytest.mark.parametrize(
    "condition",
    [
        "inventory_hostname in chosen",  # a variable of the play
        "wanted | default(false) | bool",  # of some hosts
        """["inventory_hostname != 'dm-b'", "'web' in group_names"]""",
        "hostvars[inventory_hostname].wanted is defined",
    ],
)
def test_a_machine_whose_condition_is_false_stays_asleep(
    start_emulator: Start, controller: Controller, condition: str
) -> None:
    names = ("dm-a", "dm-b", "dm-c")
    emulator = start_emulator(*machines(*(f"{name}:sleeping" for name in names)))
    controller.user.use(emulator)
    count_runs(controller)
    play = ROLE.replace(
        "{name: dedalus.dcs.wake}", f"{{name: dedalus.dcs.wake}}\n      when: {condition}"
    )
    play = play.partition("  tasks:")[0] + "  vars: {chosen: [dm-a, dm-c]}\n"
    hosts = controller.write("hosts", "dm-b\n[web]\ndm-a wanted=true\ndm-c wanted=true\n")
    done = controller.run("ansible-playbook", "-i", hosts, controller.write("site.yml", play))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert [sorted(run.split()) for run in runs_of_wake(controller.user)] == [
        ["dm-a", "dm-c", "wake"]
    ]
    assert len(emulator.creates()) == 2


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
        ({"wake_program": "dcs-none"}, "cannot run dcs-none: No such file or directory"),
        ({"wake_config": "/no/file"}, "the config file /no/file does not exist"),
        ({"wake_home": "/dev/null"}, "/dev/null"),
    ):
        done = controller.run(
            "ansible-playbook", "-i", "dm-a,dm-b", "-e", json.dumps(options), site
        )
        found = failures(done.stdout)
        assert found.keys() == {"dm-a", "dm-b"}, done.stdout
        assert all(message in text for text in found.values()), found


@wake_role
@pytest.mark.parametrize("strategy", ["linear", "free", "host_pinned"])
def test_one_run_wakes_all_under_every_strategy(
    start_emulator: Start, controller: Controller, strategy: str
) -> None:
    names = [f"dm-m{number}" for number in range(4)]
    emulator = start_emulator(*machines(*(f"{name}:sleeping" for name in names)))
    controller.user.use(emulator)
    count_runs(controller)
    play = ROLE.replace("hosts: all", f"hosts: all\n  strategy: {strategy}")
    site = controller.write("site.yml", play)
    for _ in range(2):
        # Fewer forks than hosts: some come when the first run has ended.
        done = controller.run("ansible-playbook", "-f", "2", "-i", ",".join(names), site)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        # The check of the role's variables, the wake and the ping, in any order.
        assert len(re.findall(r"^ok: \[", done.stdout, re.MULTILINE)) == 3 * len(names)
    assert [sorted(run.split()[1:]) for run in runs_of_wake(controller.user)] == [names, names]
    assert len(emulator.creates()) == len(names)


RESULTS = """\
- hosts: all
  gather_facts: false
  tasks:
    - dedalus.dcs.wake:
      register: wake
    - ansible.builtin.copy:
        content: "{{ wake }}"
        dest: "{{ playbook_dir }}/result-{{ inventory_hostname }}"
      delegate_to: localhost
"""


@wake_role
def test_the_result_says_what_was_woken_and_how_long_it_took(
    start_emulator: Start, controller: Controller
) -> None:
    web, other = (f"017f22e2-79b0-7cc3-98c4-dc0c0c07{end}" for end in ("398f", "c0de"))
    user = controller.user
    user.settings(f'[aliases]\ndm-web = "{web}"\n')
    arguments = [*machines(f"{web}:sleeping", other), "--ids", "uuid"]
    user.use(start_emulator(*arguments, "--wake-seconds", "2"), config=False)
    site = controller.write("site.yml", RESULTS)
    hosts = controller.write("hosts", "dm-web\ndm-c0de\nother ansible_connection=local\n")
    done = controller.run("ansible-playbook", "-i", hosts, site)
    assert done.returncode == 0, done.stdout
    woken, awake, skipped = (
        json.loads((controller.project / f"result-{host}").read_text())
        for host in ("dm-web", "dm-c0de", "other")
    )
    assert (woken["woken"], woken["changed"], woken["failed"]) == (True, False, False)
    assert woken["seconds"] >= 2
    assert woken["msg"] == f"dm-{web}: woken, ready after {woken['seconds']} s"
    (machine,) = woken["machines"]
    assert machine == {key: woken[key] for key in ("woken", "failed", "seconds", "msg")} | {
        "machine": f"dm-{web}"
    }
    assert (awake["woken"], awake["seconds"] < woken["seconds"]) == (False, True)
    assert awake["machines"][0]["machine"] == f"dm-{other}"
    assert skipped["skipped"] is True


@wake_role
def test_the_role_serves_two_accounts(start_emulator: Start, controller: Controller) -> None:
    user, words, emulators = controller.user, [], {}
    for name in ("red", "blue"):
        emulator = start_emulator(*machines(f"dm-{name}-1:sleeping", f"dm-{name}-2"))
        emulators[name] = emulator
        options = account(user, emulator, name) | {"ssh_config": str(user.root / f"ssh {name}")}
        words += ["-i", controller.source(yaml.safe_dump(options), name=name)]
        done = user.proxy(
            "--home", options["home"], "--config", options["config"],
            "config-ssh", "--ssh-config", options["ssh_config"], env=without_state(user),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    # The user's own ssh config is no part of it.
    for name in ("ssh", "sftp"):
        (user.root / "bin" / name).unlink()
    count_runs(controller)
    site = controller.write("site.yml", ROLE)
    for _ in range(2):
        done = controller.run("ansible-playbook", *words, site, env=without_state(user))
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert len(pinged(done.stdout)) == 4
        controller.end_masters()
    runs = [run.partition(" wake ")[2] for run in runs_of_wake(user)]
    assert sorted(runs) == sorted(["dm-blue-1 dm-blue-2", "dm-red-1 dm-red-2"] * 2)
    assert [len(emulator.creates()) for emulator in emulators.values()] == [2, 2]


def without_state(user: User) -> dict[str, str]:
    """Return the user's environment without what names one account's files."""
    named = ("DCS_PROXY_HOME", "DCS_PROXY_CONFIG")
    return {key: value for key, value in user.environment.items() if key not in named}


AGAIN = """\
- hosts: all
  gather_facts: false
  tasks:
    - dedalus.dcs.wake:
      register: wake
      until: wake is not failed
      delay: 0
"""


@wake_role
def test_a_host_that_tries_again_is_woken_again(
    start_emulator: Start, controller: Controller
) -> None:
    emulator = start_emulator(*machines("dm-a", "dm-b"), "--fault", "dm-b=403/POST@1")
    controller.user.use(emulator)
    count_runs(controller)
    done = controller.run("ansible-playbook", "-i", "dm-a,dm-b", controller.write("s.yml", AGAIN))
    assert done.returncode == 0, done.stdout
    assert runs_of_wake(controller.user) == ["wake dm-a dm-b"] * 2


@wake_role
def test_a_key_from_a_vault_is_in_no_argument_and_no_output(
    start_emulator: Start, controller: Controller
) -> None:
    emulator = start_emulator("--machine", "dm-a:sleeping")
    user = controller.user.use(emulator, config=False)
    del user.environment["DEDALUS_API_KEY"]
    count_runs(controller)
    play = ROLE.partition("  tasks:")[0]
    done = controller.run(
        "ansible-playbook", "-vvvv", "-i", "dm-a,", controller.write("site.yml", play),
        "-e", "@" + controller.write("vars.yml", f"wake_api_key: {emulator.key}\n"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert emulator.key not in done.stdout + done.stderr
    assert runs_of_wake(user) == ["wake dm-a"]


@wake_role
def test_an_error_reaches_a_short_name_and_an_alias_without_the_api(controller: Controller) -> None:
    down = "the API at https://api.example cannot be reached: Connection refused"
    names = ["dm-0000-aaaa", "dm-0000-bbbb", "dm-0000-cccc"]
    progress = [f"dcs-proxy: {name}: {down}; trying again" for name in names]
    errors = [line for name in names for line in (f"dcs-proxy: {name}: {down}", HINT)]
    program = controller.user.root / "program"
    lines = " ".join(shlex.quote(line) for line in (*progress, *errors))
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' {lines} >&2\nexit 7\n")
    program.chmod(0o755)
    done = controller.run(
        "ansible-playbook", "-i", "dm-aaaa,dm-bbbb,dm-alias", controller.write("site.yml", ROLE),
        "-e", json.dumps({"wake_program": str(program)}),
    )  # fmt: skip
    hint = HINT.removeprefix("dcs-proxy: ")
    said = {name[-4:]: f"{name}: {down}; {hint}" for name in names}
    assert failures(done.stdout) == {
        "dm-aaaa": said["aaaa"], "dm-bbbb": said["bbbb"], "dm-alias": "; ".join(said.values())
    }  # fmt: skip
