"""What the agent is given for a session."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.model import Session
from dcs_proxy.errors import ClientGone, Untrusted
from dcs_proxy.ssh import certificates as certificate
from tests.unit.session.fakes import Fakes


def test_a_certificate_is_bound_to_the_gateway(fakes: Fakes) -> None:
    fakes.resolve()
    assert any(b"restrict-destination" in request for request in fakes.agent.requests)


def added(fakes: Fakes) -> list[bytes]:
    """Return the requests that added an identity (SSH_AGENTC_ADD_ID_CONSTRAINED)."""
    return [request for request in fakes.agent.requests if request[0] == 25]


def test_a_bare_key_beside_a_certificate_is_not_bound(fakes: Fakes) -> None:
    fakes.store.refuses_certificates = True
    fakes.resolve()
    before, *refused, bare = added(fakes)
    assert b"restrict-destination" in refused[0]
    assert b"restrict-destination" not in before + bare


def test_a_bare_key_without_a_certificate_is_bound(fakes: Fakes) -> None:
    create = fakes.api.create_session

    def create_without(*args: Any) -> Session:
        session = create(*args)
        assert session.connection is not None
        return replace(session, connection=replace(session.connection, user_certificate=None))

    # In place of the method, which gives a certificate.
    fakes.api.create_session = create_without  # type: ignore[method-assign]
    record = fakes.resolve()
    assert record.ready is not None and record.ready.bare_key
    assert [b"restrict-destination" in request for request in added(fakes)] == [False, True]


@pytest.mark.parametrize(("left_s", "is_over"), [(0.0, True), (1.0, False)])
def test_a_session_that_has_ended_is_not_used(fakes: Fakes, left_s: float, is_over: bool) -> None:
    now = float(int(time.time()))  # dates have microseconds
    fakes.now = lambda: now
    fakes.api.changes = {"expires_at": datetime.fromtimestamp(now, timezone.utc)
                         + timedelta(seconds=left_s)}  # fmt: skip
    if not is_over:
        assert fakes.resolve().ready
        return
    with pytest.raises(Untrusted, match="has already ended"):
        fakes.resolve()


def test_a_session_whose_private_key_is_gone_ends_with_the_key_in_the_agent(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone"), "ready"]
    with pytest.raises(ClientGone):
        fakes.resolve()
    record = fakes.resolve()
    assert record.ready is not None and record.ready.bare_key
    assert record.ready.ends_at == record.attempt.key_ends_at < fakes.now() + 3600


def test_no_agent_holds_a_key_for_years(fakes: Fakes) -> None:
    fakes.api.changes = {"expires_at": datetime(9999, 1, 1, tzinfo=timezone.utc)}
    ready = fakes.resolve().ready
    assert ready is not None
    assert 0 < ready.ends_at - fakes.now() <= 7 * 24 * 3600


def test_an_agent_without_certificates_gets_the_bare_key(fakes: Fakes) -> None:
    fakes.store.refuses_certificates = True
    record = fakes.resolve()
    assert record.ready is not None and record.ready.bare_key
    assert list(fakes.store.held) == [record.identity]
    assert "agent-refused-certificate" in fakes.log()
    assert fakes.resolve() == record


def test_the_private_key_is_nowhere_in_the_state_directory(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    generate = certificate.generate_key

    def remember() -> Any:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr("dcs_proxy.session.steps.generate_key", remember)
    fakes.resolve()
    (key,) = made
    for path in Path(fakes.state.path).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key.seed not in data and key.seed.hex().encode() not in data
