"""What the agent is given for a session."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.api.model import Session
from dcs_proxy.emulator.authority import public_line
from dcs_proxy.errors import ClientGone, SessionFailed, Untrusted
from dcs_proxy.local.settings import Settings
from dcs_proxy.session import identity
from dcs_proxy.session.records import ReadySession
from dcs_proxy.ssh import certificates as certificate
from dcs_proxy.ssh.wire import pack_string
from tests.support.fake_agent import framed
from tests.unit.session.fakes import AUTHORITIES, NAME, Fakes, events


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


def ready_of(fakes: Fakes) -> ReadySession:
    ready = fakes.resolve().ready
    assert ready is not None
    return ready


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def test_a_certificate_without_an_end_ends_no_session(fakes: Fakes) -> None:
    session = fakes.api.session("wssh-1", public_line(AUTHORITIES.user_ca))
    assert session.expires_at is not None
    certificate: Any = SimpleNamespace(ends_at=None)
    assert identity._end(session, certificate, fakes.now(), 0) == session.expires_at.timestamp()


@pytest.mark.parametrize("ahead_s", [0, 7200, -7200])
def test_times_are_told_by_our_clock_whatever_the_apis_says(fakes: Fakes, ahead_s: float) -> None:
    now = fakes.now()
    fakes.now = lambda: now
    fakes.api.clock_ahead_s = ahead_s
    fakes.api.changes = {"began_at": moment(now + ahead_s - 100)}
    ready = ready_of(fakes)
    assert 3590 < ready.ends_at - now < 3700
    assert ready.began_at == pytest.approx(now - 100, abs=1)
    # So that the next ssh asks the API again, and reports the clock again.
    assert ready.proved_at == now - (Settings().reuse_seconds if ahead_s else 0)
    fakes.api.changes = {"began_at": moment(now + ahead_s + 50)}
    assert ready_of(fakes).began_at <= now, "nothing begins in the future"


def test_a_session_without_a_beginning_begins_now(fakes: Fakes) -> None:
    now = fakes.now()
    fakes.now = lambda: now
    fakes.api.changes = {"began_at": None}
    assert ready_of(fakes).began_at == now


def test_the_first_end_counts_and_an_unknown_one_is_in_an_hour(fakes: Fakes) -> None:
    now = fakes.now()
    fakes.now = lambda: now
    fakes.api.changes = {"expires_at": moment(now + 7200)}
    ready = ready_of(fakes)
    assert 3590 < ready.ends_at - now < 3700, "the certificate's"
    assert ready.certificate.startswith("ssh-ed25519-cert-v01@openssh.com ")


def test_without_any_end_a_session_is_used_for_an_hour(fakes: Fakes) -> None:
    now = fakes.now()
    fakes.now = lambda: now
    create = fakes.api.create_session

    def create_bare(*args: Any) -> Session:
        session = create(*args)
        assert session.connection is not None
        bare = replace(session.connection, user_certificate=None)
        return replace(session, connection=bare, expires_at=None)

    # In place of the method, which gives a certificate.
    fakes.api.create_session = create_bare  # type: ignore[method-assign]
    ready = ready_of(fakes)
    assert (ready.ends_at, ready.certificate, ready.bare_key) == (now + 3600, "", True)


def test_the_agent_holds_the_identity_for_as_long_as_the_session_lasts(fakes: Fakes) -> None:
    ready = ready_of(fakes)
    # RFC 9987: SSH_AGENT_CONSTRAIN_LIFETIME is a 1 and the seconds, after the comment.
    comment = pack_string(b"dm-foo via ssh.example") + b"\1"
    (request,) = (each for each in added(fakes) if comment in each)
    lifetime_s = int.from_bytes(request.partition(comment)[2][:4], "big")
    assert 0 <= ready.ends_at - ready.proved_at - lifetime_s < 2


def test_a_lifetime_is_at_least_a_second(fakes: Fakes) -> None:
    """To an agent, a lifetime of 0 is one that has ended or that never ends."""
    now = fakes.now()
    fakes.now = lambda: now
    fakes.api.changes = {"expires_at": moment(now + 0.5)}
    fakes.resolve()
    comment = pack_string(b"dm-foo via ssh.example") + b"\1"
    (request,) = (each for each in added(fakes) if comment in each)
    assert request.partition(comment)[2][:4] == (1).to_bytes(4, "big")


def test_an_agent_that_cannot_bind_is_noted(fakes: Fakes) -> None:
    store = fakes.store

    def refuse(request: bytes) -> bytes:
        return framed(b"\5")(request) if b"restrict-destination" in request else store(request)

    fakes.agent.answer = refuse
    assert not ready_of(fakes).bare_key
    expected = f"no-destination-constraint machine=dm-foo agent={fakes.agent.path}"
    assert events(fakes, "no-destination-constraint") == [expected]


def test_an_agent_that_binds_or_takes_no_certificate_is_not_noted_as_one(fakes: Fakes) -> None:
    fakes.resolve()
    assert events(fakes, "no-destination-constraint", "agent-refused-certificate") == []
    fakes.store.refuses_certificates = True
    fakes.state.forget(NAME)
    fakes.resolve()
    (line,) = events(fakes, "no-destination-constraint", "agent-refused-certificate")
    assert line.startswith("agent-refused-certificate machine=dm-foo what=")


def test_what_cannot_be_used_is_told(fakes: Fakes) -> None:
    fakes.api.changes = {"connection": None}
    with pytest.raises(SessionFailed) as failed:
        fakes.resolve()
    assert failed.value.message == "the session is ready but has no connection details"
    assert failed.value.hint.startswith("try again; if this persists, report it")
    fakes.api.changes = {"expires_at": moment(fakes.now() - 1)}
    with pytest.raises(Untrusted) as ended:
        fakes.resolve()
    assert ended.value.message == (
        "the API says that the session is ready, but it has already ended"
    )
    assert ended.value.hint == "check this computer's clock"
