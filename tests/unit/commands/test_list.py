from __future__ import annotations

import importlib
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.api.model import Listing, Machine
from dcs_proxy.commands.list import _table, size
from dcs_proxy.console.stdout import columns
from dcs_proxy.errors import StateError
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, short_names
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import Program, render_end, render_top
from dcs_proxy.openssh.version import Version
from dcs_proxy.session import directory
from tests.unit.commands.conftest import Commands

command = importlib.import_module("dcs_proxy.commands.list")

UUID = "017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"
PROGRAM, VERSION = Program(("/usr/bin/python3",), "/state"), Version(9, 6)
TOP = render_top(PROGRAM, [MachineName("dm-web")], VERSION)
END = render_end(PROGRAM, VERSION)


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({"vcpu": 2, "memory_mib": 4096, "storage_gib": 20}, "2 vCPU 4 GiB 20 GiB"),
        ({"vcpu": 0.25, "memory_mib": 512, "storage_gib": 20}, "0.25 vCPU 512 MiB 20 GiB"),
        ({"vcpu": 1, "memory_mib": 1536}, "1 vCPU 1.5 GiB"),
        ({"memory_mib": 1023}, "1023 MiB"),
        ({"memory_mib": 1024}, "1 GiB"),
        ({"vcpu": 0, "memory_mib": 0, "storage_gib": 0}, "0 vCPU 0 MiB 0 GiB"),
        ({"memory_mib": 2.0**52}, "4398046511104 GiB"),
        ({}, "-"),
    ],
)
def test_a_size_says_what_is_known(amounts: dict[str, Any], words: str) -> None:
    assert size(Machine(MachineName("dm-foo"), "running", **amounts)) == words


def test_columns_are_as_wide_as_their_widest_and_lines_end_with_text() -> None:
    assert columns([("A", "B", "C"), ("long", "", "x"), ("1", "22", "")]) == [
        "A     B   C",
        "long      x",
        "1     22",
    ]


def test_short_names_have_a_column_if_any_machine_has_one() -> None:
    chosen = Machine(MachineName("dm-foo"), "running")
    uuid = Machine(MachineName("dm-017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"), "sleeping")

    def table(*machines: Machine, width: int | None = None) -> list[list[str]]:
        short = short_names([machine.name for machine in machines])
        lines = _table(Listing([*machines], []), short, Settings(), 0, width)
        return [line.split() for line in lines]

    assert table(chosen) == [
        ["NAME", "PHASE", "SIZE", "AGE", "ALIAS"],
        ["dm-foo", "running", "-", "-", "-"],
    ]
    assert table(chosen, uuid) == [
        ["NAME", "SHORT", "PHASE", "SIZE", "AGE", "ALIAS"],
        ["dm-foo", "-", "running", "-", "-", "-"],
        [uuid.name, "dm-c0de", "sleeping", "-", "-", "-"],
    ]
    assert table(chosen, uuid, width=76) == table(chosen, uuid)
    # A line has 76 columns: these are too few.
    assert table(chosen, uuid, width=75) == [
        ["NAME", "PHASE", "SIZE", "AGE", "ALIAS"],
        ["dm-foo", "running", "-", "-", "-"],
        ["dm-c0de", "sleeping", "-", "-", "-"],
    ]
    assert table(chosen, width=10) == table(chosen)


WEB = {
    "machine_id": "dm-web", "phase": "SLEEPING", "vcpu": 2, "memory_mib": 4096, "storage_gib": 20,
    "autosleep_seconds": 300, "created_at": "2026-01-02T03:04:05Z",
}  # fmt: skip
BARE = {"machine_id": UUID, "phase": "running"}
GOING = {"machine_id": "dm-old", "phase": "destroying"}
UNNAMED = {"machine_id": "Web_1", "phase": "running", "vcpu": 1}
LATER = 1767323045 + 7300  # two hours after WEB was made


@pytest.fixture
def made_two_hours_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "time", SimpleNamespace(time=lambda: LATER))


def test_a_person_reads_a_table_and_what_ssh_cannot_use(
    commands: Commands, made_two_hours_ago: None
) -> None:
    commands.has(WEB, BARE, GOING, UNNAMED)
    commands.configure('[aliases]\ndm-site = "dm-web"\ndm-www = "dm-web"\n')
    done = commands("list")
    assert done.code == 0
    assert [re.split(r" {2,}", line) for line in done.out.splitlines()] == [
        ["NAME", "SHORT", "PHASE", "SIZE", "AGE", "ALIAS"],
        [f"dm-{UUID}", "dm-c0de", "running", "-", "-", "-"],
        ["dm-old", "-", "destroying", "-", "-", "-"],
        ["dm-web", "-", "sleeping", "2 vCPU 4 GiB 20 GiB", "2 h", "dm-site dm-www"],
    ]
    assert done.err.splitlines() == [
        'dcs-proxy: ssh cannot name the machine "Web_1": '
        "its id has characters other than lower-case letters, digits and hyphens"
    ]


def test_a_program_reads_all_that_the_api_says(
    commands: Commands, made_two_hours_ago: None
) -> None:
    commands.has(WEB, BARE, UNNAMED)
    commands.configure('[aliases]\ndm-site = "dm-web"\n')
    done = commands("list", "--json")
    assert (done.code, done.err) == (0, "")
    nothing = {
        "vcpu": None, "memory_mib": None, "storage_gib": None, "autosleep_seconds": None,
        "created_at": None, "aliases": [],
    }  # fmt: skip
    assert json.loads(done.out) == [
        {**nothing, "machine_id": UUID, "phase": "running", "name": f"dm-{UUID}",
         "short_name": "dm-c0de", "problem": None},
        {**WEB, "phase": "sleeping", "created_at": "2026-01-02T03:04:05.000Z", "name": "dm-web",
         "short_name": "dm-web", "aliases": ["dm-site"], "problem": None},
        {**nothing, "machine_id": "Web_1", "phase": "running", "name": None, "short_name": None,
         "problem": "its id has characters other than lower-case letters, digits and hyphens"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("machines", "said"),
    [([], "dcs-proxy: the account has no machines\n"),
     ([{"machine_id": "-"}], 'dcs-proxy: ssh cannot name the machine "-": '
      "its id begins or ends with a hyphen\n")],
)  # fmt: skip
def test_an_account_without_machines_has_no_table(
    commands: Commands, machines: list[Any], said: str
) -> None:
    commands.has(*machines)
    done = commands("list")
    assert (done.code, done.out, done.err) == (0, "", said)
    assert (commands("list", "--json").out == "[]\n") is (not machines)


def test_a_machine_that_the_ssh_config_lacks_is_counted(commands: Commands) -> None:
    (commands.home / ".ssh" / "config").write_bytes(config_file.install(b"", TOP, END))
    commands.has("dm-web", "dm-new", GOING)
    assert commands("list").err == (
        "dcs-proxy: 1 machine is not listed in your ssh config: run dcs-proxy config-ssh\n"
    )
    assert commands("list", "--json").err == ""


def test_the_list_works_without_a_state_directory(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise StateError("read-only file system")

    commands.has("dm-web")
    with monkeypatch.context() as patched:
        patched.setattr(directory, "make_private_directory", fail)
        done = commands("list")
    assert (done.code, done.out.split()[-5:], done.err) == (0, ["dm-web", "running", *"---"], "")
    # One that exists, and that others could have filled, is no such case.
    (commands.home / ".ssh" / "dcs-proxy").write_text("a file in its place")
    assert commands("list").code == StateError.exit_code


def test_the_state_directory_is_made_for_the_names_that_completion_offers(
    commands: Commands,
) -> None:
    commands.has("dm-web")
    assert commands("list").code == 0
    assert (commands.home / ".ssh" / "dcs-proxy" / "machines").read_text() == "dm-web\n"


def test_an_alias_is_no_short_name_of_another_machine(commands: Commands) -> None:
    commands.configure('[aliases]\ndm-c0de = "dm-web"\n')
    commands.has(WEB, BARE)
    shown = json.loads(commands("list", "--json").out)
    assert [machine["short_name"] for machine in shown] == ["dm-7c0de", "dm-web"]


def test_a_machine_that_is_being_destroyed_is_its_own_short_name(commands: Commands) -> None:
    commands.has(GOING)
    (shown,) = json.loads(commands("list", "--json").out)
    assert (shown["phase"], shown["name"], shown["short_name"]) == (
        "destroying", "dm-old", "dm-old"
    )  # fmt: skip
