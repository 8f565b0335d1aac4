"""Ansible: its own programs with machines that sleep."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from sysconfig import get_path

import pytest

from tests.clients.ansible_controller import (
    ROLE,
    SOURCE,
    Controller,
    machines,
    pinged,
)
from tests.support.bridge import wait_until_gone
from tests.support.emulator import Emulator
from tests.support.sshd import authorised_sshd
from tests.support.user import helpers_for
from tests.support.waiting import wait_until

Start = Callable[..., Emulator]

PATIENT = "with: ansible_ssh_timeout no shorter than the wake, as the inventory plugin sets it"
PIPELINING = {"ANSIBLE_PIPELINING": "1"}
# become_exe is one that every computer has and that asks nobody: env -u root unsets a variable.
BECOME = {
    **PIPELINING,
    "ANSIBLE_BECOME": "1",
    "ANSIBLE_BECOME_EXE": "env",
    "ANSIBLE_BECOME_FLAGS": "",
}
MITOGEN = {
    "ANSIBLE_STRATEGY": "mitogen_linear",
    "ANSIBLE_STRATEGY_PLUGINS": f"{get_path('purelib')}/ansible_mitogen/plugins/strategy",
}
works = pytest.mark.client("Ansible", "works")
mitogen = pytest.mark.client("Mitogen", PATIENT)
PING = ("-m", "ansible.builtin.ping")
# Any login and password: the bridge accepts the program that started it.
PARAMIKO = {
    "ansible_connection": "ansible.builtin.paramiko_ssh",
    "ansible_paramiko_proxy_command": "dcs-proxy %h %p",
    "ansible_user": "any",
    "ansible_password": "any",
}
needs_paramiko = pytest.mark.skipif(
    find_spec("ansible.plugins.connection.paramiko_ssh") is None,
    reason="ansible-core 2.21 and later have no paramiko_ssh",
)


@works
def test_ansible_gives_ssh_no_login_and_a_limit_that_a_wake_may_exceed(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "11"))
    copy = ["-m", "ansible.builtin.copy", "-a", json.dumps({"content": "x", "dest": "~/note"})]
    done = controller.run("ansible", "-vvvv", "-i", "dm-foo,", "all", *copy)
    assert done.returncode == 0, done.stdout
    assert "<dm-foo> ESTABLISH SSH CONNECTION FOR USER: None" in done.stdout
    commands = re.findall(r"<dm-foo> SSH: EXEC (.*)", done.stdout)
    (control_path,) = controller.masters()
    options = [
        "-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s",
        "-o", "KbdInteractiveAuthentication=no",
        "-o", "PreferredAuthentications=gssapi-with-mic,gssapi-keyex,hostbased,publickey",
        "-o", "PasswordAuthentication=no", "-o", "ConnectTimeout=10",
        "-o", f'ControlPath="{control_path}"',
    ]  # fmt: skip
    # Since ansible-core 2.19.
    askpass = "-o NumberOfPasswordPrompts=1 "
    for command in commands:
        # With a terminal for the module itself; before 2.19 ssh is as verbose as Ansible.
        program, *words = [
            word
            for word in shlex.split(command.replace(askpass, ""))
            if not re.fullmatch("-tt|-v+", word)
        ]
        if program == "sftp":
            assert words == ["-b", "-", *options, "[dm-foo]"]
        else:
            assert (program, words[:-1]) == ("ssh", [*options, "dm-foo"])
            assert words[-1].startswith("/bin/sh -c ")
    assert any(command.startswith("sftp ") for command in commands)


@works
def test_machines_that_fail_say_why_through_controlpersist(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(
        start_emulator(*machines("dm-foo", "dm-bar"), "--fault", "dm-bar=gateway-refuses")
    )
    done = controller.run("ansible", "-i", "dm-foo,dm-bar,dm-none", "all", *PING)
    assert done.returncode != 0
    assert "dm-foo | SUCCESS" in done.stdout
    said = unreachable(done.stdout)
    assert said.keys() == {"dm-bar", "dm-none"}
    # What the ProxyCommand wrote to stderr is lost; this has come through ssh.
    assert "dcs-proxy: dm-bar: " not in said["dm-bar"]
    assert ":11: dm-bar: the gateway localhost:" in said["dm-bar"]
    # What the Match exec wrote is not lost.
    assert "dcs-proxy: dm-none: no such machine" in said["dm-none"]
    for text in said.values():
        assert (text.count("hint: "), text.count("no such machine")) in ((1, 0), (1, 1)), text


@works
@pytest.mark.parametrize("jump", ["-o ProxyJump=hop.example", "-J hop.example"])
def test_a_jump_for_the_whole_site_is_named_and_wakes_nothing(
    start_emulator: Start, controller: Controller, jump: str
) -> None:
    emulator = start_emulator("--machine", "dm-foo:sleeping")
    controller.user.use(emulator)
    variables = json.dumps({"ansible_ssh_common_args": jump})
    done = controller.run("ansible", "-i", "dm-foo,", "-e", variables, "all", *PING)
    said = unreachable(done.stdout)["dm-foo"]
    assert "dm-foo: ssh is about to connect through hop.example and not through dcs-proxy" in said
    assert "hint: leave ProxyJump and ProxyCommand out of this host's ansible_ssh_co" in said
    assert emulator.creates() == []


@works
def test_an_error_is_shown_without_the_progress_before_it(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.settings("wake_seconds = 1\n")
    controller.user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "600"))
    done = controller.run("ansible", "-i", "dm-foo,", "all", *PING)
    said = unreachable(done.stdout)["dm-foo"].partition("via ssh: ")[2]
    assert said.startswith("dcs-proxy: dm-foo: not ready after 1 s\ndcs-proxy: hint: "), said


def unreachable(output: str) -> dict[str, str]:
    """Return what the output of an ad hoc command says of each host that was not reached."""
    found = re.findall(r"^(\S+) \| UNREACHABLE! => (\{.*?^\})", output, re.MULTILINE | re.DOTALL)
    return {host: json.loads(result)["msg"] for host, result in found}


FILES = """\
- hosts: all
  gather_subset: min
  tasks:
    - ansible.builtin.copy: {src: file, dest: "{{ remote }}/copy", mode: "0600"}
    - ansible.builtin.template: {src: template.j2, dest: "{{ remote }}/rendered", mode: "0600"}
    - ansible.builtin.fetch: {src: "{{ remote }}/copy", dest: fetched, flat: true}
"""


@works
@pytest.mark.parametrize("env", [{}, PIPELINING], ids=["plain", "pipelining"])
def test_a_playbook_moves_files(
    start_emulator: Start, controller: Controller, tmp_path: Path, env: dict[str, str]
) -> None:
    with authorised_sshd(tmp_path) as (_, arguments):
        check_moves(controller, start_emulator("--machine", "dm-foo", *arguments), tmp_path, env)


@works
def test_a_playbook_moves_files_through_the_emulators_gateway(
    start_emulator: Start, controller: Controller, tmp_path: Path
) -> None:
    check_moves(controller, start_emulator("--machine", "dm-foo"), tmp_path, {})


@mitogen
def test_mitogen_moves_files(start_emulator: Start, controller: Controller, tmp_path: Path) -> None:
    env = {**MITOGEN, "ANSIBLE_SSH_TIMEOUT": "300"}
    with authorised_sshd(tmp_path) as (_, arguments):
        emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1", *arguments)
        check_moves(controller, emulator, tmp_path, env)


@needs_paramiko
@pytest.mark.client("Ansible: -c paramiko_ssh", "with: ansible_paramiko_proxy_command")
def test_paramiko_moves_files_through_the_bridge(
    start_emulator: Start, controller: Controller, tmp_path: Path
) -> None:
    with authorised_sshd(tmp_path) as (_, arguments):
        emulator = start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1", *arguments)
        trust_bridge(controller, emulator)
        check_moves(controller, emulator, tmp_path, {}, PARAMIKO)
    wait_until_gone(controller.user)


@needs_paramiko
@pytest.mark.client("Ansible: -c paramiko_ssh", "with: ansible_paramiko_proxy_command")
def test_the_log_says_why_paramiko_failed(start_emulator: Start, controller: Controller) -> None:
    trust_bridge(controller, start_emulator("--machine", "dm-foo", "--fault", "dm-foo=403/POST"))
    done = controller.run("ansible", "-i", "dm-foo,", "-e", json.dumps(PARAMIKO), "all", *PING)
    # paramiko drops the text of a disconnect message.
    assert "transport shut down" in unreachable(done.stdout)["dm-foo"]
    wait_until_gone(controller.user)
    assert "the API denied permission" in controller.user.proxy("log", "dm-foo").stdout


def trust_bridge(controller: Controller, emulator: Emulator) -> None:
    """Put the bridge's host keys where paramiko_ssh looks for them."""
    user = controller.user.use(emulator)
    (user.home / ".ssh").mkdir(mode=0o700)
    (user.home / ".ssh" / "known_hosts").write_bytes((user.state / "known_hosts").read_bytes())


def check_moves(
    controller: Controller,
    emulator: Emulator,
    directory: Path,
    env: dict[str, str],
    variables: dict[str, str] | None = None,
) -> None:
    """Assert that files come to the machine and back, and that one session is enough."""
    remote = directory / "remote files"
    remote.mkdir()
    data = random.Random(1).randbytes(300_000)
    (controller.project / "file").write_bytes(data)
    controller.write("template.j2", "{{ inventory_hostname }} {{ ansible_facts.system }}\n")
    site = controller.write("site.yml", FILES)
    controller.user.use(emulator)
    extra = ["-e", json.dumps({"remote": str(remote), **(variables or {})})]
    done = controller.run(
        "ansible-playbook", "-i", "dm-foo,", *extra, site, env={**env, **below(directory)}
    )
    assert done.returncode == 0, done.stdout
    controller.end_masters()
    assert len(emulator.creates()) == 1
    assert (remote / "copy").read_bytes() == data
    assert (remote / "rendered").read_text() == "dm-foo Linux\n"
    assert (controller.project / "fetched").read_bytes() == data


def below(directory: Path) -> dict[str, str]:
    """Return the environment that keeps what Ansible writes on a machine below `directory`.

    A real sshd's machine is this computer, and its home the tester's own.
    """
    return {"ANSIBLE_REMOTE_TMP": str(directory / "remote-tmp")}


@pytest.mark.client("Ansible: more hosts than forks", "works")
def test_many_hosts_have_a_session_each_and_keep_it(
    start_emulator: Start, controller: Controller, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    count = request.config.getoption("--ansible-hosts")
    forks = count * 2 // 5  # 20 of 50
    names = [f"dm-m{number:02}" for number in range(count)]
    phases = [
        f"{name}:{'sleeping' if number % 2 else 'running'}" for number, name in enumerate(names)
    ]
    with authorised_sshd(tmp_path) as (_, arguments):
        emulator = start_emulator(*machines(*phases), "--wake-seconds", "1", *arguments)
        controller.user.use(emulator)
        source = controller.source()
        for _ in range(2):
            # No module, which would start an interpreter on each.
            done = controller.run(
                "ansible", "-i", source, "-f", str(forks), "all", "-m", "raw", "-a", "true",
                timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout
            assert done.stdout.count(" | CHANGED") == count
            assert len(emulator.creates()) == len(emulator.sessions_created()) == count
            # The next connects anew.
            controller.end_masters()


@pytest.mark.client("Ansible: become and pipelining", PATIENT)
def test_a_wake_counts_where_ansible_waits_for_become(
    start_emulator: Start, controller: Controller
) -> None:
    check_patience(start_emulator, controller, BECOME, "waiting for privilege escalation prompt")


@mitogen
def test_a_wake_counts_for_mitogen(start_emulator: Start, controller: Controller) -> None:
    check_patience(start_emulator, controller, MITOGEN, "Connection timed out")


def check_patience(
    start_emulator: Start, controller: Controller, env: dict[str, str], message: str
) -> None:
    """Assert that a short ansible_ssh_timeout ends a wake, and that of the plugin does not."""
    user = controller.user
    user.use(start_emulator(*machines("dm-a:sleeping", "dm-b:sleeping"), "--wake-seconds", "6"))
    source = controller.source()
    (controller.project / "host_vars").mkdir()
    controller.write("host_vars/dm-a.yml", "ansible_ssh_timeout: 1\n")
    site = controller.write("site.yml", "- hosts: all\n  gather_facts: false\n  tasks: [ping: ]\n")
    done = controller.run("ansible-playbook", "-i", source, site, env=env)
    # Before ansible-core 2.19 it is FAILED! where Ansible itself waited.
    assert message in re.split(r"\[dm-a\]: (?:UNREACHABLE|FAILED)!", done.stdout)[-1]
    assert "ok: [dm-b]" in done.stdout
    wait_until(lambda: not helpers_for(user))


@works
def test_the_example_runs_wherever_it_is_copied(
    start_emulator: Start, controller: Controller
) -> None:
    user = controller.user
    example = user.root / "a copy"
    shutil.copytree(SOURCE / "example", example)
    del user.environment["ANSIBLE_COLLECTIONS_PATH"]
    homes = user.root / "machines"
    emulator = start_emulator(
        *machines("dm-foo:sleeping", "dm-bar"), "--wake-seconds", "1", "--home", str(homes)
    )
    user.use(emulator)
    install = ["ansible-galaxy", "collection", "install", "--force", str(SOURCE)]
    # Twice, as after a git pull.
    for command in (
        install,
        install,
        ["ansible-playbook", "site.yml"],
        # What the command line names, and a list of hosts, are inventories as well.
        ["ansible", "-i", "dm-foo,", "all", "-m", "ping"],
        ["ansible", "-i", "inventory/hosts.yml", "servers", "-m", "ping"],
    ):
        done = controller.run(*command, cwd=example)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    for name in ("dm-foo", "dm-bar"):
        assert (homes / name / "note").read_text() == f"{name} has 2 processors\n"
    assert len(emulator.creates()) == 2


@works
def test_retries_help_over_a_guest_that_is_late(
    start_emulator: Start, controller: Controller
) -> None:
    emulator = start_emulator("--machine", "dm-foo", "--fault", "dm-foo=guest@2")
    controller.user.use(emulator)
    ping = ["ansible", "-i", "dm-foo,", "all", *PING]
    assert "SSH_TUNNEL_NOT_READY" in unreachable(controller.run(*ping).stdout)["dm-foo"]
    done = controller.run(*ping, env={"ANSIBLE_SSH_RETRIES": "2"})
    assert "dm-foo | SUCCESS" in done.stdout
    assert len(emulator.creates()) == 1


@works
def test_the_wake_policy_holds_for_ansible_and_not_for_the_role(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.settings('wake = "never"\n')
    controller.user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    done = controller.run("ansible", "-i", "dm-foo,", "all", *PING)
    assert "dm-foo: the machine is asleep" in unreachable(done.stdout)["dm-foo"]
    done = controller.run("ansible-playbook", "-i", "dm-foo,", controller.write("site.yml", ROLE))
    assert pinged(done.stdout) == ["dm-foo"]
