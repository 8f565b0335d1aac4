from __future__ import annotations

import email.utils
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.api.client import Api
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.emulator.contract import ERRORS
from dcs_proxy.errors import (
    ApiProtocolError,
    ApiUnavailable,
    CredentialsError,
    DcsError,
    DeadlineExceeded,
    Forbidden,
    IdempotencyConflict,
    MachineNotFound,
)
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from tests.fake_api import Answer, FakeApi, fake_api

NAME = MachineName("dm-foo")
SECRET = "dsk-very-secret"
PENDING = {
    "machine_id": "dm-foo",
    "session_id": "wssh-1",
    "status": "wake_in_progress",
    "created_at": "2026-01-02T03:04:05Z",
}


@pytest.fixture
def fake() -> Iterator[FakeApi]:
    with fake_api() as api:
        yield api


class Waits(Deadline):
    """A deadline that notes how long it is asked to wait, and does not."""

    def __init__(self, seconds: float = 300) -> None:
        super().__init__(seconds)
        self.waited: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)


class SpentWaits(Waits):
    """As `Waits`, but what was waited for is gone from the time left."""

    def remaining(self) -> float:
        return self.seconds - sum(self.waited)


NOTICES: list[str] = []


def api_of(fake: FakeApi, tmp_path: Path, deadline: Deadline | None = None, **changes: Any) -> Api:
    NOTICES.clear()
    settings = replace(Settings(base_url=fake.url), **changes)
    credentials = Credentials(SECRET, None, "DEDALUS_API_KEY")
    return Api(
        settings, credentials, deadline or Waits(), Log(str(tmp_path / "log")), NOTICES.append
    )


def error(name: str) -> Answer:
    reply = ERRORS[name]
    return Answer(reply.status, reply.body, dict(reply.headers))


def test_a_create_is_sent_as_the_contract_says(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, PENDING)]
    session = api_of(fake, tmp_path, org_id="org-1").create_session(NAME, "ssh-ed25519 A", "id-1")
    assert session.session_id == "wssh-1"
    (asked,) = fake.asked
    assert (asked.method, asked.path) == ("POST", "/v1/machines/dm-foo/ssh")
    assert json.loads(asked.body) == {"public_key": "ssh-ed25519 A"}
    assert asked.headers["idempotency-key"] == "id-1"
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert asked.headers["x-dedalus-org-id"] == "org-1"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("dcs-proxy/")


def test_each_key_goes_into_its_own_header(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, PENDING)]
    settings = Settings(base_url=fake.url)
    log = Log(str(tmp_path / "log"))
    Api(settings, Credentials(None, "dsk-x", ""), Waits(), log, print).get_session(NAME, "wssh-1")
    Api(settings, Credentials("dsk-b", "dsk-x", ""), Waits(), log, print).get_session(
        NAME, "wssh-1"
    )
    first, second = (asked.headers for asked in fake.asked)
    assert ("authorization" in first, first["x-api-key"]) == (False, "dsk-x")
    assert (second["authorization"], second["x-api-key"]) == ("Bearer dsk-b", "dsk-x")


def test_a_netrc_entry_does_not_take_the_keys_place(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pass\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    fake.answers = [Answer(200, PENDING)]
    api_of(fake, tmp_path).get_session(NAME, "wssh-1")
    assert fake.asked[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("missing_key", CredentialsError, '"missing Dedalus API key" (AUTH_REQUIRED)'),
        ("invalid_key", CredentialsError, '"invalid Dedalus API key" (AUTH_INVALID)'),
        ("org_mismatch", Forbidden, '"org scope does not match API key ownership"'),
        ("scope_forbidden", Forbidden, "(AUTH_SCOPE_FORBIDDEN)"),
    ],
)
def test_what_no_retry_can_mend_is_raised_at_once(
    fake: FakeApi, tmp_path: Path, name: str, kind: type[DcsError], said: str
) -> None:
    fake.answers = [error(name)]
    with pytest.raises(kind) as caught:
        api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    assert said in caught.value.message
    assert (caught.value.machine, len(fake.asked)) == (NAME, 1)


def test_a_reused_idempotency_key_is_a_conflict(fake: FakeApi, tmp_path: Path) -> None:
    details = {"expected_request_hash": "a", "provided_request_hash": "b"}
    fake.answers = [Answer(409, {"error_code": "IDEMPOTENCY_KEY_REUSED", "message": "reused",
                                 "retryable": False, "details": details})]  # fmt: skip
    with pytest.raises(IdempotencyConflict, match="reused"):
        api_of(fake, tmp_path).create_session(NAME, "k", "id-1")


@pytest.mark.parametrize(
    "name",
    ["idempotency_in_flight", "mutation_rate_limited", "mutation_limiter_unavailable",
     "runtime_unavailable"],
)  # fmt: skip
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_retryable_is_tried_again_with_the_same_key(
    fake: FakeApi, tmp_path: Path, name: str, times: int
) -> None:
    fake.answers = [error(name)] * times + [Answer(200, PENDING)]
    api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    assert len(fake.asked) == times + 1
    assert {asked.headers["idempotency-key"] for asked in fake.asked} == {"id-1"}
    assert {asked.body for asked in fake.asked} == {b'{"public_key": "k"}'}


def test_patience_with_failures_that_name_no_wait_has_an_end(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("runtime_unavailable")]
    deadline = Waits()
    with pytest.raises(ApiUnavailable, match="runtime unavailable"):
        api_of(fake, tmp_path, deadline).create_session(NAME, "k", "id-1")
    assert len(fake.asked) == 8
    assert sum(deadline.waited) < 60


@pytest.mark.parametrize(("limit_s", "least_s"), [(1, 0.3), (20, 11.9), (300, 291.9)])
def test_a_refusal_that_names_its_wait_is_waited_for_until_the_deadline(
    fake: FakeApi, tmp_path: Path, limit_s: float, least_s: float
) -> None:
    fake.answers = [error("mutation_rate_limited")]
    deadline = SpentWaits(limit_s)
    with pytest.raises(ApiUnavailable, match=r"mutation rate limit exceeded.*RATE_LIMITED") as met:
        api_of(fake, tmp_path, deadline).create_session(NAME, "k", "id-1")
    assert met.value.machine == NAME
    # It ends where the next wait, up to 8 s longer than asked, would not fit any more.
    assert least_s < sum(deadline.waited) < limit_s
    assert all(wait >= 0.084 for wait in deadline.waited)
    assert len(fake.asked) == len(deadline.waited) + 1
    assert len(fake.asked) < 12 + limit_s
    assert {asked.headers["idempotency-key"] for asked in fake.asked} == {"id-1"}


def test_a_refusal_that_lasts_is_told_once(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("mutation_rate_limited")] * 30 + [Answer(200, PENDING)]
    api_of(fake, tmp_path, SpentWaits()).create_session(NAME, "k", "id-1")
    (notice,) = NOTICES
    assert "RATE_LIMITED" in notice and notice.endswith("; trying again")


def test_a_courtesy_is_asked_for_once(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("mutation_rate_limited")]
    with pytest.raises(ApiUnavailable):
        api_of(fake, tmp_path).close_session(NAME, "wssh-1", "id-2", once=True)
    assert len(fake.asked) == 1


def test_retryable_false_is_believed(fake: FakeApi, tmp_path: Path) -> None:
    body = {"error_code": "DEPENDENCY_UNAVAILABLE", "message": "no", "retryable": False}
    fake.answers = [Answer(503, body)]
    with pytest.raises(ApiUnavailable):
        api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("milliseconds", "header", "low", "high"),
    [
        (84, None, 0.084, 0.15),
        (5000, "1", 5, 5.6),
        (None, "3", 3, 3.4),
        (None, "0", 0, 0.1),
        (None, "soon", 0.2, 1),
        (None, None, 0.2, 1),
    ],
)
def test_the_wait_is_at_least_what_was_asked_and_spread(
    fake: FakeApi, tmp_path: Path, milliseconds: int | None, header: str | None, low: float,
    high: float,
) -> None:  # fmt: skip
    body: dict[str, Any] = {"error_code": "RATE_LIMITED", "message": "slow", "retryable": True}
    if milliseconds is not None:
        body["retry_after_ms"] = milliseconds
    headers = {} if header is None else {"Retry-After": header}
    waited = []
    for _ in range(5):
        deadline = Waits()
        fake.answers = [Answer(429, body, headers), Answer(200, PENDING)]
        api_of(fake, tmp_path, deadline).create_session(NAME, "k", "id-1")
        waited += deadline.waited
    assert all(low <= seconds <= high for seconds in waited), waited
    assert len(set(waited)) > 1


def test_retry_after_may_be_a_date(fake: FakeApi, tmp_path: Path) -> None:
    date = email.utils.formatdate(time.time() + 20, usegmt=True)
    fake.answers = [Answer(503, b"", {"Retry-After": date}), Answer(200, PENDING)]
    deadline = Waits()
    api_of(fake, tmp_path, deadline).create_session(NAME, "k", "id-1")
    assert 15 < deadline.waited[0] < 23


def test_an_absurd_wait_ends_at_once_and_is_told(fake: FakeApi, tmp_path: Path) -> None:
    body = {"error_code": "RATE_LIMITED", "message": "m", "retryable": True,
            "retry_after_ms": 10**15}  # fmt: skip
    fake.answers = [Answer(429, body)]
    deadline = Waits()
    with pytest.raises(ApiUnavailable, match="asks to wait"):
        api_of(fake, tmp_path, deadline).create_session(NAME, "k", "id-1")
    assert (deadline.waited, len(fake.asked)) == ([], 1)


def test_a_long_wait_is_told_once_and_a_short_one_not(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [error("runtime_unavailable"), Answer(200, PENDING)]
    api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    assert NOTICES == []
    fake.answers = [error("runtime_unavailable")]
    with pytest.raises(ApiUnavailable):
        api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    (notice,) = NOTICES
    assert "runtime unavailable" in notice and notice.endswith("; trying again")


@pytest.mark.parametrize(
    ("seconds", "kind", "said"),
    [
        (1.2, ApiUnavailable, r"has not answered in 1 s$"),
        (0.3, DeadlineExceeded, r"^not ready after 0\.3 s$"),
    ],
)
def test_an_api_that_says_nothing_is_named_when_the_deadline_passes(
    tmp_path: Path, seconds: float, kind: type[DcsError], said: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = Settings(base_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        log = Log(str(tmp_path / "log"))
        api = Api(settings, Credentials(SECRET, None, ""), Deadline(seconds), log, print)
        with pytest.raises(kind, match=said):
            api.create_session(NAME, "k", "id-1")


def test_a_name_that_cannot_be_looked_up_is_told(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    api = api_of(fake, tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ApiUnavailable, match="has a name that cannot be looked up"):
        api.create_session(NAME, "k", "id-1")


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_apis_clock_is_known_from_its_answers(
    fake: FakeApi, tmp_path: Path, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = api_of(fake, tmp_path)
    fake.answers = [Answer(200, PENDING)]
    api.create_session(NAME, "k", "id-1")
    assert api.clock_ahead_s == 0
    now = time.time() - hours * 3600
    monkeypatch.setattr(time, "time", lambda: now)
    fake.date = now + hours * 3600
    api.create_session(NAME, "k", "id-1")
    assert abs(api.clock_ahead_s - hours * 3600) <= 2


def test_a_key_that_a_server_sends_back_is_not_shown(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(401, {"error_code": "AUTH_INVALID", "message": f"bad {SECRET}!"})]
    with pytest.raises(CredentialsError) as caught:
        api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    assert '"bad [key]!"' in caught.value.message


def test_problem_json_and_html_are_quoted_or_left_out(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(400, {"title": "Bad\x1b[0m", "detail": "no\nsuch"})]
    with pytest.raises(ApiProtocolError, match=r'answered "no such" \(HTTP 400\)'):
        api_of(fake, tmp_path).get_session(NAME, "wssh-1")
    fake.answers = [Answer(500, b"<html>")]
    with pytest.raises(ApiProtocolError, match="answered HTTP 500"):
        api_of(fake, tmp_path).get_session(NAME, "wssh-1")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_load_balancers_errors_are_retried(fake: FakeApi, tmp_path: Path, status: int) -> None:
    fake.answers = [Answer(status, b"<html>"), Answer(200, PENDING)]
    assert api_of(fake, tmp_path).create_session(NAME, "k", "id-1").session_id == "wssh-1"


@pytest.mark.parametrize("status", [404, 405])
def test_a_missing_get_is_told_from_a_missing_machine(
    fake: FakeApi, tmp_path: Path, status: int
) -> None:
    fake.answers = [Answer(status, b"")]
    api = api_of(fake, tmp_path)
    assert api.get_session(NAME, "wssh-1") is None
    api.close_session(NAME, "wssh-1", "id-2")
    fake.answers = [Answer(404, b"")]
    with pytest.raises(MachineNotFound):
        api.create_session(NAME, "k", "id-1")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(fake: FakeApi, tmp_path: Path, status: int) -> None:
    with fake_api() as other:
        fake.answers = [Answer(status, b"", {"Location": other.url})]
        with pytest.raises(ApiProtocolError, match="redirect"):
            api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
        assert other.asked == []


def test_a_body_without_end_is_cut_off(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, b" " * (2 * 1024 * 1024))]
    with pytest.raises(ApiUnavailable, match="more than 1 MiB"):
        api_of(fake, tmp_path).get_session(NAME, "wssh-1")


def test_a_body_that_stops_half_way_is_tried_again(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, b"{", {"Content-Length": "100"}), Answer(200, PENDING)]
    assert api_of(fake, tmp_path).create_session(NAME, "k", "id-1").session_id == "wssh-1"


def test_nobody_listening_is_told_after_a_few_tries(fake: FakeApi, tmp_path: Path) -> None:
    fake.server.server_close()
    deadline = Waits()
    with pytest.raises(ApiUnavailable, match="cannot be reached: Connection refused") as caught:
        api_of(fake, tmp_path, deadline).create_session(NAME, "k", "id-1")
    assert fake.url in caught.value.message
    assert len(deadline.waited) == 3


def test_all_pages_are_listed_and_odd_names_left_out(fake: FakeApi, tmp_path: Path) -> None:
    def page(*names: str, cursor: str | None) -> Answer:
        return Answer(200, {"items": [{"machine_id": n, "phase": "running"} for n in names],
                            "next_cursor": cursor})  # fmt: skip

    fake.answers = [page("dm-a", "../etc", cursor="a&b"), page("dm-b", cursor=None)]
    listed = api_of(fake, tmp_path).list_machines()
    assert [machine.machine_id for machine in listed] == ["dm-a", "dm-b"]
    assert fake.asked[1].path == "/v1/machines?limit=100&cursor=a%26b"


def test_a_list_without_an_end_is_told(
    fake: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcs_proxy.api.client._MAX_PAGES", 3)
    fake.answers = [Answer(200, {"items": [], "next_cursor": "on"})]
    with pytest.raises(ApiProtocolError, match=r"^the API's list of machines has no end$"):
        api_of(fake, tmp_path).list_machines()
    assert len(fake.asked) == 3


def test_a_machine_is_asked_for_by_its_name(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(200, {"machine_id": "dm-foo", "status": {"phase": "sleeping"}})]
    assert api_of(fake, tmp_path).get_machine(NAME).phase == "sleeping"
    assert (fake.asked[0].method, fake.asked[0].path) == ("GET", "/v1/machines/dm-foo")
    fake.answers = [Answer(404, b"")]
    with pytest.raises(MachineNotFound):
        api_of(fake, tmp_path).get_machine(NAME)


def test_the_key_is_in_no_log_and_no_message(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [
        Answer(401, {"error_code": "AUTH_INVALID", "message": "bad", "retryable": False})
    ]
    with pytest.raises(CredentialsError) as caught:
        api_of(fake, tmp_path).create_session(NAME, "k", "id-1")
    assert SECRET not in caught.value.one_line()
    log = (tmp_path / "log").read_text()
    assert "status=401" in log and SECRET not in log


def test_a_session_id_cannot_leave_its_place_in_the_path(fake: FakeApi, tmp_path: Path) -> None:
    fake.answers = [Answer(404, b"")]
    api_of(fake, tmp_path).get_session(NAME, "a/../b?c")
    assert fake.asked[0].path == "/v1/machines/dm-foo/ssh/a%2F..%2Fb%3Fc"
