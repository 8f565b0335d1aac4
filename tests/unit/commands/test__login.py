from __future__ import annotations

from dataclasses import replace

import pytest

from dcs_proxy.commands._login import check_login
from dcs_proxy.errors import LoginMismatch
from dcs_proxy.session.records import Attempt, ReadySession, Record

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
