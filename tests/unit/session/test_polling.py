from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dcs_proxy.api.model import Session
from dcs_proxy.errors import IdempotencyConflict
from dcs_proxy.names import MachineName
from dcs_proxy.session.polling import SessionPoller
from dcs_proxy.session.records import Attempt
from dcs_proxy.ssh.keys import public_line
from tests.unit.session.fakes import NAME, FakeApi

NEW = Attempt("key", bytes(range(32)).hex(), "/agent.sock", 2000.0, "account")
WITH_ID = replace(NEW, session_id="wssh-0")
POLLED = replace(WITH_ID, polled=True)


class Api(FakeApi):
    """One whose GET may lack the session, and whose POST may have seen another request."""

    def __init__(self, *, has_get: bool = True, conflict: bool = False) -> None:
        super().__init__(has_get=has_get)
        self.conflict = conflict
        self.keys["key"] = ("wssh-0", public_line(NEW.public))
        self.once: list[bool] = []

    def get_session(
        self, name: MachineName, session_id: str, *, once: bool = False
    ) -> Session | None:
        self.once.append(once)
        # A session's number in FakeApi is the end of its id.
        self.journal.append(("GET", session_id))
        return self.session(session_id, public_line(NEW.public)) if self.has_get else None

    def create_session(self, name: MachineName, public_key: str, idempotency_key: str) -> Session:
        if self.conflict:
            self.journal.append(("POST", idempotency_key))
            raise IdempotencyConflict("used before")
        return super().create_session(name, public_key, idempotency_key)


GET, POST = ("GET", "wssh-0"), ("POST", "key")


@pytest.mark.parametrize(
    ("attempt", "api", "journal", "is_known"),
    [
        (WITH_ID, Api(), [GET], True),
        (POLLED, Api(), [GET], True),
        # A session that is gone, as GET has worked before; it must not be created anew.
        (POLLED, Api(has_get=False), [GET], False),
        # No such route, or gone: the same POST tells.
        (WITH_ID, Api(has_get=False), [GET, POST], True),
        (WITH_ID, Api(has_get=False, conflict=True), [GET, POST], False),
        (NEW, Api(), [POST], True),
        (NEW, Api(conflict=True), [POST], False),
    ],
)
def test_a_session_is_asked_for_by_get_or_else_by_the_same_post(
    attempt: Attempt, api: Api, journal: list[Any], is_known: bool
) -> None:
    found = SessionPoller(NAME, api).look(attempt)
    assert (found is not None) is is_known and api.journal == journal
    assert found is None or found.session_id == "wssh-0"


def test_an_api_without_get_is_asked_by_post_from_then_on() -> None:
    api = Api(has_get=False)
    poller = SessionPoller(NAME, api)
    for _ in range(3):
        session = poller.look(WITH_ID)
    assert api.journal == [GET, POST, POST, POST]
    assert session is not None
    assert poller.note(WITH_ID, session) == WITH_ID, "GET has not worked"


@pytest.mark.parametrize("once", [True, False])
def test_a_question_that_is_asked_once_is_not_repeated(once: bool) -> None:
    api = Api()
    SessionPoller(NAME, api).look(WITH_ID, once=once)
    SessionPoller(NAME, api).look(WITH_ID)
    assert api.once == [once, False]


def test_an_attempt_learns_its_session_and_whether_get_works() -> None:
    poller = SessionPoller(NAME, Api())
    session = poller.create(NEW)
    assert poller.note(NEW, session) == WITH_ID
    assert poller.note(WITH_ID, session) == POLLED
