"""Ansible: our inventory plugin, as it is installed from the built collection."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable

import pytest

from tests.clients.ansible_controller import (
    OURS_ONLY,
    Controller,
    hosts_of,
    machines,
    plain,
    squeeze,
)
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

inventory_plugin = pytest.mark.client("Ansible: inventory plugin", "works")


@inventory_plugin
def test_the_collection_documents_itself(controller: Controller) -> None:
    done = controller.run("ansible-doc", "-j", "-t", "inventory", "dedalus.dcs.machines")
    documented = json.loads(done.stdout)["dedalus.dcs.machines"]["doc"]["options"]
    assert documented.keys() >= {
        "plugin", "program", "home", "config", "api_key", "api_key_file", "base_url", "org_id",
        "timeout", "phases", "names", "exclude_names", "filters", "hostnames",
        "override_remote_user", "ssh_config", "ssh_timeout", "compose", "groups", "keyed_groups",
        "strict", "cache", "cache_plugin", "cache_timeout",
    }  # fmt: skip
    done = controller.run("ansible-doc", "-j", "-t", "role", "dedalus.dcs.wake")
    documented = json.loads(done.stdout)["dedalus.dcs.wake"]["entry_points"]["main"]["options"]
    assert documented.keys() == {
        "wake_hosts", "wake_program", "wake_home", "wake_config", "wake_api_key",
    }  # fmt: skip
    done = controller.run("ansible-doc", "-j", "-t", "module", "dedalus.dcs.wake")
    assert json.loads(done.stdout)["dedalus.dcs.wake"]["return"].keys() == {
        "msg", "woken", "seconds", "machines",
    }  # fmt: skip


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
def test_a_host_has_what_the_api_tells_and_an_empty_login(
    start_emulator: Start, controller: Controller
) -> None:
    controller.user.use(start_emulator("--machine", "dm-foo:sleeping"), config=False)
    variables = plain(controller.inventory(controller.source()))["_meta"]["hostvars"]["dm-foo"]
    assert variables.pop("dcs_created_at").startswith("20")
    assert variables == {
        "ansible_user": "", "ansible_ssh_timeout": 300,
        "dcs_machine_id": "dm-foo", "dcs_name": "dm-foo",
        "dcs_short_name": "dm-foo", "dcs_phase": "sleeping",
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
    # Before ansible-core 2.19 every expression gives text.
    assert float(inventory["_meta"]["hostvars"]["dm-db"]["memory_gib"]) == 4
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
    site = controller.write("site.yml", "- hosts: all\n")
    flushed = controller.run(
        "ansible-playbook", "-i", source, "--flush-cache", "--list-hosts", site
    )
    assert sorted(flushed.stdout.split()[-2:]) == ["dm-foo", "dm-new"]


@inventory_plugin
def test_phases_choose_machines(start_emulator: Start, controller: Controller) -> None:
    phases = ("running", "sleeping", "destroying", "destroyed", "failed")
    controller.user.use(start_emulator(*machines(*(f"dm-{p}:{p}" for p in phases))), config=False)
    assert hosts_of(controller.inventory(controller.source())) == ["dm-running", "dm-sleeping"]
    chosen = controller.inventory(controller.source("phases: [failed, running]\n"))
    assert hosts_of(chosen) == ["dm-failed", "dm-running"]


@inventory_plugin
def test_a_machine_is_named_by_its_first_alias_only_if_asked(
    start_emulator: Start, controller: Controller
) -> None:
    user = controller.user
    config = user.root / "other.toml"
    config.write_text('[aliases]\ndm-web = "dm-foo"\ndm-www = "dm-foo"\n')
    user.use(start_emulator(*machines("dm-foo", "dm-bar")), config=False)
    options = f"config: {config}\nhome: {user.root}/other state\n"
    inventory = controller.inventory(controller.source(f"{options}hostnames: [alias, short]\n"))
    assert hosts_of(inventory) == ["dm-bar", "dm-web"]
    variables = plain(inventory)["_meta"]["hostvars"]["dm-web"]
    assert variables["dcs_machine_id"] == "dm-foo"
    assert variables["dcs_aliases"] == ["dm-web", "dm-www"]
    assert (user.root / "other state" / "machines").exists()
    assert variables["dcs_config"] == str(config)
    assert variables["dcs_home"] == f"{user.root}/other state"
    plainly = controller.inventory(controller.source(options))
    assert hosts_of(plainly) == ["dm-bar", "dm-foo"]


@inventory_plugin
def test_machines_with_uuids_are_named_as_in_the_ssh_config(
    start_emulator: Start, controller: Controller
) -> None:
    web, code = (f"017f22e2-79b0-7cc3-98c4-dc0c0c07{end}" for end in ("398f", "c0de"))
    user = controller.user
    user.settings(f'[aliases]\ndm-web = "{web}"\n')
    user.use(start_emulator("--ids", "uuid", *machines(web, code)), config=False)
    inventory = controller.inventory(controller.source("hostnames: alias, short\n"))
    assert hosts_of(inventory) == ["dm-c0de", "dm-web"]
    variables = plain(inventory)["_meta"]["hostvars"]["dm-c0de"]
    assert (variables["dcs_machine_id"], variables["dcs_name"]) == (code, f"dm-{code}")
    assert "ansible_host" not in variables
    assert hosts_of(controller.inventory(controller.source("hostnames: [full]\n"))) == [
        f"dm-{web}", f"dm-{code}",
    ]  # fmt: skip
    composed = 'hostnames: ["{{ dcs_aliases | first | default }}", "m-{{ dcs_name[-4:] }}"]\n'
    inventory = controller.inventory(controller.source(composed))
    assert hosts_of(inventory) == ["dm-web", "m-c0de"]
    variables = plain(inventory)["_meta"]["hostvars"]
    assert variables["m-c0de"]["ansible_host"] == f"dm-{code}"
    assert "ansible_host" not in variables["dm-web"]


@inventory_plugin
def test_a_machine_that_ssh_cannot_name_is_left_out_with_a_warning(
    start_emulator: Start, controller: Controller
) -> None:
    emulator = start_emulator("--machine", "dm-foo")
    controller.user.use(emulator, config=False)
    items = [{"machine_id": each, "phase": "running"} for each in ("dm-foo", "M_1")]
    emulator.control("POST", "faults", fault=f"*=body:{json.dumps({'items': items})}")
    done = controller.run("ansible-inventory", "-i", controller.source(), "--list")
    assert hosts_of(json.loads(done.stdout)) == ["dm-foo"]
    assert squeeze("'M_1' is left out: its id has characters") in squeeze(done.stderr)


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


# A source that failed is an error.
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
    machine = {
        "machine_id": "dm-foo", "name": "dm-foo", "short_name": "dm-foo", "phase": "running",
        "aliases": [], "problem": None,
    }  # fmt: skip
    missing, no_program = user.root / "no.toml", user.root / "bin"
    sources = {
        f"config: {missing}\n": f"the config file {missing} does not exist; hint: ",
        "program: dcs-none\n": "cannot run dcs-none: No such file or directory; hint: install"
        " dcs-proxy, or set the option program to its path",
        f"program: {no_program}\n": f"cannot run {no_program}: Permission denied; hint: ",
        prints(user, "exec sleep 600") + "timeout: 1\n": "list did not finish within 1 s",
        prints(user, "echo why >&2; exit 9"): "why (exit code 9)",
        "program: 'false'\n": "false failed without a message (exit code 1)",
        prints(user, "kill -9 $$"): "was killed by signal 9",
        prints(user, "echo no machines"): "list --json printed no JSON: ",
        printing(user, {}): "list --json printed something other than a list",
        printing(user, [7]): "list --json printed an entry that is not a machine",
        printing(user, [machine | {"aliases": None}]): "printed a machine without aliases",
        printing(user, [machine, machine]): "two machines would be the host dm-foo",
    }
    for name in ("-oProxyCommand=x", "dm-", "dm-a\n", "dm-A", "dm-a.b", "localhost", "{{ 1 }}", 7):
        for wrong in ({"name": name}, {"short_name": name}, {"aliases": ["dm-web", name]}):
            option = printing(user, [machine | wrong])
            sources[option] = f"{name!r} is not the name of a machine"
    words = [
        word
        for number, options in enumerate(sources)
        for word in ("-i", controller.source(options, name=f"source-{number}"))
    ]
    done = controller.run("ansible-inventory", *words, "--list", env=OURS_ONLY)
    said = re.split(r"machines'?plugin:", squeeze(done.stderr))[1:]
    assert len(said) == len(sources), done.stderr
    for line, message in zip(said, sources.values(), strict=True):
        assert squeeze(message) in line
    assert hosts_of(json.loads(done.stdout)) == []
    failed = controller.run("ansible-inventory", *words[:2], "--list", env=OURS_ONLY | FAILING)
    assert failed.returncode != 0


@inventory_plugin
def test_the_message_and_the_hint_of_the_program_are_shown(controller: Controller) -> None:
    done = controller.run("ansible-inventory", "-i", controller.source(), "--list", env=OURS_ONLY)
    (message, hint) = controller.user.proxy("list").stderr.splitlines()
    assert hint.startswith("dcs-proxy: hint: ")
    line = f"{message}; {hint} (exit code 4)".replace("dcs-proxy: ", "")
    assert squeeze(f"plugin: {line}") in squeeze(done.stderr)


@inventory_plugin
def test_an_error_is_shown_without_the_lines_before_it(user: User, controller: Controller) -> None:
    error, hint = user.proxy("list").stderr.splitlines()
    progress = "dcs-proxy: the API cannot be reached; trying again"
    for before, said in (
        ([progress], [error, hint]),
        ([progress, "dcs-proxy: hint: wait", "dcs-proxy: one more"], [error, hint]),
        ([progress], [error]),
        ([], [hint]),
    ):
        lines = " ".join(shlex.quote(line) for line in (*before, *said))
        source = controller.source(prints(user, f"printf '%s\\n' {lines} >&2; exit 4"))
        done = controller.run("ansible-inventory", "-i", source, "--list", env=OURS_ONLY)
        line = "; ".join(said).replace("dcs-proxy: ", "")
        assert squeeze(f"plugin: {line} (exit code 4)") in squeeze(done.stderr)
