"""Ansible: its own programs with machines that sleep, and our collection as it is installed."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from sysconfig import get_path
from typing import Any

import pytest

from dcs_proxy import __version__
from tests.clients.ansible_controller import SOURCE, Controller, plain
from tests.integration.harness import Emulator, User, helpers_for, wait_until
from tests.integration.sshd import authorised_sshd

Start = Callable[..., Emulator]


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the collection and install the archive; return the path of collections."""
    directory = tmp_path_factory.mktemp("collections")
    user = User()
    try:
        galaxy = partial(Controller(user, directory).run, "ansible-galaxy", "collection")
        built = galaxy("build", str(SOURCE), "--output-path", str(directory))
        assert built.returncode == 0, built.stderr
        archive = directory / f"dedalus-dcs-{__version__}.tar.gz"
        installed = galaxy("install", str(archive), "-p", str(directory))
        assert installed.returncode == 0, installed.stderr
    finally:
        user.close()
    return directory


@pytest.fixture
def controller(start_emulator: Start, user: User, collections: Path) -> Iterator[Controller]:
    """The user's Ansible; its connections end before the emulators do."""
    made = Controller(user, collections)
    yield made
    made.end_masters()


def machines(*names: str) -> list[str]:
    """Return an emulator's arguments for these machines."""
    return [word for name in names for word in ("--machine", name)]


def hosts_of(inventory: dict[str, Any]) -> list[str]:
    """Return the hosts that ansible-inventory lists."""
    return sorted(inventory["_meta"]["hostvars"])


inventory_plugin = pytest.mark.client("Ansible: inventory plugin", "works")


@inventory_plugin
def test_the_collection_documents_itself(controller: Controller) -> None:
    done = controller.run("ansible-doc", "-j", "-t", "inventory", "dedalus.dcs.machines")
    documented = json.loads(done.stdout)["dedalus.dcs.machines"]["doc"]["options"]
    assert documented.keys() >= {
        "plugin", "program", "home", "config", "timeout", "phases", "use_aliases", "ssh_timeout",
        "compose", "groups", "keyed_groups", "strict", "cache", "cache_plugin", "cache_timeout",
    }  # fmt: skip
    done = controller.run("ansible-doc", "-j", "-t", "role", "dedalus.dcs.wake")
    documented = json.loads(done.stdout)["dedalus.dcs.wake"]["entry_points"]["main"]["options"]
    assert documented.keys() == {"wake_hosts", "wake_program", "wake_home", "wake_config"}


@inventory_plugin
def test_all_pages_are_listed_and_nothing_is_woken(
    start_emulator: Start, controller: Controller
) -> None:
    names = [f"dm-m{number:03}" for number in range(257)]
    emulator = start_emulator(*machines(*(f"{name}:sleeping" for name in names)))
    controller.user.use(emulator, config=False)
    assert hosts_of(controller.inventory(controller.source())) == names
    assert len(emulator.events(method="GET")) == 3
    assert not emulator.events(method="POST")


@inventory_plugin
def test_a_host_has_what_the_api_tells_and_no_login(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(start_emulator("--machine", "dm-foo:sleeping"), config=False)
    variables = plain(controller.inventory(controller.source()))["_meta"]["hostvars"]["dm-foo"]
    assert variables.pop("dcs_created_at").startswith("20")
    assert variables == {
        "ansible_ssh_timeout": 300, "dcs_machine_id": "dm-foo", "dcs_phase": "sleeping",
        "dcs_vcpu": 2, "dcs_memory_mib": 4096, "dcs_storage_gib": 20,
        "dcs_autosleep_seconds": 300, "dcs_aliases": [],
    }  # fmt: skip


GROUPED = """\
keyed_groups:
  - key: dcs_phase
    prefix: phase
groups:
  web: dcs_machine_id.startswith("dm-web")
compose:
  memory_gib: dcs_memory_mib / 1024
"""


@inventory_plugin
def test_hosts_are_grouped_and_variables_composed(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(
        start_emulator(*machines("dm-web-1:sleeping", "dm-web-2", "dm-db")), config=False
    )
    source = controller.source(GROUPED)
    inventory = controller.inventory(source)
    assert inventory["phase_sleeping"]["hosts"] == ["dm-web-1"]
    assert inventory["phase_running"]["hosts"] == ["dm-db", "dm-web-2"]
    assert inventory["web"]["hosts"] == ["dm-web-1", "dm-web-2"]
    assert inventory["_meta"]["hostvars"]["dm-db"]["memory_gib"] == 4
    graph = controller.run("ansible-inventory", "-i", source, "--graph", "phase_sleeping")
    assert graph.stdout == "@phase_sleeping:\n  |--dm-web-1\n"


@inventory_plugin
def test_a_cached_list_is_not_asked_for_again(
    start_emulator: Start, controller: Controller
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    controller.user.use(emulator, config=False)
    source = controller.source("cache: true\ncache_plugin: jsonfile\ncache_connection: ~/cache\n")
    first = controller.inventory(source)
    asked = len(emulator.events(event="request"))
    assert controller.inventory(source) == first
    assert len(emulator.events(event="request")) == asked == 1
    emulator.control("PUT", "machines/dm-new", phase="running")
    flushed = controller.run("ansible-inventory", "-i", source, "--list", "--flush-cache")
    assert hosts_of(json.loads(flushed.stdout)) == ["dm-foo", "dm-new"]


@inventory_plugin
def test_phases_choose_machines(start_emulator: Start, controller: Controller) -> None:
    phases = ("running", "sleeping", "destroying", "destroyed", "failed")
    controller.user.use(start_emulator(*machines(*(f"dm-{p}:{p}" for p in phases))), config=False)
    assert hosts_of(controller.inventory(controller.source())) == ["dm-running", "dm-sleeping"]
    chosen = controller.inventory(controller.source("phases: [failed, running]\n"))
    assert hosts_of(chosen) == ["dm-failed", "dm-running"]


@inventory_plugin
def test_a_machine_has_the_name_of_its_first_alias(
    start_emulator: Start, controller: Controller
) -> None:
    user = controller.user
    config = user.root / "other.toml"
    config.write_text('[aliases]\ndm-web = "dm-foo"\ndm-www = "dm-foo"\n')
    user.use(start_emulator(*machines("dm-foo", "dm-bar")), config=False)
    options = f"config: {config}\nhome: {user.root}/other state\n"
    inventory = controller.inventory(controller.source(options))
    assert hosts_of(inventory) == ["dm-bar", "dm-web"]
    variables = plain(inventory)["_meta"]["hostvars"]["dm-web"]
    assert variables["dcs_machine_id"] == "dm-foo"
    assert variables["dcs_aliases"] == ["dm-web", "dm-www"]
    assert (user.root / "other state" / "machines").exists()
    plainly = controller.inventory(controller.source(f"{options}use_aliases: false\n"))
    assert hosts_of(plainly) == ["dm-bar", "dm-foo"]


@inventory_plugin
def test_what_the_api_says_is_never_a_template(
    start_emulator: Start, controller: Controller
) -> None:
    mark = controller.user.root / "mark"
    evil = "{{ lookup('pipe', \"touch '" + str(mark) + "'\") }}"
    emulator = start_emulator("--machine", "dm-foo")
    controller.user.use(emulator, config=False)
    body = {"items": [{"machine_id": "dm-foo", "phase": evil, "created_at": None}]}
    emulator.control("POST", "faults", fault=f"*=body:{json.dumps(body)}")
    source = controller.source(f"{GROUPED}  phase: dcs_phase\n")
    debug = ["ansible", "-i", source, "dm-foo", "-m", "debug", "-a"]
    controller.run(*debug, json.dumps({"msg": evil}))
    assert mark.exists(), "it would do harm"
    mark.unlink()
    shown = controller.run(*debug, "msg={{ [dcs_phase, phase, hostvars['dm-foo'].dcs_phase] }}")
    assert shown.stdout.count("{{ lookup('pipe'") == 3, shown.stderr
    grouped = controller.run(*debug, "var=group_names")
    assert "phase____lookup" in grouped.stdout
    assert not mark.exists()


# As the example's ansible.cfg: no other plugin tries the file, and one that failed is an error.
OURS_ONLY = {"ANSIBLE_INVENTORY_ENABLED": "dedalus.dcs.machines"}
FAILING = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"}


def prints(user: User, script: str) -> str:
    """Return the option with a program that is a shell script."""
    directory = user.root / "scripts"
    directory.mkdir(exist_ok=True)
    program = directory / str(len(list(directory.iterdir())))
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"program: {program}\n"


def printing(user: User, value: object) -> str:
    """Return the option with a program that prints a value as JSON."""
    return prints(user, f"printf %s {shlex.quote(json.dumps(value))}")


@inventory_plugin
def test_each_failure_is_one_line(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    user.use(start_emulator("--machine", "dm-foo"), config=False)
    machine = {"machine_id": "dm-foo", "phase": "running", "aliases": []}
    missing, no_program = user.root / "no.toml", user.root / "bin"
    sources = {
        f"config: {missing}\n": f"the config file {missing} does not exist (exit code 3)",
        "program: dcs-none\n": "dcs-none cannot be run: No such file or directory; hint: install"
        " dcs-proxy, or say in the option program where it is",
        f"program: {no_program}\n": f"{no_program} cannot be run: Permission denied; hint: ",
        prints(user, "exec sleep 600") + "timeout: 1\n": "has not listed in 1 s",
        prints(user, "echo why >&2; exit 9"): "why (exit code 9)",
        prints(user, "kill -9 $$"): "was ended by signal 9",
        prints(user, "echo no machines"): "list --json printed no JSON: ",
        printing(user, {}): "list --json printed no list",
        printing(user, [7]): "list --json printed something that is no machine",
        printing(user, [machine | {"aliases": None}]): "printed a machine without aliases",
        printing(user, [machine, machine]): "two machines would be the host dm-foo",
    }
    for name in ("-oProxyCommand=x", "dm-", "dm-a\n", "dm-A", "dm-a.b", "localhost", "{{ 1 }}", 7):
        for wrong in ({"machine_id": name}, {"aliases": ["dm-web", name]}):
            option = printing(user, [machine | wrong])
            sources[option] = f"{name!r} is not the name of a machine"
    words = [
        word
        for number, options in enumerate(sources)
        for word in ("-i", controller.source(options, name=f"source-{number}"))
    ]
    done = controller.run("ansible-inventory", *words, "--list", env=OURS_ONLY)
    said = re.findall(r"machines' plugin: (.*)", done.stderr)
    assert len(said) == len(sources), done.stderr
    for line, message in zip(said, sources.values(), strict=True):
        assert message in line
    assert hosts_of(json.loads(done.stdout)) == []
    failed = controller.run("ansible-inventory", *words[:2], "--list", env=OURS_ONLY | FAILING)
    assert failed.returncode != 0


@inventory_plugin
def test_the_message_and_the_hint_of_the_program_are_shown(controller: Controller) -> None:
    done = controller.run("ansible-inventory", "-i", controller.source(), "--list", env=OURS_ONLY)
    (message, hint) = controller.user.proxy("list").stderr.splitlines()
    assert hint.startswith("dcs-proxy: hint: ")
    line = f"{message}; {hint} (exit code 4)".replace("dcs-proxy: ", "")
    assert f"plugin: {line}\n" in done.stderr


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
    words = [shlex.split(command.replace(askpass, "")) for command in commands]
    assert {command[0] for command in words} == {"ssh", "sftp"}
    for command in words:
        if command[0] == "sftp":
            assert command == ["sftp", "-b", "-", *options, "[dm-foo]"]
        else:
            # With a terminal for the module itself.
            assert [word for word in command[:-1] if word != "-tt"] == ["ssh", *options, "dm-foo"]
            assert command[-1].startswith("/bin/sh -c ")


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
    # What the helper wrote to stderr is lost; this has come through ssh.
    assert "dcs-proxy: dm-bar: " not in said["dm-bar"]
    assert ":11: dm-bar: the gateway localhost:" in said["dm-bar"]
    assert ":11: dm-none: the API knows no such machine" in said["dm-none"]
    assert all("; hint: " in text for text in said.values())


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


def check_moves(
    controller: Controller, emulator: Emulator, directory: Path, env: dict[str, str]
) -> None:
    """Assert that files come to the machine and back, and that one session is enough."""
    remote = directory / "remote files"
    remote.mkdir()
    data = random.Random(1).randbytes(300_000)
    (controller.project / "file").write_bytes(data)
    controller.write("template.j2", "{{ inventory_hostname }} {{ ansible_facts.system }}\n")
    site = controller.write("site.yml", FILES)
    controller.user.use(emulator)
    extra = ["-e", json.dumps({"remote": str(remote)})]
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


@pytest.mark.client("Ansible: 50 hosts, forks=20", "works")
def test_fifty_hosts_have_a_session_each_and_keep_it(
    start_emulator: Start, controller: Controller, tmp_path: Path
) -> None:
    names = [f"dm-m{number:02}" for number in range(50)]
    phases = [
        f"{name}:{'sleeping' if number % 2 else 'running'}" for number, name in enumerate(names)
    ]
    with authorised_sshd(tmp_path) as (_, arguments):
        emulator = start_emulator(*machines(*phases), "--wake-seconds", "1", *arguments)
        controller.user.use(emulator)
        source = controller.source()
        for _ in range(2):
            # No module, which would start 50 interpreters.
            done = controller.run(
                "ansible", "-i", source, "-f", "20", "all", "-m", "raw", "-a", "true", timeout=600
            )
            assert done.returncode == 0, done.stdout
            assert done.stdout.count(" | CHANGED") == 50
            assert len(emulator.creates()) == len(emulator.sessions_created()) == 50
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
    assert message in done.stdout.partition("[dm-a]: UNREACHABLE!")[2]
    assert "ok: [dm-b]" in done.stdout
    wait_until(lambda: not helpers_for(user))


ROLE = """\
- hosts: all
  gather_facts: false
  pre_tasks:
    - ansible.builtin.import_role: {name: dedalus.dcs.wake}
  tasks:
    - ansible.builtin.ping:
"""
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


def failures(output: str) -> dict[str, str]:
    """Return what a playbook's output says of each host that failed."""
    found = re.findall(r"^fatal: \[(.*)\]: FAILED! => (.*)", output, re.MULTILINE)
    return {host: json.loads(result)["msg"] for host, result in found}


def pinged(output: str) -> list[str]:
    """Return the hosts on which a playbook's last task, a ping, went well."""
    last = output.partition("TASK [ansible.builtin.ping]")[2]
    return sorted(re.findall(r"^ok: \[(.*)\]", last, re.MULTILINE))


@works
def test_the_example_runs_as_it_is(start_emulator: Start, controller: Controller) -> None:
    user = controller.user
    shutil.copytree(SOURCE, user.root / "ansible")
    example = user.root / "ansible" / "example"
    del user.environment["ANSIBLE_COLLECTIONS_PATH"]
    homes = user.root / "machines"
    emulator = start_emulator(
        *machines("dm-foo:sleeping", "dm-bar"), "--wake-seconds", "1", "--home", str(homes)
    )
    user.use(emulator)
    for command in (
        ["ansible-galaxy", "collection", "install", "-r", "requirements.yml", "-p", "collections"],
        ["ansible-playbook", "site.yml"],
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
    controller.user.settings('wake = "ask"\n')
    controller.user.use(start_emulator("--machine", "dm-foo:sleeping", "--wake-seconds", "1"))
    done = controller.run("ansible", "-i", "dm-foo,", "all", *PING)
    assert "dm-foo: the machine is sleeping" in unreachable(done.stdout)["dm-foo"]
    done = controller.run("ansible-playbook", "-i", "dm-foo,", controller.write("site.yml", ROLE))
    assert pinged(done.stdout) == ["dm-foo"]
