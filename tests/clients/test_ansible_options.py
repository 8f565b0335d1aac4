"""Ansible: the options of our inventory plugin: which machines, which names, which account."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping

import pytest
import yaml

from tests.clients.ansible_controller import (
    OURS_ONLY,
    SOURCE,
    Controller,
    account,
    hosts_of,
    machines,
    plain,
    squeeze,
)
from tests.support.emulator import Emulator
from tests.support.user import User

Start = Callable[..., Emulator]

inventory_plugin = pytest.mark.client("Ansible: inventory plugin", "works")
EXAMPLES = re.search(
    r'EXAMPLES = r"""\n(.*?)"""', (SOURCE / "plugins/inventory/machines.py").read_text(), re.DOTALL
)

WRONG = {
    "phase: running\n": "phase is not an option: did you mean phases?",
    "filter: [{include: true}]\n": "filter is not an option: did you mean filters?",
    "limit: true\n": "limit is not an option: the options are api_key, ",
    "hostname: full\n": "hostname is not an option",
    "phases: runing\n": "runing",
    "phases: [running, awake]\n": "awake",
    "hostnames: name\n": "hostnames: name is not alias, short, full or a template",
    "hostnames: ['{{ dcs_phase }} {{ dcs_name }}']\n": "hostnames: 'running dm-a' for dm-a is not",
    "hostnames: ['{{ dcs_nome }}']\n": "hostnames: cannot evaluate '{{ dcs_nome }}' for dm-a: ",
    "filters: [{include: true, exclude: true}]\n": "a rule has either include or exclude",
    "filters: [{inclde: true}]\n": "a rule has either include or exclude, not inclde",
    "filters: [{include: dcs_fase == 'running'}]\n": "filters: cannot evaluate",
    "filters: [{include: dcs_vcpu >}]\n": "filters: cannot evaluate",
    "filters: [dm-a]\n": "filters",
    "keyed_groups: [{prefix: x}]\n": "keyed_groups: an entry has no key",
    "keyed_groups: [{key: dcs_phase, prefx: x}]\n": "keyed_groups: prefx is not a key of an entry",
    "timeout: soon\n": "timeout",
    "override_remote_user: perhaps\n": "override_remote_user: 'perhaps' is neither true nor false",
    "cache: fasle\n": "cache: 'fasle' is neither true nor false",
    "config: '{{ nowhere }}'\n": "cannot evaluate the option config: ",
    "api_key: x\napi_key_file: y\n": "api_key and api_key_file exclude each other",
    "api_key_file: /no/key\n": "the API key file /no/key does not exist",
}


@inventory_plugin
def test_a_mistake_is_an_error_that_names_it_and_selects_nothing(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    user.use(start_emulator("--machine", "dm-a"), config=False)
    words = [
        word
        for number, options in enumerate(WRONG)
        for word in ("-i", controller.source(options, name=f"source-{number}"))
    ]
    done = controller.run("ansible-inventory", *words, "--list", env=OURS_ONLY)
    assert hosts_of(json.loads(done.stdout)) == []
    told = re.split(r"Unabletoparse\S*?source-\d+\.dcs\.yml", squeeze(done.stderr))
    assert len(told) == len(WRONG) + 1, done.stderr
    for text, message in zip(told, WRONG.values(), strict=False):
        assert squeeze(message) in text, text


# The machines that each source takes.
CHOSEN = {
    "": ["dm-db", "dm-web-1", "dm-web-2"],
    "names: [dm-web-*]\n": ["dm-web-1", "dm-web-2"],
    "names: DM-DB, dm-shop\n": ["dm-db", "dm-web-1"],
    "exclude_names: ['dm-web-[!1]', dm-none]\n": ["dm-db", "dm-web-1"],
    "names: []\n": [],
    "phases: sleeping\n": ["dm-web-2"],
    "phases: ['{{ \"running\" }}', failed]\n": ["dm-bad", "dm-db", "dm-web-1"],
    "filters: [{exclude: dcs_phase == 'sleeping'}]\n": ["dm-db", "dm-web-1"],
    "filters: [{include: \"'db' in dcs_name\"}, {exclude: true}]\n": ["dm-db"],
    "filters: [{include: dcs_name == wanted}, {exclude: yes}]\n": ["dm-web-2"],
    "names: [dm-web-*]\nfilters: [{exclude: dcs_aliases | length > 0}]\n": ["dm-web-2"],
}


@inventory_plugin
def test_machines_are_chosen_by_phase_name_and_condition(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    user.settings('[aliases]\ndm-shop = "dm-web-1"\n')
    names = machines("dm-web-1", "dm-web-2:sleeping", "dm-db", "dm-bad:failed")
    user.use(start_emulator(*names), config=False)
    words = []
    for number, options in enumerate(CHOSEN):
        # The name of a host says which source has chosen it.
        options += f"hostnames: ['s{number}_{{{{ dcs_name }}}}']\n"
        words += ["-i", controller.source(options, name=f"source-{number}")]
    done = controller.run("ansible-inventory", *words, "-e", "wanted=dm-web-2", "--list")
    assert done.returncode == 0, done.stderr
    hosts = hosts_of(json.loads(done.stdout))
    for number, expected in enumerate(CHOSEN.values()):
        mark = f"s{number}_"
        assert [host[len(mark) :] for host in hosts if host.startswith(mark)] == expected


@inventory_plugin
def test_numbers_are_groups_as_text(start_emulator: Start, controller: Controller) -> None:
    controller.user.use(start_emulator("--machine", "dm-a"), config=False)
    options = "strict: true\nkeyed_groups: [{key: dcs_vcpu | string, prefix: vcpu}]\n"
    assert controller.inventory(controller.source(options))["vcpu_2"]["hosts"] == ["dm-a"]


@inventory_plugin
def test_a_source_is_known_by_its_name(start_emulator: Start, controller: Controller) -> None:
    controller.user.use(start_emulator("--machine", "dm-a"), config=False)
    directory = controller.project / "inventory"
    directory.mkdir()
    for name, host in (("dcs.yml", "one"), ("dcs.yaml", "two"), ("x.dcs.yaml", "three"),
                       ("machines.yml", "four"), ("xdcs.yml", "five")):  # fmt: skip
        (directory / name).write_text(
            f"plugin: dedalus.dcs.machines\nhostnames: ['{{{{ \"{host}\" }}}}']\n"
        )
    done = controller.run("ansible-inventory", "-vvv", "-i", "inventory", "--list", env=OURS_ONLY)
    assert re.findall(r'"dcs_name": ', done.stdout) == ['"dcs_name": '] * 3
    for name in ("machines.yml", "xdcs.yml"):
        assert squeeze(f"skips {directory / name}: the name of a source is dcs.yml") in squeeze(
            done.stdout + done.stderr
        )


@inventory_plugin
def test_two_accounts_are_in_one_inventory(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    emulators = {name: start_emulator("--machine", f"dm-{name}") for name in ("red", "blue")}
    words = []
    for name, emulator in emulators.items():
        options = {**account(user, emulator, name), "ssh_config": f"{user.root}/ssh {name}"}
        words += ["-i", controller.source(yaml.safe_dump(options), name=name)]
    done = controller.run("ansible-inventory", *words, "--list")
    assert (done.returncode, done.stderr) == (0, "")
    hosts = plain(json.loads(done.stdout))["_meta"]["hostvars"]
    assert hosts.keys() == {"dm-red", "dm-blue"}
    for name in emulators:
        variables = hosts[f"dm-{name}"]
        assert variables["ansible_ssh_common_args"] == f"-F '{user.root}/ssh {name}'"
        assert variables["dcs_config"] == f"{user.root}/{name}.toml"
        assert variables["dcs_home"] == f"{user.root}/{name} state"


@inventory_plugin
def test_a_name_of_machines_of_two_accounts_is_an_error(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    """Ansible would make one host of both, with the variables of either."""
    words = []
    ids = {name: f"017f22e2-79b0-7cc3-98c4-dc0c0c{name}" for name in ("11c0de", "22c0de")}
    for name, machine in ids.items():
        emulator = start_emulator("--machine", machine, "--ids", "uuid")
        options = yaml.safe_dump(account(user, emulator, name))
        words += ["-i", controller.source(options, name=name)]
    done = controller.run("ansible-inventory", *words, "--list", env=OURS_ONLY)
    hosts = plain(json.loads(done.stdout))["_meta"]["hostvars"]
    first, second = ids.values()
    assert {host: each["dcs_machine_id"] for host, each in hosts.items()} == {"dm-c0de": first}
    message = f"dm-c0de is dm-{first} in another source and dm-{second} here; set hostnames: [full]"
    assert squeeze(message) in squeeze(done.stderr)
    # The same machine may be in two sources.
    done = controller.run("ansible-inventory", *words[:2], *words[:2], "--list")
    assert (done.returncode, done.stderr) == (0, "")


@inventory_plugin
def test_the_key_comes_from_a_file_a_variable_the_environment_or_a_vault(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    emulator = start_emulator("--machine", "dm-a")
    key = user.root / "key"
    key.write_text(f"{emulator.key}\n")
    key.chmod(0o600)
    password = controller.write("password", "secret\n")
    vaulted = controller.run(
        "ansible-vault", "encrypt_string", "--vault-password-file", password, emulator.key
    ).stdout
    user.environment["DEDALUS_X_API_KEY"] = "dsk-of-another-account"
    url = "base_url: \"{{ lookup('env', 'MY_URL') }}\"\norg_id: my-org\n"
    for options in (
        f"api_key_file: {key}\n",
        'api_key: "{{ my_key }}"\n',
        "api_key: \"{{ lookup('env', 'MY_KEY') }}\"\n",
        f"api_key: {vaulted}\n",
    ):
        done = controller.run(
            "ansible-inventory", "-i", controller.source(url + options), "--list",
            "--vault-password-file", password, "-e", json.dumps({"my_key": emulator.key}),
            env={**user.environment, "MY_KEY": emulator.key, "MY_URL": emulator.api},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), options
        hosts = plain(json.loads(done.stdout))["_meta"]["hostvars"]
        assert hosts["dm-a"]["dcs_base_url"] == emulator.api
        assert hosts["dm-a"]["dcs_org_id"] == "my-org"
        del hosts["dm-a"]["my_key"]
        assert emulator.key not in json.dumps(hosts)


@inventory_plugin
def test_the_cache_belongs_to_the_account(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    red, blue = (start_emulator("--machine", f"dm-{name}") for name in ("red", "blue"))
    source = controller.source("cache: true\ncache_plugin: jsonfile\ncache_connection: ~/cache\n")
    for _ in range(2):
        for emulator, host in ((red, "dm-red"), (blue, "dm-blue")):
            user.use(emulator, config=False)
            assert hosts_of(controller.inventory(source)) == [host]
    assert len(red.events(event="request")) == len(blue.events(event="request")) == 1
    # Not by variables alone: the contents of a config file count as well.
    for name in ("DEDALUS_BASE_URL", "DEDALUS_API_KEY"):
        del user.environment[name]
    for emulator, host in ((red, "dm-red"), (blue, "dm-blue")):
        options = account(user, emulator, "same") | {
            "cache": True, "cache_plugin": "jsonfile", "cache_connection": "~/cache",
        }  # fmt: skip
        source = controller.source(yaml.safe_dump(options), name="config")
        assert hosts_of(controller.inventory(source)) == [host]
    assert not any(emulator.key in path.name for path in (user.home / "cache").iterdir())


@inventory_plugin
def test_the_list_needs_no_directory_to_write_to(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    user.use(start_emulator("--machine", "dm-a"), config=False)
    options = "home: /proc/none\n"
    assert hosts_of(controller.inventory(controller.source(options))) == ["dm-a"]


@inventory_plugin
def test_the_examples_of_the_documentation_run(
    start_emulator: Start, user: User, controller: Controller
) -> None:
    assert EXAMPLES
    emulator = start_emulator(*machines("dm-web-1", "dm-db-1:sleeping", "dm-web-old"))
    user.use(emulator, config=False)
    (user.home / ".config" / "dcs-proxy").mkdir(parents=True)
    named = account(user, emulator, "blue")["config"]
    os.rename(named, user.home / ".config/dcs-proxy/blue.toml")
    examples = EXAMPLES[1].split("\n---\n")
    expected: list[Mapping[str, object]] = [
        {"dm-web-1": {}, "dm-db-1": {}, "dm-web-old": {}},
        {"dm-web-1": {"memory_gib": 4}},
        {},
        {"worker-eb-1": {}, "worker-db-1": {}, "worker--old": {}},
        {"dm-web-1": {"dcs_config": str(user.home / ".config/dcs-proxy/blue.toml")}},
        {"dm-web-1": {}},
        {"dm-web-1": {}},
    ]
    assert len(examples) == len(expected)
    environment = {"BLUE_API_KEY": emulator.key, "BLUE_ORG": "blue"}
    for number, (example, hosts) in enumerate(zip(examples, expected, strict=True)):
        source = controller.write(f"{number}.dcs.yml", example)
        inventory = plain(controller.inventory(source, env={**user.environment, **environment}))
        found = inventory["_meta"]["hostvars"]
        assert found.keys() >= hosts.keys(), example
        for host, variables in hosts.items():
            assert isinstance(variables, dict)
            assert found[host] | variables == found[host] or float(found[host]["memory_gib"]) == 4
    assert inventory.keys() >= {"_meta", "all"}
