from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dcs_proxy.fastpath import helper
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.publish.fast_entry import FastEntry, remove_fast_entry
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record

HOST = MachineName("dm-web")
ATTEMPT = Attempt("k", "ab" * 32, "/agent.sock", 20_000.0, "account")
READY = ReadySession("ssh.example", 2222, "user", "a", "", True, 5000.0, 1000.0, 1000.0)
RECORD = Record(ATTEMPT, READY, "cd" * 6, "before")


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path))


def write(
    state: StateDirectory, record: Record = RECORD, address: str = "", **changes: object
) -> list[str]:
    """Write the entry, with changed settings; return its fields, none if there is no file."""
    # The changes are of many types.
    settings = replace(Settings(), **changes)  # type: ignore[arg-type]
    environment = {"DEDALUS_ORG_ID": "org", "HOME": "/home"}
    config = state.file("config.toml")
    FastEntry(state, settings, environment, config).write(
        HOST, record, [state.file("hosts")], address
    )
    path = Path(state.file("sessions", "dm-web.warm"))
    return path.read_text().split("\0") if path.exists() else []


def test_the_entry_says_what_the_next_ssh_relies_on(state: StateDirectory) -> None:
    entry = write(state, address="192.0.2.1")
    assert len(entry) == helper.FIELDS
    named = {
        "VERSION": "3",
        "CONFIG_PATH": state.file("config.toml"),
        "CONFIG_STAMP": "-",
        "ENVIRONMENT": "\norg",
        "AGENT": "/agent.sock",
        "IDENTITY": RECORD.identity.hex(),
        "LOGINS": "user\nbefore",
        "ADDRESS": "192.0.2.1",
        "PORT": "2222",
        "AGENT_KIND": "private",
        "FILES": f"{state.file('hosts')}\t{helper.stamp(state.file('hosts'))}",
        "USE": state.file("sessions", "dm-web.used"),
        "END": "end\n",
    }
    assert {name: entry[getattr(helper, name)] for name in named} == named


def test_an_ssh_by_any_name_is_noted_in_one_place_for_the_machine(state: StateDirectory) -> None:
    record = replace(RECORD, attempt=replace(ATTEMPT, machine="dm-foo"))
    assert write(state, record)[helper.USE] == state.use_path(MachineName("dm-foo"))


@pytest.mark.parametrize(
    ("reuse_s", "ends_at", "prepare_until", "connect_until"),
    [
        (60, 5000.0, 1060.0, 1120.0),
        (60, 1080.0, 1050.0, 1080.0),
        (60, 1100.0, 1060.0, 1100.0),
        (3600, 5000.0, 4600.0, 4660.0),
        (3600, 4600.0, 4570.0, 4600.0),
        (60, 1040.0, 1020.0, 1040.0),
        (0, 5000.0, 1000.0, 1060.0),
    ],
)
def test_until_when_the_session_may_be_used(
    state: StateDirectory, reuse_s: int, ends_at: float, prepare_until: float, connect_until: float
) -> None:
    record = replace(RECORD, ready=replace(READY, ends_at=ends_at))
    entry = write(state, record, reuse_seconds=reuse_s)
    assert entry[helper.PREPARE_TIMES].split() == ["1000.0", str(prepare_until)]
    assert entry[helper.CONNECT_TIMES].split() == ["1000.0", str(connect_until)]


def test_the_address_stays_while_the_session_does(state: StateDirectory) -> None:
    write(state, address="192.0.2.1")
    confirmed = replace(RECORD, ready=replace(READY, proved_at=1500.0))
    assert write(state, confirmed)[helper.ADDRESS] == "192.0.2.1"
    assert write(state, confirmed, "192.0.2.2")[helper.ADDRESS] == "192.0.2.2"
    another = replace(RECORD, attempt=replace(ATTEMPT, public_key="cd" * 32))
    assert write(state, another)[helper.ADDRESS] == ""


def test_behind_a_proxy_the_entry_has_no_address(state: StateDirectory) -> None:
    write(state, address="192.0.2.1")
    proxy = HttpProxy("proxy.example", 3128)
    assert write(state, proxy=proxy)[helper.ADDRESS] == ""
    assert write(state, RECORD, "192.0.2.1", proxy=proxy)[helper.ADDRESS] == ""


def test_a_gateway_on_this_computer_has_its_address_in_spite_of_a_proxy(
    state: StateDirectory,
) -> None:
    record = replace(RECORD, ready=replace(READY, endpoint="localhost"))
    proxy = HttpProxy("proxy.example", 3128)
    assert write(state, record, "127.0.0.1", proxy=proxy)[helper.ADDRESS] == "127.0.0.1"


def test_paths_may_be_of_any_bytes_and_there_may_be_several(state: StateDirectory) -> None:
    config, files = os.fsdecode(b"/\xff.toml"), [state.file("hosts"), state.file("agents")]
    FastEntry(state, Settings(), {}, config).write(HOST, RECORD, files)
    path = Path(state.file("sessions", "dm-web.warm"))
    entry = os.fsdecode(path.read_bytes()).split("\0")
    assert entry[helper.CONFIG_PATH] == config and entry[helper.ADDRESS] == ""
    assert entry[helper.FILES] == "\n".join(f"{file}\t{helper.stamp(file)}" for file in files)


def test_a_session_that_is_not_ready_has_no_entry(state: StateDirectory) -> None:
    write(state)
    assert write(state, Record(ATTEMPT)) == []


def test_an_entry_that_says_the_same_is_not_written_again(state: StateDirectory) -> None:
    write(state, address="192.0.2.1")
    path = state.file("sessions", "dm-web.warm")
    before = os.stat(path).st_ino
    write(state)
    assert os.stat(path).st_ino == before


def test_a_removed_entry_is_gone_and_can_be_removed_again(state: StateDirectory) -> None:
    write(state)
    for _ in range(2):
        remove_fast_entry(state, HOST)
        assert os.listdir(state.file("sessions")) == []


def test_a_damaged_entry_is_replaced(state: StateDirectory) -> None:
    Path(state.file("sessions", "dm-web.warm")).write_bytes(b"\xff\0")
    assert write(state)[helper.END] == "end\n"
