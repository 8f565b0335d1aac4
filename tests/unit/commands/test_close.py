from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy import app
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.api.model import Closing
from dcs_proxy.app import ApiFactory
from dcs_proxy.commands import close
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands.close import Closer, describe_closing
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record
from dcs_proxy.ssh.keys import public_blob
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.fake_agent import Store, fake_agent, framed
from tests.support.fake_api import Answer
from tests.unit.commands.conftest import Commands, Done

READY = ReadySession("ssh.example", 22, "me", "a", "", True, 1e9, 1000.0, 2000.0)
NAME, LONGER = MachineName("dm-foo"), MachineName("dm-foo-2")


def closer(state: StateDirectory, *agents: str) -> Closer:
    log = Log(state.file("log"))
    known = KnownMachines(state.path, "account")
    credentials = Credentials("dsk-key", None, "a test")
    factory = ApiFactory(Settings(), {}, log, known, print, credentials)
    return Closer(state, factory, {NAME: set(agents), LONGER: set(agents)})


def test_what_agents_hold_of_a_machine_without_a_record_goes_and_no_other(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    stores = [Store(), Store()]
    for store in stores:
        store.held = {
            b"one": b"dm-foo", b"two": b"dm-foo via ssh.example",
            b"other": b"dm-foo-2 via ssh.example", b"mine": b"me@home",
        }  # fmt: skip
    with fake_agent() as first, fake_agent() as second:
        first.answer, second.answer = stores
        text = closer(state, first.path, second.path).close(NAME, print, lambda: False)
    assert text == "there was no session"
    assert [set(store.held) for store in stores] == [{b"other", b"mine"}] * 2


def test_what_the_api_makes_wait_for_is_shown_beside_the_other_machines(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.api.answers = [Answer(204)]
    notices: list[str] = []
    opened: list[Any] = []
    open_api = ApiFactory.open

    def note(self: ApiFactory, deadline: Deadline) -> Any:
        opened.append((self.notice, deadline.seconds, deadline.client_gone))
        return open_api(self, deadline)

    monkeypatch.setattr(ApiFactory, "open", note)
    commands.save("dm-foo")
    found = closer(commands.state)
    found._factory = replace(found._factory, settings=Settings(base_url=commands.api.url))
    is_stopping = threading.Event().is_set
    found.close(NAME, notices.append, is_stopping)
    assert opened == [(notices.append, 30, is_stopping)]


@pytest.mark.parametrize(
    "closing, ready, expected",
    [
        (Closing.CLOSED, None, "session wssh-1 closed"),
        (Closing.UNKNOWN, None, "session wssh-1 removed; the API does not know it"),
        (Closing.UNSUPPORTED, None,
         "session wssh-1 removed, but not closed: this API closes no sessions"),
        (Closing.UNSUPPORTED, READY,
         "session wssh-1 removed, but not closed: this API closes no sessions; it ends at"
         " 2001-09-09T01:46:40.000Z"),
    ],
)  # fmt: skip
def test_only_what_the_api_has_closed_is_called_closed(
    closing: Closing, ready: ReadySession | None, expected: str
) -> None:
    attempt = Attempt("k", "ab" * 32, "", 2000.0, "account", "wssh-1")
    assert describe_closing(closing, Record(attempt, ready)) == expected


def test_a_session_of_another_account_is_neither_closed_nor_forgotten(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    record = Record(Attempt("k", "ab" * 32, "", 2000.0, "another account", "wssh-1"))
    state.save(NAME, record)
    with pytest.raises(ConfigError, match="created with another API or organisation"):
        closer(state).close(NAME, print, lambda: False)
    assert state.load(NAME) == record


def deleted(commands: Commands) -> list[str]:
    return [asked.path for asked in commands.api.asked if asked.method == "DELETE"]


def test_a_session_is_closed_here_and_at_the_api(commands: Commands) -> None:
    commands.api.answers = [Answer(204)]
    with fake_agent() as agent:
        agent.answer = store = Store()
        record = commands.save("dm-foo", agent=agent.path)
        store.held = {record.identity: b"dm-foo", b"other": b"dm-bar"}
        done = commands("close", "dm-foo")
    assert done == Done(0, "dm-foo: session wssh-dm-foo closed\n", "")
    assert deleted(commands) == ["/v1/machines/dm-foo/ssh/wssh-dm-foo"]
    assert len({asked.headers["idempotency-key"] for asked in commands.api.asked}) == 1
    assert commands.state.machines() == []
    assert set(store.held) == {b"other"}
    log_text = Path(commands.state.file("log")).read_text()
    assert " closed machine=dm-foo session=wssh-dm-foo" in log_text
    assert commands("close", "dm-foo") == Done(0, "dm-foo: there was no session\n", "")
    assert " closed machine=dm-foo session=-" in Path(commands.state.file("log")).read_text()


def test_the_certificate_and_the_bare_key_are_both_removed(commands: Commands) -> None:
    commands.api.answers = [Answer(204)]
    ready = replace(READY, certificate="ssh-ed25519-cert-v01@openssh.com Y2VydA==", bare_key=False)
    with fake_agent() as agent:
        agent.answer = store = Store()
        record = commands.save("dm-foo", agent=agent.path, ready=ready)
        bare = public_blob(record.attempt.public)
        store.held = {b"cert": b"", bare: b"", b"other": b""}
        assert commands("close", "dm-foo").code == 0
    assert (record.identity, set(store.held)) == (b"cert", {b"other"})


def test_all_are_those_with_a_session_or_with_an_identity_left(commands: Commands) -> None:
    commands.api.answers = [Answer(204)]
    assert commands("close", "--all") == Done(0, "", "dcs-proxy: there are no sessions\n")
    for name in ("dm-a", "dm-b-1234"):
        commands.save(name)
    place = PrivateAgents(commands.state.path)
    with fake_agent() as agent:
        os.link(agent.path, place.path(1))
        agent.answer = store = Store()
        store.held = {b"one": b"dm-c via ssh.example", b"mine": b"me@home"}
        done = commands("close", "--all")
        os.unlink(place.path(1))
    assert (done.code, sorted(done.out.splitlines())) == (
        0, ["dm-a: session wssh-dm-a closed", "dm-b-1234: session wssh-dm-b-1234 closed",
            "dm-c: there was no session"],
    )  # fmt: skip
    assert set(store.held) == {b"mine"}
    assert commands.state.machines() == []


def test_a_session_that_the_api_does_not_close_is_kept_and_its_identity_is_not(
    commands: Commands,
) -> None:
    commands.api.answers = [Answer(403)]
    with fake_agent() as agent:
        agent.answer = store = Store()
        record = commands.save("dm-foo", agent=agent.path)
        store.held = {record.identity: b"", b"other": b""}
        done = commands("close", "1234", "dm-foo")
    assert (done.code, done.out) == (5, "dm-1234: there was no session\n")
    assert done.err.startswith("dcs-proxy: dm-foo: ")
    assert commands.state.machines() == ["dm-foo"]
    assert set(store.held) == {b"other"}


def test_an_agent_that_is_in_trouble_keeps_no_session_open_at_the_api(commands: Commands) -> None:
    commands.api.answers = [Answer(204)]
    with fake_agent() as agent:
        agent.answer = framed(b"")
        commands.save("dm-foo", agent=agent.path)
        done = commands("close", "dm-foo")
    assert done.code == 12
    assert deleted(commands) == ["/v1/machines/dm-foo/ssh/wssh-dm-foo"]
    assert commands.state.machines() == ["dm-foo"], "so that it can be tried again"
    # An agent that has exited holds nothing any more.
    assert commands("close", "dm-foo").code == 0


def test_a_session_that_was_only_requested_needs_no_api(commands: Commands) -> None:
    record = commands.save("dm-foo")
    commands.state.save(NAME, replace(record, attempt=replace(record.attempt, session_id="")))
    assert commands("close", "dm-foo").out == "dm-foo: there was no session\n"
    assert (commands.api.asked, commands.state.machines()) == ([], [])


def test_the_key_is_read_once_for_all_machines(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.api.answers = [Answer(204)]
    sources = []
    load = app.load_credentials
    monkeypatch.setattr(app, "load_credentials", lambda *a: sources.append(a) or load(*a))
    for name in ("dm-a", "dm-b", "dm-c"):
        commands.save(name)
    assert commands("close", "--all").code == 0
    assert len(sources) == 1


def test_an_interrupt_is_told_and_is_a_failure(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Batch) -> int:
        self.outcomes[NAME] = "closed"
        raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "run", interrupt)
    assert commands("close", "dm-foo", "dm-bar") == Done(
        130, "", "dcs-proxy: interrupted: 1 of 2 machines done\n"
    )


def test_agents_that_hold_nothing_any_more_are_ended(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[dict[str, float]] = []
    monkeypatch.setattr(PrivateAgents, "end", lambda self, **more: ended.append(more))
    commands("close", "dm-foo")
    assert ended[0] == {"timeout_s": 30}


def test_the_machines_of_all_are_in_natural_order(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[object] = []
    monkeypatch.setattr(Batch, "run", lambda self: orders.append(self._names) or 0)
    for number in (10, 9, 8, 100):
        commands.save(f"dm-{number}")
    assert commands("close", "--all").code == 0
    assert orders == [["dm-8", "dm-9", "dm-10", "dm-100"]]


def test_a_session_of_another_account_is_told_with_its_machine(commands: Commands) -> None:
    record = commands.save("dm-foo")
    attempt = replace(record.attempt, account="another account")
    commands.state.save(NAME, replace(record, attempt=attempt))
    done = commands("close", "dm-foo")
    assert (done.code, done.err.splitlines()[0]) == (
        3, "dcs-proxy: dm-foo: the session was created with another API or organisation"
    )  # fmt: skip
    assert "hint: set DEDALUS_BASE_URL and DEDALUS_ORG_ID as they were" in done.err


def test_a_machine_that_another_process_works_on_is_left_alone(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.save("dm-foo")
    monkeypatch.setattr(close, "_CLOSE_S", 0.1)
    with commands.state.lock(NAME, Deadline(60)):
        done = commands("close", "dm-foo")
    assert (done.code, commands.api.asked) == (10, [])
    assert done.err.startswith("dcs-proxy: dm-foo: another dcs-proxy")
    assert commands.state.machines() == ["dm-foo"]


def test_files_that_a_lost_record_has_left_go_too(commands: Commands) -> None:
    left = [Path(commands.state.file(*parts)) for parts in
            (("hosts", "dm-foo.conf"), ("sessions", f"dm-foo.{'ab' * 6}.pub"))]  # fmt: skip
    for path in left:
        path.write_text("")
    assert commands("close", "dm-foo").out == "dm-foo: there was no session\n"
    assert [path for path in left if path.exists()] == []


def test_identities_of_earlier_sessions_go_with_the_session(commands: Commands) -> None:
    commands.api.answers = [Answer(204)]
    with fake_agent() as agent:
        agent.answer = store = Store()
        commands.save("dm-foo")
        place = PrivateAgents(commands.state.path)
        os.link(agent.path, place.path(1))
        store.held = {b"earlier": b"dm-foo via ssh.example", b"other": b"dm-foo-2"}
        assert commands("close", "dm-foo").code == 0
        os.unlink(place.path(1))
    assert set(store.held) == {b"other"}


@pytest.mark.parametrize("reply", [b"\x05", b""])
def test_an_agent_that_does_not_tell_what_it_holds_is_skipped(tmp_path: Path, reply: bytes) -> None:
    state = StateDirectory(str(tmp_path))
    with fake_agent() as agent:
        agent.answer = framed(reply)
        found = closer(state, agent.path, "/nowhere/agent.sock").close(NAME, print, lambda: False)
    assert found == "there was no session"
