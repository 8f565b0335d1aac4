from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.app import ApiFactory
from dcs_proxy.commands.close import Closer
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, Record
from tests.support.fake_agent import Store, fake_agent

NAME, LONGER = MachineName("dm-foo"), MachineName("dm-foo-2")


def closer(state: StateDirectory, *agents: str) -> Closer:
    log = Log(state.file("log"))
    known = KnownMachines(state.path, "account")
    credentials = Credentials("dsk-key", None, "a test")
    factory = ApiFactory(Settings(), {}, log, known, print, credentials)
    return Closer(state, factory, {NAME: set(agents), LONGER: set(agents)})


def test_what_agents_hold_of_a_machine_without_a_record_goes_and_no_other(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    with fake_agent() as agent:
        agent.answer = store = Store()
        store.held = {
            b"one": b"dm-foo", b"two": b"dm-foo via ssh.example",
            b"other": b"dm-foo-2 via ssh.example", b"mine": b"me@home",
        }  # fmt: skip
        text = closer(state, agent.path).close(NAME, print, lambda: False)
    assert text == "there was no session"
    assert set(store.held) == {b"other", b"mine"}


def test_a_session_of_another_account_is_neither_closed_nor_forgotten(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    record = Record(Attempt("k", "ab" * 32, "", 2000.0, "another account", "wssh-1"))
    state.save(NAME, record)
    with pytest.raises(ConfigError, match="created with another API or organisation"):
        closer(state).close(NAME, print, lambda: False)
    assert state.load(NAME) == record
