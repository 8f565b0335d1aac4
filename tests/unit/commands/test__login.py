from __future__ import annotations

import os
from dataclasses import replace

import pytest

from dcs_proxy.commands import _login
from dcs_proxy.commands._login import (
    check_login,
    is_known_login,
    not_woken_for,
    refuse_host_name,
)
from dcs_proxy.errors import LoginMismatch, UsageError
from dcs_proxy.names import MachineName
from dcs_proxy.session.records import Attempt, ReadySession, Record
from tests.unit.commands.conftest import Commands

ATTEMPT = Attempt("key-1", "ab" * 32, "/agent.sock", 2000.0, "account", "wssh-1", True)
READY = ReadySession("ssh.example", 22, "wssh-1", "a", "", True, 3000.0, 1000.0, 1000.0)
RECORD = Record(ATTEMPT, READY, "cd" * 6, "wssh-0")


def test_the_login_of_the_session_or_of_the_one_before_it_is_accepted() -> None:
    check_login("wssh-1", "dm-foo", RECORD, was_prepared=True)
    # ssh had read it just before the session was replaced.
    check_login("wssh-0", "dm-foo", RECORD, was_prepared=True)


@pytest.mark.parametrize("login", ["wssh-", "wssh-11", "root", ""])
def test_any_other_login_is_refused_with_the_remedy(login: str) -> None:
    with pytest.raises(LoginMismatch, match=r"this session's login is wssh-1$") as caught:
        check_login(login, "dm-foo", RECORD, was_prepared=True)
    assert "type: ssh dm-foo " in caught.value.hint
    assert caught.value.machine == "dm-foo"


def test_an_empty_login_is_not_that_of_a_record_without_a_session_before() -> None:
    with pytest.raises(LoginMismatch, match="with an empty user name"):
        check_login("", "dm-foo", replace(RECORD, previous_username=""), was_prepared=True)


def test_an_ssh_that_could_not_be_prepared_is_to_be_started_again() -> None:
    with pytest.raises(LoginMismatch, match="started before the session existed") as caught:
        check_login("me", "dm-foo", RECORD, was_prepared=False)
    assert caught.value.hint == "the machine is awake now; type again: ssh dm-foo"


@pytest.mark.parametrize(
    ("way", "how"),
    [(None, None), ("", "directly"), ("hop.example", "through hop.example"),
     ("\x1b[31m", "through [31m"), ("\x1b", "through ?"), ("x" * 100, f"through {'x' * 77}...")],
)  # fmt: skip
@pytest.mark.parametrize("by_ansible", [True, False])
def test_a_way_around_our_proxy_command_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, way: str | None, how: str | None, by_ansible: bool
) -> None:
    monkeypatch.setattr(_login, "typed_bypass", lambda pid: way if pid == 7 else "another")
    monkeypatch.setattr(_login, "is_run_by_ansible", lambda pid: by_ansible and pid == 7)
    if how is None:
        _login.refuse_bypass(7, "dm-foo")
        return
    with pytest.raises(UsageError, match="so it cannot reach the machine") as caught:
        _login.refuse_bypass(7, "dm-foo")
    assert caught.value.message.startswith(f"ssh is about to connect {how} and not through ")
    assert caught.value.machine == "dm-foo"
    assert ("ansible_ssh_common_args" in caught.value.hint) is by_ansible
    assert ("leave out -J" in caught.value.hint) is not by_ansible


def test_a_login_is_known_if_any_session_has_or_had_it(commands: Commands) -> None:
    assert not is_known_login("wssh-1", commands.state)
    commands.save("dm-waking")
    commands.state.save(MachineName("dm-foo"), RECORD)
    known = [login for login in ("wssh-0", "wssh-1", "wssh", "") if
             is_known_login(login, commands.state)]  # fmt: skip
    assert known == ["wssh-0", "wssh-1"]


def test_the_remedy_for_a_login_is_that_of_the_program_that_runs_ssh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_login, "is_run_by_ansible", lambda pid: pid == os.getppid())
    error = not_woken_for("x" * 100, "dm-foo")
    assert error.message.startswith(f"ssh is about to log in as {'x' * 77}..., but only ")
    assert error.hint.startswith('set ansible_user: "" for dm-foo: ')
    assert "as ?," in not_woken_for("\x1b", "dm-foo").message


@pytest.mark.parametrize("host", ["10.0.0.1", "dm-foo.corp.example", "web", "::1", "dm-a:b"])
def test_a_host_name_that_is_no_machines_is_named(host: str) -> None:
    with pytest.raises(UsageError, match="HostName makes ssh connect to ") as caught:
        refuse_host_name(host, os.getpid())
    assert f'"{host}"' in caught.value.message and "doctor" in caught.value.hint


@pytest.mark.parametrize("host", ["dm-foo", "dm-", "dm-foo-", "dm-0a1b"])
def test_what_a_user_may_type_is_no_host_name_line(host: str) -> None:
    refuse_host_name(host, os.getpid())


@pytest.mark.parametrize("typed", [None, "web", "dm-foo", "dm-f\ufffd", "dm-"])
def test_a_host_name_that_is_the_name_typed_or_unknown_is_accepted(
    monkeypatch: pytest.MonkeyPatch, typed: str | None
) -> None:
    monkeypatch.setattr(_login, "typed_host", lambda pid: typed if pid == 7 else "dm-other")
    refuse_host_name("dm-foo", 7)


def test_another_machine_than_the_one_typed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_login, "typed_host", lambda pid: "dm-web")
    with pytest.raises(UsageError, match='connect "dm-web" to dm-foo, which') as caught:
        refuse_host_name("dm-foo", 7)
    assert "ssh dm-foo" in caught.value.hint and "dcs-proxy alias NAME dm-foo" in caught.value.hint
