"""What `status` says of sessions and agents."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.known_machines import Known
from dcs_proxy.console.format import rfc3339
from dcs_proxy.errors import AgentRefused, AgentUnavailable
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName, short_names
from dcs_proxy.session import report
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import NEVER, Attempt, ReadySession, Record
from dcs_proxy.session.report import Agents, SessionStatus, session_status, sessions
from dcs_proxy.ssh.agent import AgentMissing, Identity
from dcs_proxy.ssh.certificates import read_terms
from dcs_proxy.ssh.keys import public_line
from tests.unit.session.fakes import AUTHORITIES

NAME, SHORT = MachineName("dm-foo"), MachineName("dm-short")
ACCOUNT = json.dumps(["https://dcs.example", "org"])
ATTEMPT = Attempt("k", "ab" * 32, "/agent.sock", 2000.0, ACCOUNT, "wssh-1")
READY = ReadySession("ssh.example", 2222, "user", "a", "", True, 3000.0, 1000.0, 1500.0)
RECORD = Record(ATTEMPT, READY)
ALIASES = {"dm-web": NAME, "dm-db": MachineName("dm-bar")}


def described(record: Record, now: float, held: set[bytes] | str = "not running") -> SessionStatus:
    asked = []

    def ask(path: str) -> set[bytes] | str:
        asked.append(path)
        return held

    found = session_status(NAME, SHORT, record, Settings(aliases=ALIASES), ask, now)
    assert asked == ["/agent.sock"]
    return found


def test_a_ready_session_is_described_whole() -> None:
    assert described(RECORD, 1600.0, {RECORD.identity}) == SessionStatus(
        machine="dm-foo", short_name="dm-short", aliases=["dm-web"],
        base_url="https://dcs.example", session_id="wssh-1", status="ready",
        endpoint="ssh.example", port=2222, ssh_username="user",
        expires_at="1970-01-01T00:50:00.000Z", seconds_left=1400, certificate=None,
        identity_held=True, proved_at="1970-01-01T00:25:00.000Z",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ready", "now", "status", "left"),
    [
        (READY, 2999.5, "ready", 0),
        (READY, 3000.0, "ended", 0),
        (READY, 9000.0, "ended", 0),
        (None, 1900.0, "waking", 100),
        (None, 2000.0, "ended", 0),
        (None, 9000.0, "ended", 0),
    ],
)
def test_a_session_is_ready_or_wakes_until_it_ends(
    ready: ReadySession | None, now: float, status: str, left: int
) -> None:
    found = described(Record(ATTEMPT, ready), now)
    assert (found.status, found.seconds_left) == (status, left)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"attempt": replace(ATTEMPT, session_id="")}, {"session_id": None}),
        ({"attempt": replace(ATTEMPT, account="damaged")}, {"base_url": ""}),
        ({"attempt": replace(ATTEMPT, account="[1]")}, {"base_url": ""}),
        ({"attempt": replace(ATTEMPT, account="1")}, {"base_url": ""}),
        ({"attempt": replace(ATTEMPT, account="null")}, {"base_url": ""}),
        ({"attempt": replace(ATTEMPT, account="[1, 2]")}, {"base_url": "1"}),
        ({"ready": replace(READY, proved_at=NEVER)}, {"proved_at": None}),
        ({"ready": None}, {"endpoint": None, "port": None, "ssh_username": None,
                           "proved_at": None, "certificate": None}),
    ],
)  # fmt: skip
def test_what_is_not_known_is_none(changes: Any, expected: dict[str, object]) -> None:
    found = described(replace(RECORD, **changes), 1600.0)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("held", "is_held"),
    [("not running", None), (set(), False), ({b"another"}, False), ({RECORD.identity}, True)],
)
def test_an_agent_that_does_not_answer_holds_neither_this_nor_that(
    held: set[bytes] | str, is_held: bool | None
) -> None:
    assert described(RECORD, 1600.0, held).identity_held is is_held


def test_each_agent_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Agent:
        def __init__(self, path: str, *, timeout_s: float) -> None:
            asked.append((path, timeout_s))
            self.path = path

        def identities(self) -> list[Identity]:
            if self.path == "/gone":
                raise AgentMissing("no agent listens at /gone")
            if self.path == "/locked":
                raise AgentRefused("refused to list identities")
            if self.path == "/silent":
                raise AgentUnavailable("did not answer within 2 s")
            return [Identity(b"1", ""), Identity(b"2", "")]

    monkeypatch.setattr(report, "Agent", Agent)
    agents = Agents()
    for _ in range(2):
        assert agents.ask("/one") == {b"1", b"2"}
        assert agents.ask("/gone") == "not running"
    assert asked == [("/one", 2.0), ("/gone", 2.0)]
    assert agents.ask("/locked") == "refused to list identities"
    assert agents.ask("/silent") == "did not answer within 2 s"
    found = agents.status("private", "/", ["/one", "/gone"])
    assert (found.sockets, found.identities, found.problem) == (["/one"], 2, "")
    assert agents.status("private", "/", ["/gone"]).identities is None
    assert agents.status("private", "/", []).problem == "not running"
    assert agents.status("user", "", []).problem == "SSH_AUTH_SOCK is not set"


def test_all_sessions_are_described_by_their_shortest_names(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    names = [MachineName(f"dm-{end}") for end in ("aaaa-10", "aaaa-2")]
    for name in names:
        state.save(name, replace(RECORD, attempt=replace(ATTEMPT, machine=name)))
    # One that is only known makes the ends ambiguous.
    known = Known(ids=(MachineId("dm-bbbb-10"),))
    agents = Agents()
    agents._answers["/agent.sock"] = {RECORD.identity}
    found = sessions(state, Settings(), known, agents, 1600.0)
    assert [each.machine for each in found] == ["dm-aaaa-2", "dm-aaaa-10"]
    assert [each.identity_held for each in found] == [True, True]
    (damaged,) = tmp_path.rglob("dm-aaaa-2.json")
    text = damaged.read_text()
    damaged.write_text(text[:9])
    left = sessions(state, Settings(), known, agents, 1600.0)
    assert [each.machine for each in left] == ["dm-aaaa-10"]
    damaged.write_text(text)
    short = short_names({*names, MachineName("dm-bbbb-10")}, {})
    assert [each.short_name for each in found] == [short[each] for each in names[::-1]]
    assert sessions(StateDirectory(str(tmp_path / "none")), Settings(), known, agents, 0.0) == []


@pytest.mark.parametrize("has_end", [True, False])
def test_a_certificate_is_described_with_its_times(has_end: bool) -> None:
    made = AUTHORITIES.sign_user(public_line(bytes(range(32))), "user", time.time() + 3600)
    terms = read_terms(made)
    assert terms is not None
    with pytest.MonkeyPatch.context() as patch:
        if not has_end:
            patch.setattr(report, "read_terms", lambda _: replace(terms, ends_at=None))
        found = described(replace(RECORD, ready=replace(READY, certificate=made)), 1600.0)
    assert found.certificate == report.CertificateStatus(
        ["user"], rfc3339(terms.begins_at), rfc3339(terms.ends_at or 0.0) if has_end else None
    )
    damaged = described(replace(RECORD, ready=replace(READY, certificate="damaged x")), 1600.0)
    assert damaged.certificate is None
