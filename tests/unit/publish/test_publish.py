"""Looking a gateway up for the next ssh."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dcs_proxy.errors import GatewayUnreachable
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.http_proxy import HttpProxy
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.publish import publish
from dcs_proxy.publish.publish import first_address
from dcs_proxy.session.context import Context
from dcs_proxy.session.records import Attempt, ReadySession, Record

READY = ReadySession("ssh.example", 2222, "user", "a", "", True, 5000.0, 1000.0, 1000.0)
RECORD = Record(Attempt("k", "ab" * 32, "/agent.sock", 20_000.0, "account"), READY)


def context(seconds: float = 300, **changes: Any) -> Context:
    settings = replace(Settings(), **changes)
    return cast(Context, SimpleNamespace(settings=settings, deadline=Deadline(seconds)))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, float]]:
    """What the name servers are asked: name, port and limit."""
    found: list[tuple[str, int, float]] = []

    def look_up(name: str, port: int, limit: float, gone: Callable[[], bool]) -> list[Any]:
        found.append((name, port, limit))
        return [
            (socket.AF_INET6, ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, ("192.0.2.1", port)),
        ]

    monkeypatch.setattr(publish, "look_up", look_up)
    return found


def test_it_is_the_address_that_the_resolver_puts_first(
    asked: list[tuple[str, int, float]],
) -> None:
    assert first_address(RECORD, context()) == "2001:db8::1"
    assert asked == [("ssh.example", 2222, 10)]


def test_the_lookup_ends_with_the_time_for_the_whole_command(
    asked: list[tuple[str, int, float]],
) -> None:
    first_address(RECORD, context(4))
    ((_, _, limit),) = asked
    assert limit <= 4


def test_behind_a_proxy_nothing_is_looked_up(asked: list[tuple[str, int, float]]) -> None:
    assert first_address(RECORD, context(proxy=HttpProxy("proxy.example", 3128))) == ""
    assert first_address(Record(RECORD.attempt), context()) == ""
    assert asked == []


def test_a_name_that_is_not_found_is_left_to_the_full_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise GatewayUnreachable("no such name")

    monkeypatch.setattr(publish, "look_up", fail)
    assert first_address(RECORD, context()) == ""


def test_a_session_is_published_before_it_is_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(publish, "publish", lambda state, host, name, record: (
        done.append(("publish", state, host, name, record)) or [f"{host}.conf"]))  # fmt: skip
    monkeypatch.setattr(publish, "publish_user_agent", lambda *a: done.append(("agent", *a)))
    monkeypatch.setattr(publish, "mark_checked", lambda *a: done.append(("checked", *a)))
    entry: Any = SimpleNamespace(write=lambda *a, **more: done.append(("warm", *a, more)))
    made: Any = SimpleNamespace(state="state")
    hosts = [MachineName("dm-web"), MachineName("dm-foo")]
    publish.publish_session(
        hosts, hosts[1], RECORD, made, entry, user_agent="/my/agent", address="192.0.2.1"
    )
    assert done == [
        *(("publish", "state", host, "dm-foo", RECORD) for host in hosts),
        ("agent", "state", "/my/agent"),
        # Before the fast entries, which need the files to be checked.
        ("checked", "state"),
        *(("warm", host, RECORD, [f"{host}.conf"], {"address": "192.0.2.1"}) for host in hosts),
    ]
